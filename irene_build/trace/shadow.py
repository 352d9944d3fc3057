"""Values of small tensors on the meta device, so that control flow on positions, masks and sizes can be followed.

A meta tensor has a shape and no values; models ask for a few all the same (``if mask.all()``,
``grid.tolist()``). Such values hang on token ids, positions and sizes, never on weights. So small
tensors whose inputs are known are computed a second time on the CPU: their shadow. Views of a
shadow are views of it, and writing into one writes into all, as torch does it.
"""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, ExitStack
from math import prod
from typing import Any

#: Larger tensors are not followed; floating point ones (position grids, scales) only up to the second.
MAX_INTEGERS = 2**20
MAX_FLOATS = 2**16
_INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_")
#: Factories whose result has no known values.
_RANDOM = ("rand", "randn", "randint", "randperm", "normal", "empty", "empty_strided")


class Shadows:
    """Meta tensors -> CPU tensors of the same values."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def put(self, tensor: Any, values: Any) -> None:
        key = id(tensor)
        self._of[key] = (weakref.ref(tensor, lambda _: self._of.pop(key, None)), values)

    def get(self, tensor: Any) -> Any:
        """The CPU tensor that holds the values of ``tensor``, None if they are not known."""
        if not tensor.is_meta:
            return tensor
        found = self._of.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def following(self) -> AbstractContextManager[Any]:
        """A context that keeps the values of what is computed in it, and records nothing."""
        from torch.overrides import TorchFunctionMode
        from torch.utils._python_dispatch import TorchDispatchMode

        shadows = self

        class Operations(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return shadows.run(func, args, kwargs or {})

        class Functions(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return shadows.call(func, args, kwargs or {})

        stack = ExitStack()
        stack.enter_context(Operations())
        stack.enter_context(Functions())
        return stack

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of torch's; those that hide values from the dispatcher are answered from the shadows."""
        import torch

        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__):
            values = self.get(args[0])
            return func(args[0] if values is None else values, *args[1:], **kwargs)
        if func is torch.Tensor.__getitem__:
            return func(args[0], _listless(args[1]))
        result = func(*args, **kwargs)
        if func is torch.tensor and result.is_meta and self.get(result) is None and not _has_tensor(args[0]):
            self.put(result, func(*args, **{**kwargs, "device": "cpu"}))
        return result

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``func`` on meta tensors, and on their shadows where all are known and small."""
        tensors = _tensors(args)
        device = kwargs.get("device") if kwargs else None
        if kwargs:
            tensors += _tensors(tuple(kwargs.values()))
        to_meta = device is not None and device.type == "meta"
        if not to_meta and not any(t.is_meta for t in tensors):
            return func(*args, **kwargs)
        known = all(self.get(t) is not None for t in tensors)
        if not tensors:
            known = func._schema.name[6:] not in _RANDOM and _size(args) <= MAX_INTEGERS
        if not known:
            if func._schema.is_mutable:
                self._forget(tensors)
            if device is not None and not to_meta:
                kwargs = {**kwargs, "device": _meta_device()}
            if func._schema.name[6:] in _INDEXING and isinstance(args[1], (list, tuple)):
                args = (args[0], self._positions(args[1]), *args[2:])
            return func(*args, **kwargs)
        values = func(*_swap(args, self), **_swap(_on_cpu(kwargs), self))
        if (device is not None and not to_meta) or not _has_tensor(values):
            return values
        try:
            result = func(*args, **kwargs)
        except (RuntimeError, NotImplementedError):
            # Its shape hangs on values (nonzero, unique): the shadow's is the one.
            result = _like(values)
        self._pair(result, values)
        return result

    def _positions(self, indices: Any) -> list[Any]:
        """Boolean masks whose values are known, as the positions that they pick."""
        found: list[Any] = []
        for index in indices:
            values = self.get(index) if index is not None and str(index.dtype) == "torch.bool" else None
            if values is None:
                found.append(index)
            else:
                found.extend(values.nonzero(as_tuple=True))
        return found

    def _pair(self, result: Any, values: Any) -> None:
        if isinstance(result, (list, tuple)):
            for one, value in zip(result, values, strict=True):
                self._pair(one, value)
        elif hasattr(result, "untyped_storage") and result.is_meta and result.shape == values.shape:
            limit = MAX_FLOATS if values.is_floating_point() or values.is_complex() else MAX_INTEGERS
            if values.numel() <= limit and self.get(result) is None:
                self.put(result, values)

    def _forget(self, tensors: list[Any]) -> None:
        """Something unknown was written into the first tensor: it and its views are unknown from now on."""
        lost = self.get(tensors[0]) if tensors else None
        if lost is None:
            return
        storage = lost.untyped_storage()._cdata
        for key in [k for k, (_, v) in self._of.items() if v.untyped_storage()._cdata == storage]:
            del self._of[key]


def _listless(index: Any) -> Any:
    """Lists of positions become index tensors out of sight of any mode; here they become known ones."""
    import torch

    if isinstance(index, tuple):
        return tuple(_listless(part) for part in index)
    if isinstance(index, list) and index and all(type(part) is int for part in index):
        return torch.tensor(index, device="cpu")
    return index


def _meta_device() -> Any:
    import torch

    return torch.device("meta")


def _tensors(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if hasattr(value, "untyped_storage"):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _size(args: tuple[Any, ...]) -> float:
    """Elements of what a factory makes, from its size argument or its end (1 for a single value)."""
    first = args[0] if args else 0
    if isinstance(first, (list, tuple)):
        return float(prod(int(n) for n in first))
    whole = [abs(a) for a in args if isinstance(a, int)]
    return float(max(whole, default=1))


def _swap(values: Any, shadows: Shadows) -> Any:
    if hasattr(values, "untyped_storage"):
        return shadows.get(values)
    if isinstance(values, dict):
        return {key: _swap(value, shadows) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(_swap(value, shadows) for value in values)
    return values


def _on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: "cpu" if key == "device" and value is not None else value for key, value in kwargs.items()}


def _has_tensor(values: Any) -> bool:
    if isinstance(values, (list, tuple)):
        return any(_has_tensor(value) for value in values)
    return hasattr(values, "untyped_storage")


def _like(values: Any) -> Any:
    if isinstance(values, (list, tuple)):
        return type(values)(_like(value) for value in values)
    if hasattr(values, "untyped_storage"):
        return values.to("meta")
    return values
