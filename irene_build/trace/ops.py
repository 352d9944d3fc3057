"""What one aten operation costs: its kind, floating point operations, and bytes read and written.

Used for what a module computes itself (between its children), and for primitives whose cost is the
sum of their operations. Operations that only make a view of a storage, or reserve one, cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log2, prod
from typing import Any, NamedTuple

import torch

from .aten_tables import COPIES, FREE, INTERPOLATED, NAMED, POINTWISE_FLOPS, ROWWISE, WRITES_A_PART


class Op(NamedTuple):
    """One aten operation. FLOPs and bytes are absolute (not millions, not MiB)."""

    name: str
    primitive: str
    matmul_flops: float
    elementwise_flops: float
    read_bytes: float
    write_bytes: float
    weight_bytes: float
    elements: int
    signature: str
    gemm: tuple[int, int, int, int] | None = None
    weights: tuple[int, ...] = ()


def tensors_of(value: Any, into: list[Any] | None = None) -> list[Any]:
    """All tensors in nested lists, tuples, dicts, dataclass-like outputs, in order."""
    found: list[Any] = [] if into is None else into
    if hasattr(value, "untyped_storage"):
        found.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            tensors_of(item, found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            tensors_of(item, found)
    return found


def touched(tensor: Any) -> int:
    """Distinct elements that a tensor addresses: expanded dimensions (stride 0) count once."""
    if tensor.layout.__repr__() != "torch.strided":
        return int(tensor.numel())
    return prod(n for n, s in zip(tensor.shape, tensor.stride(), strict=True) if s) if tensor.numel() else 0


def storage_key(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


def text_of(tensor: Any) -> str:
    """``8x32x768:float32``; its strides where the tensor is not contiguous (0 for a size of 1, where any will do)."""
    shape = "x".join(map(str, tensor.shape))
    if tensor.is_contiguous():
        return f"{shape}:{str(tensor.dtype)[6:]}"
    strides = ",".join(str(s if n != 1 else 0) for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return f"{shape}:{str(tensor.dtype)[6:]}/{strides}"


def _gemm(
    name: str, inputs: list[Any], args: tuple[Any, ...], outputs: list[Any]
) -> tuple[int, int, int, int] | None:
    """(batch, m, n, k) of a matrix product, None where ``name`` is none."""
    if name.startswith("_weight_int"):
        # Packed matrices of 8 or 4 bits: their shape is that of the packing.
        x, out = inputs[0], outputs[0]
        return 1, x.numel() // x.shape[-1], out.shape[-1], x.shape[-1]
    if name in ("mm", "_int_mm", "_scaled_mm"):
        a, b = inputs[0], inputs[1]
        return 1, a.shape[0], b.shape[1], a.shape[1]
    if name in ("addmm", "_addmm_activation"):
        a, b = args[1], args[2]
        return 1, a.shape[0], b.shape[1], a.shape[1]
    if name == "bmm":
        a, b = inputs[0], inputs[1]
        return a.shape[0], a.shape[1], b.shape[2], a.shape[2]
    if name in ("baddbmm", "baddbmm_", "addbmm", "addbmm_"):
        a, b = args[1], args[2]
        return a.shape[0], a.shape[1], b.shape[2], a.shape[2]
    if name == "mv":
        return 1, inputs[0].shape[0], 1, inputs[0].shape[1]
    if name == "addmv":
        return 1, args[1].shape[0], 1, args[1].shape[1]
    if name in ("dot", "vdot"):
        return 1, 1, 1, inputs[0].shape[0]
    if name == "addr":
        return 1, args[1].shape[0], args[2].shape[0], 1
    return None


def convolution_flops(x: Any, weight: Any, out: Any, transposed: bool) -> float:
    """2 x (positions of the output, or of the input if transposed) x the kernel's own elements x batch."""
    positions = x if transposed else out
    return 2.0 * positions.shape[0] * prod(positions.shape[2:]) * prod(weight.shape)


