"""Gets at the plain module inside what users hold: compiled, scripted, wrapped, or full of weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from irene_build.errors import ModelError


def plain_module(model: Any) -> Any:
    """The eager module of ``torch.compile`` and of data-parallel wrappers. Raises ModelError for what has none."""
    import torch

    if not isinstance(model, torch.nn.Module):
        instead = "; pass the nn.Module that it was exported from" if hasattr(model, "graph_module") else ""
        raise ModelError(f"{type(model).__name__} is no torch.nn.Module and no name of a model{instead}")
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
        ):
            inner = model.module
        if inner is None:
            break
        model = inner
    scripted = next(
        (n or "(root)" for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)), None
    )
    if scripted is not None:
        raise ModelError(
            f"{type(model).__name__}: {scripted} is TorchScript, whose calls cannot be watched; "
            "pass the nn.Module that it was scripted or traced from"
        )
    if isinstance(model, torch.fx.GraphModule) and not any(True for _ in model.named_children()):
        raise ModelError(
            f"{type(model).__name__} is an exported graph without modules; pass the nn.Module it was made from"
        )
    return model


def without_weights(module: Any) -> Any:
    """A copy on the meta device that shares nothing with ``module`` (itself, if it is there already).

    Weights are never copied: each parameter and buffer is replaced while the structure is copied.
    """
    import torch

    tensors = [*module.parameters(), *module.buffers()]
    if all(t.is_meta for t in tensors):
        return module
    memo: dict[int, Any] = {}
    for tensor in tensors:
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if _is_parameter(tensor) else empty
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} cannot be copied without its weights ({type(error).__name__}: {error}); "
            "build it under torch.device('meta') and pass that"
        ) from error


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
