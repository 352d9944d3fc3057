"""How the kernels of the CPU lay their results out, where those of meta or fake tensors do it in another way.

Layout decides what is copied later (``contiguous``, ``reshape``), so it is part of a tree. Sources: the kernels in
ATen's ``native`` folder; a convolution's is asked of torch, which picks its kernel by shapes, layouts and threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import torch
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode

#: strides(args, kwargs, first result, fake) of that result on the CPU; ``fake``: the mode, None on meta.
Strides = Callable[[tuple[Any, ...], dict[str, Any], Any, Any], "tuple[int, ...]"]

#: Primitives whose functions reach an operation of ``operations``, or are answered by ``call``.
PRIMITIVES = frozenset((
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose", "BatchNorm", "BatchNorm1d", "GroupNorm", "MaxPool1d", "LogSigmoid",
))  # fmt: skip


def _strides(shape: Any, memory_format: Any) -> tuple[int, ...]:
    return tuple(torch.empty(shape, device="meta", memory_format=memory_format).stride())


def _contiguous(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, fake: Any) -> tuple[int, ...]:
    return _strides(result.shape, torch.contiguous_format)


def _as_suggested(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, fake: Any) -> tuple[int, ...]:
    """Channels last where the first argument is, else contiguous."""
    return _strides(result.shape, suggest_memory_format(args[0]))


def _batch_normalised(
    args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, fake: Any
) -> tuple[int, ...]:
    """As ``suggest_memory_format_contig`` of Normalization.cpp: whatever strides dimensions of size 1 have."""
    x, lasts = args[0], {4: torch.channels_last, 5: torch.channels_last_3d}
    last = lasts.get(x.dim())
    if not x.is_contiguous() and last is not None and x.is_contiguous(memory_format=last):
        return _strides(result.shape, last)
    return _as_suggested(args, kwargs, result, fake)


def _rolled(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, fake: Any) -> tuple[int, ...]:
    """Along one dimension both parts are concatenated; along several, one dimension after the other."""
    x, shifts = args[:2]
    dims = args[2] if len(args) > 2 else kwargs.get("dims") or ()
    if not dims or not x.numel():
        return tuple(result.stride())
    rolled = torch.empty_strided(x.shape, x.stride(), device="meta")
    for shift, dim in zip(shifts, dims, strict=True):
        size = rolled.shape[dim]
        start = (size - shift) % size
        rolled = torch.cat([rolled.narrow(dim, start, size - start), rolled.narrow(dim, 0, start)], dim)
    return tuple(rolled.stride())


def _convolved(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, fake: Any) -> tuple[int, ...]:
    """What the CPU's kernel for these operands does; fake tensors know, those on meta ask them."""
    operands = [t for t in args[:3] if t is not None]
    if fake is not None or all(t.stride() == _strides(t.shape, torch.contiguous_format) for t in operands):
        return tuple(result.stride())
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        claimed = [
            None if t is None else torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cpu")
            for t in args[:3]
        ]
        return tuple(torch.ops.aten.convolution.default(*claimed, *args[3:]).stride())


@cache
def operations() -> dict[Any, Strides]:
    """Overload of aten -> the layout of its first result on the CPU."""
    aten = torch.ops.aten
    batch_norms = (
        aten.native_batch_norm, aten._native_batch_norm_legit, aten._native_batch_norm_legit_no_training,
    )  # fmt: skip
    suggested = (
        aten.native_group_norm, aten.pixel_shuffle, aten.reflection_pad2d, aten.replication_pad2d,
        aten.reflection_pad3d, aten.replication_pad3d,
    )  # fmt: skip
    return {
        **{op.default: _batch_normalised for op in batch_norms},
        **{op.default: _as_suggested for op in suggested},
        aten.log_sigmoid_forward.default: _contiguous,
        aten.im2col.default: _contiguous,
        aten.roll.default: _rolled,
        aten.convolution.default: _convolved,
    }


def relaid(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, fake: Any) -> Any:
    """``result`` of an operation on hollow tensors, laid out as on the CPU."""
    strides = operations().get(func)
    if strides is None:
        return result
    first = result if isinstance(result, torch.Tensor) else result[0]
    wanted = strides(args, kwargs, first, fake)
    if first.stride() == wanted:
        return result
    laid = torch.empty_strided(first.shape, wanted, dtype=first.dtype, device=first.device)
    return laid if first is result else (laid, *result[1:])


def composite(func: Any) -> Any:
    """In inference mode operations arrive that autograd would have taken apart (matmul, pad): the key that does it."""
    if func.namespace != "aten" or not torch.is_inference_mode_enabled():
        return None
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return key if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key) else None


class LaidOut(TorchDispatchMode):
    """Lays results out as on the CPU where nobody else listens to the operations."""

    def __init__(self, fake: Any) -> None:
        super().__init__()
        self._fake = fake

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (key := composite(func)) is not None:
            with self:
                return func._op_dk(key, *args, **kwargs)
        return relaid(func, args, kwargs, func(*args, **kwargs), self._fake)


def call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], fake: Any, heard: bool) -> Any:
    """Call a function of torch's on hollow tensors; ``heard``: whether its operations go through ``relaid`` anyway."""
    if fake is None and func in (torch.group_norm, torch.nn.functional.group_norm):
        func = _group_norm
    if heard:
        return func(*args, **kwargs)
    with LaidOut(fake):
        result = func(*args, **kwargs)
    # Out of sight of any mode, the CPU has a kernel of its own for it.
    alone = func in (torch.max_pool1d, torch.nn.functional.max_pool1d) and isinstance(result, torch.Tensor)
    return result.contiguous() if alone else result


def _group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn: bool = True
) -> Any:
    """On the CPU images laid out channels last stay so; other devices copy them first."""
    x = input.contiguous(memory_format=suggest_memory_format(input))
    count, channels = x.shape[:2]
    inner = prod(x.shape[2:])
    return torch.native_group_norm(x, weight, bias, count, channels, inner, num_groups, eps)[0]
