"""The cost model ``irene2021``: the nodes and the counting rules of the published measurements.

The authors counted on PyTorch's 2021 operators. A 3-D Linear is a batched product that charges its
weight once for every batch item, and an addition of the bias; a 2-D one is one addmm without
counting the bias. LayerNorm is 8 FLOPs and 4 elements of traffic a value, GELU 6 and 2, softmax 5
and 3, tanh 4 and 1, ReLU 1 and 2; an embedding moves its indices and its output.
"""

from __future__ import annotations

from math import prod

from irene_runtime.tree import ModelTree, Node

MILLION, MIB = 1e6, float(2**20)
#: Leaves that the published trees hold; other leaves count to their module.
TYPES = (
    "Linear", "Conv1D", "LayerNorm", "Embedding", "Tanh", "MatMul", "Softmax", "GELU", "ReLU", "BatchNorm1d",
    "Conv1d", "MaxPool1d", "AvgPool1d", "LSTM", "LogSigmoid", "Sigmoid", "LeakyReLU",
)  # fmt: skip
#: type -> (FLOPs, elements moved) a value of the output.
_PER_VALUE = {
    "LayerNorm": (8, 4), "GELU": (6, 2), "Softmax": (5, 3), "Tanh": (4, 1), "Sigmoid": (4, 1), "ReLU": (1, 2),
}  # fmt: skip


def _shape(text: str) -> list[int]:
    return [int(n) for n in text.partition(":")[0].split("x")]


def leaf_cost(node: Node) -> tuple[float, float]:
    """(FLOPs, elements of float32 moved) of a published leaf; an int64 index counts as two elements."""
    shapes = node.shapes or {}
    features = node.features
    if node.type in ("Linear", "Conv1D", "MatMul"):
        b, m, n, k = (int(features[f"gemm_{name}"]) for name in ("batch", "m", "n", "k"))
        product = 2.0 * b * m * n * k
        if node.type == "MatMul":
            return product, float(b * (m * k + k * n + m * n))
        size = _shape(shapes["in"][0])
        if node.type == "Conv1D" or len(size) == 2:
            return product, float(m * k + k * n + m * n)
        batch, out = prod(size[:-2]), m * n
        return product + out, float(m * k + batch * k * n + out) + 2.0 * out
    values = features["elements"]
    if node.type == "Embedding":
        return 0.0, values + 2.0 * features["rows"]
    flops, moved = _PER_VALUE.get(node.type, (1, 2))
    return flops * values, moved * values


def published_tree(tree: ModelTree) -> ModelTree:
    """The published nodes of an eager ``analytic`` tree, with the costs of 2021."""
    keep: dict[int, int] = {}
    nodes: list[Node] = []
    totals: list[list[float]] = []
    for index, node in enumerate(tree.nodes):
        if node.level == "ml" and node.type not in TYPES:
            continue
        keep[index] = len(nodes)
        parent = keep[node.parent] if node.parent >= 0 else -1
        copy = Node(
            node.scope,
            node.type,
            node.level,
            parent,
            node.primitive,
            node.call,
            dict(node.features),
            node.shapes,
        )
        nodes.append(copy)
        totals.append([0.0, 0.0])
        if node.level != "ml":
            continue
        flops, moved = leaf_cost(node)
        while parent >= 0:
            totals[parent][0] += flops
            totals[parent][1] += moved
            parent = nodes[parent].parent
        totals[-1] = [flops, moved]
    for node, (flops, moved) in zip(nodes, totals, strict=True):
        node.features = {
            "batch_size": node.features["batch_size"],
            "seq_len": node.features["seq_len"],
            "flops": flops / MILLION,
            "mem_bytes": moved * 4.0 / MIB,
            "num_parameters": node.features["num_parameters"],
        }
    return ModelTree(nodes, {**tree.header, "cost_model": "irene2021"})