class Costs:
    """Costs of operations, given which storages hold parameters (``parameters``: storage key -> id)."""

    def __init__(self, parameters: dict[int, int]) -> None:
        self.parameters = parameters
        #: (tokens, experts a token) of the mixture that is running.
        self.routing: tuple[int, int] | None = None

    def chosen_experts(self, rows: int, experts: int) -> float:
        """Expected share of distinct experts when each of T tokens picks k of E: 1 - (1 - k/E)^T."""
        tokens, each = self.routing or (rows, 1)
        return float(1.0 - (1.0 - min(1.0, each / max(experts, 1))) ** tokens)

    def traffic(self, inputs: Iterator[Any] | list[Any]) -> tuple[float, float, tuple[int, ...]]:
        """(activation bytes, weight bytes, ids of parameters) read from ``inputs``."""
        read = weight = 0.0
        ids: list[int] = []
        for tensor in inputs:
            size = touched(tensor) * tensor.element_size()
            key = self.parameters.get(storage_key(tensor))
            if key is None:
                read += size
            else:
                weight += size
                ids.append(key)
        return read, weight, tuple(ids)

    def of(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Op | None:
        """The cost of a call of an aten overload; None where it costs nothing."""
        space, _, name = func._schema.name.partition("::")
        if space == "prim" or name in FREE or func.is_view:
            return None
        inputs = tensors_of(args)
        if kwargs:
            tensors_of(kwargs, inputs)
        outputs = tensors_of(result)
        mutable = func._schema.is_mutable
        if not mutable and outputs and inputs:
            held = {storage_key(t) for t in inputs}
            if all(storage_key(t) in held for t in outputs):
                return None
        read, weight, ids = self.traffic(inputs)
        write = float(sum(touched(t) * t.element_size() for t in outputs))
        elements = sum(int(t.numel()) for t in outputs)
        matmul = flops = 0.0
        gemm = None
        floating = any(t.is_floating_point() or t.is_complex() for t in outputs) or any(
            t.is_floating_point() for t in inputs
        )
        if name in ROWWISE:
            primitive, per_element = ROWWISE[name]
            flops = float(per_element * inputs[0].numel()) if floating else 0.0
        elif name in COPIES:
            primitive = "Copy"
            if name in ("index", "gather", "index_select", "take", "_unsafe_index") and inputs:
                # A lookup reads what it picks, not the whole table.
                picked = write + float(sum(t.numel() * t.element_size() for t in inputs[1:]))
                read, weight = (0.0, write) if ids else (picked, 0.0)
                if ids:
                    read = picked - write
            elif name in ("copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_") and inputs:
                read, weight, ids = self.traffic(inputs[1:])
            elif name in WRITES_A_PART:
                read, weight, ids = self.traffic(inputs[1:])
                write = _part_written(name, args, inputs)
                read += (
                    write
                    if WRITES_A_PART[name] or (name.startswith("index_put") and args[-1] is True)
                    else 0.0
                )
        elif name in NAMED:
            primitive = NAMED[name]
            if primitive == "Embedding":
                read, weight = float(inputs[1].numel() * inputs[1].element_size()), write
                if not ids:
                    read, weight = read + write, 0.0
            else:
                flops = _named_flops(name, args, inputs, outputs) if floating else 0.0
        elif name in ("convolution", "_convolution", "convolution_overrideable", "cudnn_convolution"):
            transposed = bool(args[6]) if name in ("convolution", "_convolution") else False
            matmul = convolution_flops(inputs[0], inputs[1], outputs[0], transposed)
            flops = float(elements) if len(inputs) > 2 else 0.0
            primitive = "ConvTranspose" if transposed else f"Conv{max(1, inputs[1].dim() - 2)}d"
        elif (found := _gemm(name, inputs, args, outputs)) is not None:
            gemm = found
            matmul = 2.0 * prod(gemm)
            flops = float(elements) if "add" in name else 0.0
            primitive = "MatMul"
        elif "grouped_mm" in name and len(inputs) > 1:
            a, b = inputs[0], inputs[1]
            rows = a.shape[0] if a.dim() == 2 else a.shape[0] * a.shape[1]
            gemm = (1, int(rows), int(b.shape[-1]), int(a.shape[-1]))
            matmul = 2.0 * prod(gemm)
            primitive = "GroupedExperts"
            # Only the experts that some token chose are read.
            weight *= self.chosen_experts(rows, int(b.shape[0])) if b.dim() == 3 else 1.0
        elif "scaled_dot_product" in name or "flash_attention" in name or "efficient_attention" in name:
            q, k, v = inputs[0], inputs[1], inputs[2]
            matmul = attention_flops(q, k, v)
            flops = 5.0 * prod(q.shape[:-1]) * k.shape[-2]
            primitive = "Attention"
        elif _tagged(func, "reduction"):
            primitive = "Reduction"
            flops = float(inputs[0].numel()) if floating and inputs else 0.0
        elif name in POINTWISE_FLOPS or _tagged(func, "pointwise") or (mutable and name.endswith("_")):
            primitive = "Elementwise"
            flops = float(POINTWISE_FLOPS.get(name, 1) * elements) if floating else 0.0
        else:
            primitive = "Custom"
        signature = f"{name}({';'.join(map(text_of, inputs))})->{';'.join(map(text_of, outputs))}"
        return Op(name, primitive, matmul, flops, read, write, weight, elements, signature, gemm, ids)


def _part_written(name: str, args: tuple[Any, ...], inputs: list[Any]) -> float:
    """Bytes that land in the first tensor. Boolean masks pick nobody knows how many: all of it is the most."""
    target, last = inputs[0], inputs[-1]
    if "index_put" in name:
        picks = [(d, index) for d, index in enumerate(args[1]) if index is not None]
        if any(index.dtype == torch.bool for _, index in picks):
            count = target.numel()
        else:
            each = prod(n for d, n in enumerate(target.shape) if d not in dict(picks))
            count = prod(torch.broadcast_shapes(*(index.shape for _, index in picks))) * each
    else:
        count = inputs[1].numel() if name.startswith("scatter") else last.numel()
    return float(count * target.element_size())


def _named_flops(name: str, args: tuple[Any, ...], inputs: list[Any], outputs: list[Any]) -> float:
    """FLOPs of transforms, poolings, interpolations and distances, as their definitions have them."""
    x, out = inputs[0], outputs[0]
    if name.startswith("_fft_"):
        # 5 n log2 n for n complex values (Cooley and Tukey), the half of it for real ones.
        side = out if name == "_fft_c2r" else x
        length = prod(side.shape[d] for d in args[1])
        return (5.0 if name == "_fft_c2c" else 2.5) * side.numel() * log2(max(length, 1))
    if name in ("_cdist_forward", "_euclidean_dist", "_pdist_forward"):
        return 3.0 * out.numel() * x.shape[-1]
    if NAMED[name] == "Pool":
        spatial = 3 if "3d" in name else 2
        return float(out.numel() * window(args[1], spatial)) if "adaptive" not in name else float(x.numel())
    for method, each in INTERPOLATED.items():
        if method in name:
            return float(each * out.numel())
    return 0.0 if NAMED[name] == "Interpolate" else float(max(out.numel(), x.numel()))


def window(size: Any, spatial: int) -> int:
    """Values that a pooling with this kernel size looks at for one of its own."""
    sides = list(size) if isinstance(size, (list, tuple)) else [size]
    return int(prod(sides)) if len(sides) == spatial else int(sides[0]) ** spatial


def attention_flops(query: Any, key: Any, value: Any) -> float:
    """Both products of softmax(q k') v for [..., tokens, width] tensors; grouped heads count as the query's."""
    heads = prod(query.shape[:-2])
    return 2.0 * heads * query.shape[-2] * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _tagged(func: Any, name: str) -> bool:
    return any(tag.name == name for tag in func.tags)
