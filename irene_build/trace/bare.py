"""A copy of a module without its weights: structure alone, also of what is not registered, offloaded or compiled."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator
from typing import Any

from irene_build.errors import ModelError


def without_weights(module: Any, emptied: Callable[[Any, Any], None] = lambda real, empty: None) -> Any:
    """A copy on the meta device that shares nothing with ``module`` (itself, if it is there already and plain).

    Weights are never copied: each parameter, buffer and tensor that hangs on a module is replaced while the structure
    is copied; ``emptied`` is told of both. Compiled parts are their eager modules in the copy, and hooks that load
    offloaded weights are not in it.
    """
    import torch

    tensors = [*module.parameters(), *module.buffers()]
    hooked = [part for part in module.modules() if hasattr(part, "_hf_hook")]
    compiled = any(hasattr(part, "_orig_mod") for part in module.modules())
    if all(t.is_meta for t in tensors) and not hooked and not compiled:
        return module
    memo: dict[int, Any] = {id(part._hf_hook): None for part in hooked}
    for tensor in (*tensors, *_hanging(module)):
        if id(tensor) in memo:
            continue
        if is_lazy(tensor):
            memo[id(tensor)] = type(tensor)(requires_grad=False, device="meta", dtype=tensor.dtype)
            continue
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if _is_parameter(tensor) else empty
        emptied(tensor, memo[id(tensor)])
    try:
        copied = copy.deepcopy(module, memo)
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} cannot be copied without its weights ({type(error).__name__}: {error}); "
            "build it under torch.device('meta') and pass that"
        ) from error
    return _eager(_without_hooks(copied))


def _hanging(module: Any) -> Iterator[Any]:
    """Tensors that are no parameters or buffers: attributes of modules, also in lists, tables and objects."""
    import torch

    seen: set[int] = set()
    open_values: list[Any] = [value for part in module.modules() for value in _attributes(part)]
    while open_values:
        value = open_values.pop()
        if id(value) in seen or isinstance(value, _ATOMS):
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict):
            open_values += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            open_values += value
        elif isinstance(value, torch.nn.Module):
            yield from (*value.parameters(), *value.buffers())
            open_values += [v for part in value.modules() for v in _attributes(part)]
        elif hasattr(value, "__dict__"):
            open_values += vars(value).values()


#: What a copy shares, or what holds no tensors.
_ATOMS = (
    type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, types.FunctionType,
    types.BuiltinFunctionType, types.MethodType,
)  # fmt: skip
_REGISTERED = ("_parameters", "_buffers", "_modules", "_hf_hook")


def _attributes(part: Any) -> list[Any]:
    return [value for name, value in vars(part).items() if name not in _REGISTERED]


def _without_hooks(module: Any) -> Any:
    """Modules call their own forward again, not that of accelerate's hooks, which load and unload weights around it."""
    for part in module.modules():
        if not hasattr(part, "_hf_hook"):
            continue
        own = part.__dict__.pop("_old_forward", None)
        part.__dict__.pop("forward", None)
        del part._hf_hook
        if own is not None and getattr(own, "__func__", None) is not type(part).forward:
            part.forward = own
    return module


def _eager(module: Any) -> Any:
    """The eager modules of compiled parts in their places."""
    for part in list(module.modules()):
        for name, child in part._modules.items():
            if (eager := getattr(child, "_orig_mod", None)) is not None:
                part._modules[name] = eager
    return module


def is_lazy(tensor: Any) -> bool:
    """Whether a parameter or buffer learns its shape in the first pass."""
    return type(tensor).__name__ in ("UninitializedParameter", "UninitializedBuffer")


def _is_parameter(tensor: Any) -> bool:
    import torch

    return isinstance(tensor, torch.nn.Parameter)


def as_if_on_cpu(module: Any, replaced: Callable[[Any, Any], None] = lambda before, after: None) -> Any:
    """``module`` from the meta device with empty tensors on the CPU; inside FakeTensorMode they are fake ones.

    ``replaced`` is told of each tensor and what took its place.
    """
    import torch

    made: dict[int, Any] = {}
    for part in module.modules():
        for holder in (part._parameters, part._buffers):
            for name, tensor in holder.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty_like(tensor, device="cpu")
                    made[id(tensor)] = (
                        torch.nn.Parameter(empty, tensor.requires_grad) if _is_parameter(tensor) else empty
                    )
                    replaced(tensor, made[id(tensor)])
                holder[name] = made[id(tensor)]
    return module
