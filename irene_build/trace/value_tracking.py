"""Values of small tensors that hold none, so that control flow on positions, masks and sizes can be followed.

A meta or fake tensor has a shape and no values (it is hollow); models ask for a few all the same
(``if mask.all()``, ``grid.tolist()``). Such values hang on token ids, positions and sizes, never on
weights. So small tensors whose inputs are known are computed a second time on the CPU: their shadow.
Views of a shadow are views of it, and writing into one writes into all, as torch does it.
"""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, ExitStack, nullcontext
from math import prod
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

from .cpu_strides import relaid
from .tensors import is_batched, tensors_of
from .torch_overrides import CPU, META, overrides

#: Tensors with more distinct elements are not followed, nor expanded ones that address more than the second.
MAX_ELEMENTS, MAX_EXPANDED = 2**20, 2**25
_INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_")
#: Factories whose result has no known values.
_RANDOM = ("rand", "randn", "randint", "randperm", "normal", "empty", "empty_strided")
#: Operations whose result has known values whatever their first argument holds.
_CONSTANT = ("new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")


class Shadows:
    """Hollow tensors -> CPU tensors of the same values. Hollow are those of ``fake`` (a mode), else those on meta."""

    def __init__(self, fake: Any = None) -> None:
        self.fake = fake
        self._answers = overrides(fake is None)
        self._twins: dict[int, tuple[weakref.ref[Any], Any]] = {}
        self._of: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def hollow(self, tensor: Any) -> bool:
        """Whether ``tensor`` has no values of its own."""
        return bool(tensor.is_meta) if self.fake is None else hasattr(tensor, "fake_mode")

    def real(self) -> AbstractContextManager[Any]:
        """A context in which tensors are made with values, out of sight of the fake mode."""
        return nullcontext() if self.fake is None else _disable_current_modes()

    def emptied(self, tensor: Any) -> Any:
        """A hollow tensor like the real ``tensor``."""
        device = META if self.fake is None else CPU
        with self.fake or nullcontext():
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

    def put(self, tensor: Any, values: Any) -> None:
        key = id(tensor)
        self._of[key] = (weakref.ref(tensor, lambda _: self._of.pop(key, None)), values)

    def put_small(self, values: Any, tensor: Any) -> None:
        """What took the place of a tensor with values has them, unless they are many."""
        if (
            values.numel() <= MAX_ELEMENTS
            and not values.is_meta
            and not isinstance(values, torch.nn.Parameter)
        ):
            self.put(tensor, values)

    def get(self, tensor: Any) -> Any:
        """The CPU tensor that holds the values of ``tensor``, None if they are not known."""
        if not self.hollow(tensor):
            return tensor
        found = self._of.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def following(self) -> AbstractContextManager[Any]:
        """A context that keeps the values of what is computed in it, and records nothing."""
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
        answer = self._answers.get(func)
        return func(*args, **kwargs) if answer is None else answer(self, func, args, kwargs)

    def literal(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What ``torch.tensor`` makes of numbers and of tensors whose values are known; None where they are not."""
        if any(self.get(t) is None for t in tensors_of(args[:1])):
            return None
        with self.real():
            values = torch.tensor(*_swap(args, self), **{**kwargs, "device": CPU})
        result = self.emptied(values)
        self.put(result, values)
        return result

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``func`` on hollow tensors, and on their shadows where all are known and small."""
        if func is torch.ops.prim.device.default:
            return CPU
        if func is torch.ops.aten._grouped_mm.default and args[1].dim() == 3:
            # The kernel of hollow tensors wants bfloat16; real ones have more.
            return args[0].new_empty((*args[0].shape[:-1], args[1].shape[-1]))
        tensors = tensors_of(args)
        if kwargs:
            tensors_of(kwargs, tensors)
        device = kwargs.get("device") if kwargs else None
        hollow = sum(map(self.hollow, tensors))
        if self.fake is None:
            if not hollow and (device is None or device.type == "cpu"):
                return func(*args, **kwargs)
            if device is not None:
                kwargs = {**kwargs, "device": META}
            if hollow < len(tensors) and not func._schema.is_mutable:
                args = self.all_hollow(args)
        known = all(self.get(t) is not None for t in tensors)
        if not tensors:
            known = func._schema.name[6:] not in _RANDOM and _size(args) <= MAX_ELEMENTS
        if not known and func._schema.name[6:] in _CONSTANT and tensors[0].numel() <= MAX_ELEMENTS:
            return self._constant(func, args, kwargs)
        if not known:
            if func._schema.is_mutable:
                self._forget(tensors)
            if func._schema.name[6:] in _INDEXING and isinstance(args[1], (list, tuple)):
                args = (args[0], self._positions(args[1]), *args[2:])
            return relaid(func, args, kwargs, func(*args, **kwargs), self.fake)
        try:
            with self.real():
                values = func(*_swap(args, self), **_swap(_on_cpu(kwargs), self))
        except RuntimeError:
            # A shadow may be laid out in another way than its tensor, and refuse a view: unknown from here on.
            return relaid(func, args, kwargs, func(*args, **kwargs), self.fake)
        if not tensors_of(values):
            return values
        try:
            result = relaid(func, args, kwargs, func(*args, **kwargs), self.fake)
        except (RuntimeError, NotImplementedError):
            # Its shape hangs on values (nonzero, unique): the shadow's is the one.
            result = tree_map_only(torch.Tensor, self.emptied, values)
        self._pair(result, values)
        return result

    def _constant(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with self.real():
            like = torch.zeros((), dtype=args[0].dtype).expand(args[0].shape)
            values = func(like, *args[1:], **_on_cpu(kwargs))
        result = func(*args, **kwargs)
        self._pair(result, values)
        return result

    def follow(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Gives ``result`` values where ``function``, run out of sight of the dispatcher, has known operands only."""
        tensors = tensors_of([args, kwargs])
        if tensors and all(self.get(t) is not None and _is_small(t) for t in tensors):
            with self.real():
                self._pair(result, function(*_swap(args, self), **_swap(kwargs, self)))

    def all_hollow(self, values: Any) -> Any:
        """Tensors that have values (made before the pass, or from NumPy arrays) as hollow ones, so that they mix."""
        if all(map(self.hollow, tensors_of(values))):
            return values
        return tree_map_only(torch.Tensor, self._hollowed, values)

    def _hollowed(self, tensor: Any) -> Any:
        """The hollow twin of a tensor with values: always the same one, a parameter for a parameter."""
        if self.hollow(tensor) or is_batched(tensor):
            return tensor
        found = self._twins.get(id(tensor))
        if found is None or found[0]() is not tensor:
            twin = self.emptied(tensor)
            if isinstance(tensor, torch.nn.Parameter):
                twin = torch.nn.Parameter(twin, tensor.requires_grad)
            if tensor.numel() <= MAX_ELEMENTS:
                self.put(twin, tensor.detach())
            found = self._twins[id(tensor)] = (weakref.ref(tensor), twin)
        return found[1]

    def _positions(self, indices: Any) -> list[Any]:
        """Boolean masks whose values are known, as the positions that they pick."""
        found: list[Any] = []
        for index in indices:
            values = self.get(index) if index is not None and str(index.dtype) == "torch.bool" else None
            if values is None:
                found.append(index)
            else:
                with self.real():
                    found.extend(values.nonzero(as_tuple=True))
        return found

    def _pair(self, result: Any, values: Any) -> None:
        if isinstance(result, (list, tuple)):
            for one, value in zip(result, values, strict=True):
                self._pair(one, value)
        elif (
            hasattr(result, "untyped_storage")
            and self.hollow(result)
            and result.shape == values.shape
            and _is_small(values)
            and self.get(result) is None
        ):
            self.put(result, values)

    def _forget(self, tensors: list[Any]) -> None:
        """Something unknown was written into the first tensor: it and its views are unknown from now on."""
        lost = self.get(tensors[0]) if tensors else None
        if lost is None:
            return
        storage = lost.untyped_storage()._cdata
        for key in [k for k, (_, v) in self._of.items() if v.untyped_storage()._cdata == storage]:
            del self._of[key]


def shadows_for(module: Any) -> Shadows | None:
    """Shadows of a module without values (on meta, or fake); None where it has them."""
    parameter = next(module.parameters(), None)
    fake = getattr(parameter, "fake_mode", None)
    return Shadows(fake) if parameter is None or parameter.is_meta or fake is not None else None


def _is_small(values: Any) -> bool:
    distinct = prod(n for n, s in zip(values.shape, values.stride(), strict=True) if s)
    return distinct <= MAX_ELEMENTS and values.numel() <= MAX_EXPANDED


def _size(args: tuple[Any, ...]) -> float:
    """Elements of what a factory makes, from its size argument or its end (1 for a single value)."""
    first = args[0] if args else 0
    if isinstance(first, (list, tuple)):
        return float(prod(int(n) for n in first))
    whole = [abs(a) for a in args if isinstance(a, int)]
    return float(max(whole, default=1))


def _swap(values: Any, shadows: Shadows) -> Any:
    return tree_map_only(torch.Tensor, shadows.get, values)


def _on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: "cpu" if key == "device" and value is not None else value for key, value in kwargs.items()}
