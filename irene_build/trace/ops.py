"""What one operation costs: its kind, floating point operations, and bytes read and written.

Used for what a module computes itself (between its children), and for primitives whose cost is the
sum of their operations. Operations that only make a view of a storage, or reserve one, cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from . import aten_costs, aten_linalg, packed_costs  # noqa: F401 (they register their formulas)
from .aten_tables import COMPLEX_FLOPS, FREE, POINTWISE_FLOPS
from .cost_registry import FORMULAS, Called, Gemm, Work
from .tensors import parts_of, storage_key, tensors_of, text_of, touched

if TYPE_CHECKING:
    from torch import Tensor


class Op(NamedTuple):
    """One operation. FLOPs and bytes are absolute (not millions, not MiB).

    ``unseen``: its FLOPs, or weights that it reads, could not be counted.
    """

    name: str
    primitive: str
    matmul_flops: float
    elementwise_flops: float
    read_bytes: float
    write_bytes: float
    weight_bytes: float
    elements: int
    signature: str
    gemm: Gemm | None = None
    weights: tuple[int, ...] = ()
    attended: float | None = None
    unseen: bool = False


class Costs:
    """Costs of operations, given which storages hold parameters.

    ``values(tensor)``: those of a small tensor where they are known, else None.
    """

    def __init__(self, values: Callable[[Any], Any] = lambda tensor: None) -> None:
        #: Key of a storage -> id of the parameter that it holds.
        self.parameters: dict[int, int] = {}
        #: Id of a parameter -> the parameter.
        self.held: dict[int, Tensor] = {}
        #: (tokens, experts a token) of the mixture that is running.
        self.routing: tuple[int, int] | None = None
        self.values = values

    def hold(self, parameter: Tensor) -> None:
        """Counts what lies in the storages of ``parameter`` as weights; again where they were swapped."""
        known = self.held.setdefault(id(parameter), parameter)
        for part in parts_of(known):
            self.parameters[storage_key(part)] = id(parameter)

    def chosen_experts(self, rows: int, experts: int) -> float:
        """Expected share of distinct experts when each of T tokens picks k of E: 1 - (1 - k/E)^T."""
        tokens, each = self.routing or (rows, 1)
        return float(1.0 - (1.0 - min(1.0, each / max(experts, 1))) ** tokens)

    def traffic(self, inputs: Iterable[Tensor]) -> tuple[float, float, tuple[int, ...]]:
        """(activation bytes, weight bytes, ids of parameters) read from ``inputs``."""
        read = weight = 0.0
        ids: list[int] = []
        for tensor in inputs:
            if getattr(tensor, "_is_param", False) or type(tensor) is torch.nn.Parameter:
                self.hold(tensor)
            for part in parts_of(tensor):
                size = touched(part) * part.element_size()
                key = self.parameters.get(storage_key(part))
                if key is None:
                    read += size
                else:
                    weight += size
                    ids.append(key)
        return read, weight, tuple(dict.fromkeys(ids)) if len(ids) > 1 else tuple(ids)

    def of(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Op | None:
        """The cost of a call of an operator's overload; None where it costs nothing."""
        qualified = func._schema.name
        space, _, name = qualified.partition("::")
        inputs = tensors_of(args)
        if kwargs:
            tensors_of({k: v for k, v in kwargs.items() if k != "out" and not k.startswith("out")}, inputs)
        for tensor in inputs:
            if type(tensor) is torch.nn.Parameter and storage_key(tensor) not in self.parameters:
                self.hold(tensor)
        if space == "prim" or (space == "aten" and name in FREE) or func.is_view:
            return None
        outputs = tensors_of(result)
        mutable = func._schema.is_mutable
        if not mutable and outputs and inputs:
            held = {storage_key(t) for t in inputs}
            if all(storage_key(t) in held for t in outputs):
                return None
        formula = FORMULAS.get(qualified)
        if formula is None and not outputs and not mutable:
            # It answers a question about a shape.
            return None
        read, weight, ids = self.traffic(inputs)
        write = float(sum(touched(p) * p.element_size() for t in outputs for p in parts_of(t)))
        call = Called(
            func,
            name,
            args,
            kwargs,
            inputs,
            outputs,
            read,
            weight,
            write,
            ids,
            self.chosen_experts,
            self.values,
        )
        work = formula(call) if formula is not None else _by_tags(func, call)
        read, weight, write = (
            counted if given is None else given
            for given, counted in (
                (work.read_bytes, read), (work.weight_bytes, weight), (work.write_bytes, write),
            )
        )  # fmt: skip
        signature = f"{name}({';'.join(map(text_of, inputs))})->{';'.join(map(text_of, outputs))}"
        return Op(
            name, work.primitive, work.matmul_flops, work.elementwise_flops, read, write, weight,
            call.elements, signature, work.gemm, ids, work.attended, work.unseen,
        )  # fmt: skip


def _by_tags(func: Any, call: Called) -> Work:
    """What is in no table of ours: by torch's registry of FLOP formulas, then by the operator's tags."""
    flops = registered_flops(func, call)
    if flops is not None:
        return Work("Custom", flops)
    if _tagged(func, "reduction"):
        return Work("Reduction", elementwise_flops=_each(call, call.inputs[:1]))
    aten = func.namespace == "aten"
    # One operation on each of a list of tensors.
    listed = aten and call.name.startswith("_foreach_") and "mm" not in call.name
    in_place = listed or (aten and func._schema.is_mutable and call.name.endswith("_"))
    if (aten and call.name in POINTWISE_FLOPS) or _tagged(func, "pointwise") or in_place:
        return Work("Elementwise", elementwise_flops=_each(call, call.outputs))
    return Work("Custom", unseen=call.is_floating)


def registered_flops(func: Any, call: Called) -> float | None:
    """FLOPs by ``torch.utils.flop_counter.register_flop_formula``; None where nobody registered one."""
    from torch.utils.flop_counter import flop_registry

    formula = flop_registry.get(func._overloadpacket)
    if formula is None:
        return None
    out = call.outputs[0] if len(call.outputs) == 1 else tuple(call.outputs)
    return float(formula(*call.args, **call.kwargs, out_val=out))


def _each(call: Called, tensors: list[Tensor]) -> float:
    """FLOPs of a value, as many times as there are."""
    if not call.is_floating:
        return 0.0
    bare = call.name.removesuffix("_").removeprefix("_foreach_")
    each = POINTWISE_FLOPS.get(call.name, POINTWISE_FLOPS.get(bare, 1))
    if call.is_complex:
        each = COMPLEX_FLOPS.get(bare, 2 * each)
    return float(each * sum(int(t.numel()) for t in tensors))


def _tagged(func: Any, name: str) -> bool:
    return any(tag.name == name for tag in func.tags)
