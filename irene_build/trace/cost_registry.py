"""The registry of what an operation costs, in the shape of torch's ``register_flop_formula``.

    @register_cost("mm", "_int_mm")
    def _mm(call: Called) -> Work: ...

A name stands for ``aten::name`` unless it says another namespace (``quantized::linear``). What is not registered is
told by ``ops.Costs``: by torch's own registry of FLOP formulas, then by its tags.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Gemm = tuple[int, int, int, int]


@dataclass(slots=True)
class Work:
    """What one operation does. Bytes that are None: each operand is read once, each result is written once.

    FLOPs and bytes are absolute. ``gemm``: (batch, m, n, k) of a matrix product. ``attended``: scores that a kernel of
    attention computes. ``unseen``: its FLOPs, or the weights that it reads, are not known.
    """

    primitive: str
    matmul_flops: float = 0.0
    elementwise_flops: float = 0.0
    gemm: Gemm | None = None
    read_bytes: float | None = None
    weight_bytes: float | None = None
    write_bytes: float | None = None
    attended: float | None = None
    unseen: bool = False


class Called(NamedTuple):
    """A call of an operator's overload: its arguments and results, and the bytes of both if each is moved once.

    ``chosen_experts(rows, experts)``: the share of distinct experts that tokens choose; ``values``: those of a tensor
    of positions or lengths where they are known, else None.
    """

    func: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    read_bytes: float
    weight_bytes: float
    write_bytes: float
    weights: tuple[int, ...]
    chosen_experts: Callable[[int, int], float]
    values: Callable[[Any], Any]

    @property
    def elements(self) -> int:
        return sum(int(t.numel()) for t in self.outputs)

    @property
    def is_floating(self) -> bool:
        return any(t.is_floating_point() or t.is_complex() for t in (*self.outputs, *self.inputs))

    @property
    def is_complex(self) -> bool:
        return any(t.is_complex() for t in (*self.outputs, *self.inputs))

    def argument(self, name: str, default: Any = None) -> Any:
        """An argument by its name in the operator's schema, its default where it was not given."""
        for index, parameter in enumerate(self.func._schema.arguments):
            if parameter.name == name:
                given = self.args[index] if index < len(self.args) else self.kwargs.get(name)
                return parameter.default_value if given is None and parameter.has_default_value() else given
        return default


Formula = Callable[[Called], Work]
#: ``namespace::name`` -> formula.
FORMULAS: dict[str, Formula] = {}


def register_cost(*names: str) -> Callable[[Formula], Formula]:
    """Registers a formula for operators of these names, whatever their overload."""

    def registered(formula: Formula) -> Formula:
        for name in names:
            FORMULAS[name if "::" in name else f"aten::{name}"] = formula
        return formula

    return registered


def product(call: Called, gemm: Gemm, added: bool = False, primitive: str = "MatMul") -> Work:
    """A matrix product: 2 b m n k FLOPs, four times as many of complex values, and one a value that is added."""
    each = 8.0 if call.is_complex else 2.0
    sums = float(call.elements * (2 if call.is_complex else 1)) if added else 0.0
    return Work(primitive, each * prod(gemm), sums, gemm)
