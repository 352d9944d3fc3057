"""Turns the recorded calls into a ``ModelTree``: leaves with features, inner nodes with their sums.

What a module computes itself becomes leaves of its own after its children, one for each primitive
(``Elementwise``, ``Copy``, ``Reduction``, ...), so that children add up to their parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from irene_build.models.stored import Stored, stored_bytes
from irene_runtime.tree import ModelTree, Node

from .bare import is_lazy
from .calls import Call
from .formulas import Cost
from .ops import Op
from .packed_costs import unpacked

if TYPE_CHECKING:
    from torch import Tensor

MILLION = 1e6
MIB = float(2**20)


class Counted(NamedTuple):
    """What adds up from the leaves to the root, before units: whole numbers, of any size, where they are counts."""

    matmul_flops: float = 0
    elementwise_flops: float = 0
    weight_bytes: float = 0
    read_bytes: float = 0
    write_bytes: float = 0
    kernels: float = 0

    def plus(self, other: Counted) -> Counted:
        return Counted(*(a + b for a, b in zip(self, other, strict=True)))

    def features(self) -> dict[str, float]:
        return {
            "flops": (self.matmul_flops + self.elementwise_flops) / MILLION,
            "matmul_flops": self.matmul_flops / MILLION,
            "elementwise_flops": self.elementwise_flops / MILLION,
            "mem_bytes": (self.read_bytes + self.write_bytes + self.weight_bytes) / MIB,
            "weight_bytes": self.weight_bytes / MIB,
            "read_bytes": self.read_bytes / MIB,
            "write_bytes": self.write_bytes / MIB,
            "kernels": float(self.kernels),
        }


def _exact(value: float) -> float:
    """A count as a whole number, which sums to any size without rounding."""
    return int(value) if float(value).is_integer() else value


def _dtype(text: str) -> str:
    return text.partition(":")[2].partition("/")[0]


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
        total.unseen += op.unseen
        if op.attended is not None:
            total.shape["attended"] = total.shape.get("attended", 0) + op.attended
        if op.gemm is not None:
            gemms.append(op.gemm)
    if len(gemms) == 1:
        total.shape |= dict(zip(("gemm_batch", "gemm_m", "gemm_n", "gemm_k"), gemms[0], strict=True))
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
        self,
        header: dict[str, Any],
        parameters: Mapping[int, Tensor],
        stored: Stored | None = None,
        kept: set[int] | None = None,
    ) -> None:
        """``parameters``: id -> the parameter; ``stored``: how, but for those whose ids are ``kept``."""
        self.header = header
        self._parameters, self._stored, self._kept = parameters, stored, kept or set()
        self.nodes: list[Node] = []
        self.positions: dict[tuple[int, str | None], int] = {}
        self._element_size = element_sizes()
        self._calls: dict[tuple[str, str], int] = {}
        self._counted: dict[int, Counted] = {}

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
        children = [self._add(child, index) for child in call.children if not is_empty(child)]
        for primitive in dict.fromkeys(op.primitive for op in call.ops):
            own = [op for op in call.ops if op.primitive == primitive]
            self.positions[call.sequence, primitive] = len(self.nodes)
            children.append(self._leaf(call, primitive, primitive, index, cost_of_ops(own), own, own=True))
        total = Counted()
        for child_node in children:
            total = total.plus(self._counted[id(child_node)])
        self._counted[id(node)] = total
        sums = {**total.features(), "num_parameters": float(parameters_of(call.module))}
        if unseen := sum(child.features.get("unseen", 0.0) for child in children):
            sums["unseen"] = unseen
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
        if self._stored is not None and self._stored.is_stored(primitive, self.nodes[parent].type):
            read = [self._parameters[i] for i in dict.fromkeys(cost.weights)]
            cost.weight_bytes = stored_bytes(read, cost.weight_bytes, self._stored, self._kept)
        counted = Counted(*(_exact(getattr(cost, name)) for name in Counted._fields))
        features = {
            **counted.features(),
            "num_parameters": float(count),
            "elements": float(elements),
            "bytes_per_element": self._bytes_per_element(outputs, ops),
            **cost.shape,
        }
        if cost.unseen:
            features["unseen"] = float(cost.unseen)
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
        self._counted[id(node)] = counted
        self.nodes.append(node)
        return node

    def _bytes_per_element(self, outputs: list[str], ops: list[Op]) -> float:
        """The size of an element of the first output; of what a module computes itself the mean, by bytes written."""
        if outputs or not ops:
            return float(self._element_size.get(_dtype(outputs[0]), 4) if outputs else 4)
        texts = [op.signature.rpartition("->")[2].partition(";")[0] for op in ops]
        sizes = [self._element_size.get(_dtype(text), 4) for text in texts]
        weighed = sum(_exact(op.write_bytes) * size for op, size in zip(ops, sizes, strict=True))
        total = sum(_exact(op.write_bytes) for op in ops)
        return weighed / total if total else float(sizes[0])


#: Leaves that work row by row, whose row count and length regressors want.
ROWS = ("Softmax", "LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm", "BatchNorm1d", "TopK", "Embedding")


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
    """Elements of a module's parameters, shared ones once; those of packed weights too."""
    if module is None:
        return 0
    return sum(_numel(p) for p in module.parameters()) + sum(map(_packed, module.modules()))


def _packed(module: Any) -> int:
    """Elements of weights that a module holds as an object of TorchScript."""
    holder = getattr(module, "_packed_params", None)
    return sum(t.numel() for t in unpacked(holder)) if type(holder).__name__ == "ScriptObject" else 0


def _numel(parameter: Any) -> int:
    return 0 if is_lazy(parameter) else int(parameter.numel())
