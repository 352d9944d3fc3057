"""Turns the recorded calls into a ``ModelTree``: leaves with features, inner nodes with their sums.

What a module computes itself becomes leaves of its own after its children, one for each primitive
(``Elementwise``, ``Copy``, ``Reduction``, ...), so that children add up to their parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from irene_runtime.tree import ModelTree, Node

from .formulas import Cost
from .ops import Op
from .recorder import Call

MILLION = 1e6
MIB = float(2**20)
#: Features of an inner node that are the sum over its children.
SUMS = (
    "flops", "matmul_flops", "elementwise_flops", "mem_bytes", "weight_bytes", "read_bytes", "write_bytes", "kernels",
)  # fmt: skip


def cost_of_ops(ops: Iterable[Op]) -> Cost:
    """The sum of operations; with exactly one matrix product among them, its shape."""
    total = Cost(kernels=0.0)
    gemms = []
    weights: list[int] = []
    for op in ops:
        total.matmul_flops += op.matmul_flops
        total.elementwise_flops += op.elementwise_flops
        total.read_bytes += op.read_bytes
        total.write_bytes += op.write_bytes
        total.weight_bytes += op.weight_bytes
        total.kernels += 1
        weights.extend(op.weights)
        if op.gemm is not None:
            gemms.append(op.gemm)
    if len(gemms) == 1:
        total.shape = dict(zip(("gemm_batch", "gemm_m", "gemm_n", "gemm_k"), gemms[0], strict=True))
    total.weights = tuple(weights)
    return total


def _dimensions(text: str) -> list[int]:
    shape = text.partition(":")[0]
    return [int(n) for n in shape.split("x")] if shape else []


def _product(sizes: list[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


class Assembler:
    """Builds nodes; ``positions`` maps (call's sequence, own primitive or None) to the node's index."""

    def __init__(
        self, header: dict[str, Any], parameters: Mapping[int, Any], weights: str | None = None
    ) -> None:
        """``parameters``: id -> the parameter; ``weights``: int8, int4 or None."""
        self.header = header
        self._parameters, self._weights = parameters, weights
        self.nodes: list[Node] = []
        self.positions: dict[tuple[int, str | None], int] = {}
        self._element_size = element_sizes()
        self._calls: dict[tuple[str, str], int] = {}

    def tree(self, root: Call) -> ModelTree:
        self._add(root, -1)
        return ModelTree(self.nodes, self.header)

    def _features(self, extra: dict[str, float]) -> dict[str, float]:
        shape = {"batch_size": self.header["batch_size"], "seq_len": self.header["seq_len"]}
        return {name: float(value) for name, value in {**shape, **extra}.items() if value is not None}

    def _number(self, scope: str, kind: str) -> int:
        """How often this module, or this primitive in this scope, was called before."""
        number = self._calls.get((scope, kind), 0)
        self._calls[scope, kind] = number + 1
        return number

    def _add(self, call: Call, parent: int) -> Node:
        index = len(self.nodes)
        self.positions[call.sequence, None] = index
        if call.primitive is not None:
            cost = call.cost if call.cost is not None else cost_of_ops(call.ops)
            return self._leaf(call, call.primitive.name, call.type, parent, cost, call.ops)
        level = "model" if parent < 0 else "module"
        node = Node(call.scope, call.type, level, parent, call=self._number(call.scope, call.type))
        node.shapes = {"in": call.inputs, "out": call.outputs}
        self.nodes.append(node)
        sums: dict[str, float] = dict.fromkeys(SUMS, 0.0)
        children = [self._add(child, index) for child in call.children if not is_empty(child)]
        for primitive in dict.fromkeys(op.primitive for op in call.ops):
            own = [op for op in call.ops if op.primitive == primitive]
            self.positions[call.sequence, primitive] = len(self.nodes)
            children.append(self._leaf(call, primitive, primitive, index, cost_of_ops(own), own, own=True))
        for child_node in children:
            for name in SUMS:
                sums[name] += child_node.features[name]
        sums["num_parameters"] = float(parameters_of(call.module))
        node.features = self._features(sums)
        return node

    def _leaf(
        self, call: Call, primitive: str, kind: str, parent: int, cost: Cost, ops: list[Op], own: bool = False
    ) -> Node:
        inputs, outputs = ([], []) if own else (call.inputs, call.outputs)
        if own or call.module is None:
            count = sum(self._parameters[i].numel() for i in dict.fromkeys(cost.weights))
        else:
            count = parameters_of(call.module)
        elements = (
            sum(op.elements for op in ops) if own else sum(_product(_dimensions(text)) for text in outputs)
        )
        if self._weights is not None and is_quantised(primitive, self.nodes[parent].type):
            read = [self._parameters[i] for i in dict.fromkeys(cost.weights)]
            cost.weight_bytes = quantised_bytes(read, cost.weight_bytes, self._weights)
        largest = max(ops, key=lambda op: op.write_bytes, default=None) if not outputs else None
        texts = outputs or ([largest.signature.rpartition("->")[2].partition(";")[0]] if largest else [])
        dtype = texts[0].partition(":")[2].partition("/")[0] if texts else ""
        features = {
            "flops": (cost.matmul_flops + cost.elementwise_flops) / MILLION,
            "matmul_flops": cost.matmul_flops / MILLION,
            "elementwise_flops": cost.elementwise_flops / MILLION,
            "mem_bytes": (cost.read_bytes + cost.write_bytes + cost.weight_bytes) / MIB,
            "weight_bytes": cost.weight_bytes / MIB,
            "read_bytes": cost.read_bytes / MIB,
            "write_bytes": cost.write_bytes / MIB,
            "kernels": cost.kernels,
            "num_parameters": float(count),
            "elements": float(elements),
            "bytes_per_element": float(self._element_size.get(dtype, 4)),
            **cost.shape,
        }
        if primitive in ROWS and "rows" not in features and inputs and (sizes := _dimensions(inputs[0])):
            features["rows"] = float(_product(sizes[:-1]))
            features["cols"] = float(sizes[-1])
        shapes: dict[str, Any] = {"in": inputs, "out": outputs}
        if own or (call.cost is None and ops):
            shapes = {**({} if own else shapes), "ops": [op.signature for op in ops]}
        if call.causal and not own:
            shapes["is_causal"] = True
        number = self._number(call.scope, kind)
        node = Node(call.scope, kind, "ml", parent, primitive, number, self._features(features), shapes)
        self.nodes.append(node)
        return node


#: Leaves that work row by row, whose row count and length regressors want.
ROWS = ("Softmax", "LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm", "BatchNorm1d", "TopK", "Embedding")


#: Leaves whose matrices are stored in 8 or 4 bits where the model's weights are.
QUANTISED = ("Linear", "Conv1D", "GroupedExperts")


def is_quantised(primitive: str, module: str) -> bool:
    """Linear layers, and products that a module of experts computes, however it does. ``module``: its type."""
    return primitive in QUANTISED or (primitive == "MatMul" and module.endswith("Experts"))


def quantised_bytes(parameters: Iterable[Any], weight_bytes: float, weights: str) -> float:
    """Bytes of weights stored in ``int8`` (a 2-byte scale an output row) or ``int4`` (one every 128 values).

    ``parameters``: those that were read; vectors (biases) stay as they are. ``weight_bytes``: how much of them was
    read at their full size; the same share is read of the small ones.
    """
    full = small = 0.0
    for parameter in parameters:
        count = parameter.numel()
        full += count * parameter.element_size()
        if parameter.dim() < 2:
            small += count * parameter.element_size()
        elif weights == "int8":
            small += count + 2.0 * (count / parameter.shape[-1])
        else:
            small += count / 2 + 2.0 * count / 128
    return weight_bytes * small / full if full else weight_bytes


def element_sizes() -> dict[str, int]:
    """Bytes of one element by the name of its dtype."""
    import torch

    kinds = (getattr(torch, name) for name in dir(torch))
    return {str(kind)[6:]: int(kind.itemsize) for kind in kinds if isinstance(kind, torch.dtype)}


def is_empty(call: Call) -> bool:
    """Nothing ran: dropout in evaluation, identities, containers that only pass through."""
    if call.primitive is not None:
        return call.cost is None and not call.ops
    return not call.ops and all(is_empty(child) for child in call.children)


def parameters_of(module: Any) -> int:
    """Elements of a module's parameters, shared ones once."""
    return sum(_numel(p) for p in module.parameters()) if module is not None else 0


def _numel(parameter: Any) -> int:
    return 0 if type(parameter).__name__ == "UninitializedParameter" else int(parameter.numel())
