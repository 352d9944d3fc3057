"""What functions of torch answer for a tensor without values, where they hide values or devices from the dispatcher.

Models choose by device (``if x.device.type == "cpu"``). Every back end answers as the CPU does: a
tensor on meta says that it is on the CPU, and what is made for the CPU is made on meta.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

CPU, META = torch.device("cpu"), torch.device("meta")
#: answer(shadows, function, args, kwargs)
Answer = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]


@cache
def overrides(on_meta: bool) -> dict[Any, Answer]:
    """Function -> what is done instead of calling it; on fake tensors devices need no answer of ours."""
    tensor: Any = torch.Tensor
    table: dict[Any, Answer] = {
        tensor.tolist: _values, tensor.numpy: _values, tensor.__array__: _values, tensor.__format__: _format,
        tensor.__getitem__: _getitem, tensor.__setitem__: _setitem, torch.tensor: _literal,
        torch.nn.functional.one_hot: _one_hot,
    }  # fmt: skip
    if on_meta:
        from torch.utils._device import _device_constructors

        moving = (
            tensor.to, tensor.type, tensor.new_zeros, tensor.new_ones, tensor.new_full, tensor.new_empty,
            tensor.new_tensor, torch.zeros_like, torch.ones_like, torch.full_like, torch.empty_like, torch.rand_like,
            torch.randn_like,
        )  # fmt: skip
        table |= dict.fromkeys(moving, _moved) | {
            f: _made for f in _device_constructors() if f is not torch.tensor
        }
        table |= {
            tensor.device.__get__: lambda *_: CPU,
            tensor.is_cpu.__get__: lambda *_: True,
            tensor.cpu: lambda shadows, func, args, kwargs: args[0],
            tensor.type_as: lambda shadows, func, args, kwargs: args[0].to(args[1].dtype),
        }
    return table


def _values(shadows: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    values = shadows.get(args[0])
    with shadows.real():
        return func(args[0] if values is None else values, *args[1:], **kwargs)


def _format(shadows: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """In a message, as ordinary tensors do it: by reading the value."""
    if args[0].dim() or shadows.get(args[0]) is None:
        return func(*args, **kwargs)
    return format(args[0].item(), *args[1:])


def _getitem(shadows: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(args[0], _listless(args[1]))


def _listless(index: Any) -> Any:
    """Lists of positions become index tensors out of sight of any mode; here they become known ones."""
    if isinstance(index, tuple):
        return tuple(_listless(part) for part in index)
    if isinstance(index, list) and index and all(type(part) is int for part in index):
        return torch.tensor(index, device=CPU)
    return index


def _setitem(shadows: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Off the CPU torch would make a tensor of a number with an operation of its own, and copy it."""
    if isinstance(args[2], (int, float)):
        number = (args[2],), {"dtype": args[0].dtype}
        value = (
            torch.tensor(*number[0], **number[1], device=CPU)
            if shadows.fake is None
            else shadows.literal(*number)
        )
        args = (*args[:2], value)
    return func(*args)


def _one_hot(shadows: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """By comparing where there are no values; the CPU looks at the smallest and the largest, and scatters."""
    index, classes = (*args, kwargs.get("num_classes", -1))[:2]
    if not shadows.hollow(index) or not index.numel():
        return func(*args, **kwargs)
    ends = [end.item() for end in torch.aminmax(index) if shadows.get(end) is not None]
    if classes < 0:
        classes = int(ends[-1] if ends else index.max().item()) + 1
    result = torch.zeros(
        (*index.shape, classes), dtype=index.dtype, device=META if shadows.fake is None else CPU
    )
    return result.scatter_(-1, index.unsqueeze(-1), 1)


def _literal(shadows: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = shadows.literal(args, kwargs)
    return _made(shadows, func, args, kwargs) if found is None else found


def _made(shadows: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Factories: on meta where they name the CPU, or leave the device open."""
    device = kwargs.get("device")
    if shadows.fake is None and (device is None or _is_cpu(device)):
        kwargs = {**kwargs, "device": META}
    return func(*args, **kwargs)


def _moved(shadows: Any, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Moves to the CPU, which every tensor claims to be on."""
    if any(map(_is_cpu, args)):
        args = tuple(META if _is_cpu(a) else a for a in args)
    if "device" in kwargs and _is_cpu(kwargs["device"]):
        kwargs = {**kwargs, "device": META}
    return func(*args, **kwargs)


def _is_cpu(value: Any) -> bool:
    kind = type(value)
    return (kind is torch.device and value.type == "cpu") or (kind is str and value == "cpu")
