"""``launched``: the same tree, with the FLOPs, bytes and kernels of what an engine launches for it."""

from __future__ import annotations

from irene_build.engines.stack import Layout, stack_of
from irene_build.errors import InputError
from irene_runtime.kernels import Scalar, bytes_of, work
from irene_runtime.tree import ModelTree, Node

ENGINES = ("transformers", "vllm")
_KEPT = ("batch_size", "seq_len", "num_parameters", "elements", "bytes_per_element")
_SUMS = ("flops", "mem_bytes", "kernels")


def launched(
    tree: ModelTree, engine: str, tp: int = 1, ep: int = 1, dp: int = 1, weights: str = "bfloat16",
    kv_cache_dtype: str = "bfloat16",
) -> ModelTree:  # fmt: skip
    """The nodes of ``tree`` (batch, tokens and cache as in its header), features in their units as one GPU runs them.

    Under ``transformers`` every operation is a kernel of its own: the tree as it is. Under ``vllm`` the leaves of a
    fused kernel share its FLOPs, bytes and count; what is inside another launch has none. With more than one GPU,
    all-reduces are leaves ``AllReduce`` beside the layers. Raises InputError.
    """
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}")
    if engine == "transformers":
        return tree
    header = tree.header
    batch, tokens = float(header["batch_size"] or 1), float(header["seq_len"] or 1)
    context = float(header["past_len"] or 0) + tokens
    stack = stack_of(tree, Layout(tp * dp, ep, dp, weights, kv_cache_dtype))
    nodes = [
        Node(n.scope, n.type, n.level, n.parent, n.primitive, n.call,
             {k: n.features[k] for k in _KEPT if k in n.features} | dict.fromkeys(_SUMS, 0.0), n.shapes)
        for n in tree.nodes
    ]  # fmt: skip
    reduced: list[tuple[float, float]] = []
    for launch, kind, dtype, shape in stack.at(batch, tokens, context, prefill=tokens > 1):
        flops, _, data = work(Scalar, kind, dtype, shape)
        if kind == "all_reduce":
            reduced.append((float(launch.count), data))
            continue
        for node, share in launch.members:
            features = nodes[node].features
            features["flops"] += share * flops * 1e-6
            features["mem_bytes"] += share * data / 2**20
            features["kernels"] += share
            if kind == "gemm":
                features["weight_bytes"] = share * bytes_of(dtype)[0] * shape[1] * shape[2] / 2**20
    for count, data in reduced:
        features = {"batch_size": batch, "seq_len": tokens, "flops": 0.0, "kernels": count}
        features["mem_bytes"] = count * data / 2**20
        nodes.append(Node("", "AllReduce", "ml", 0, "AllReduce", 0, features))
    for i in range(len(nodes) - 1, 0, -1):
        parent = nodes[nodes[i].parent].features
        for name in _SUMS:
            parent[name] += nodes[i].features[name]
    return ModelTree(nodes, {**header, "weights": None if weights == "bfloat16" else weights})
