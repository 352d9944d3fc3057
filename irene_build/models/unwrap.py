"""Gets at the plain module inside what users hold: compiled, wrapped for several devices, scripted, exported."""

from __future__ import annotations

from typing import Any

from irene_build.errors import ModelError


def plain_module(model: Any, name: str = "") -> Any:
    """The eager module of ``torch.compile`` and of data-parallel wrappers. Raises ModelError for what has none.

    ``name``: what to call it in messages, its type if empty.
    """
    import torch

    called = name or type(model).__name__
    if not isinstance(model, torch.nn.Module):
        instead = "; pass the nn.Module that it was exported from" if hasattr(model, "graph_module") else ""
        raise ModelError(
            f"{called} is {type(model).__name__}, expected a torch.nn.Module or the name of a model{instead}"
        )
    while (inner := _inner(model)) is not None:
        model = inner
    scripted = next(
        (n or "(root)" for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)), None
    )
    if scripted is not None:
        raise ModelError(
            f"{called}: {scripted} is TorchScript, whose calls cannot be watched; "
            "pass the nn.Module that it was scripted or traced from"
        )
    if isinstance(model, torch.fx.GraphModule) and not any(
        target.op == "call_module" for target in model.graph.nodes
    ):
        raise ModelError(
            f"{called} is an exported graph without modules; pass the nn.Module it was made from"
        )
    return model


def _inner(model: Any) -> Any:
    """The module that a wrapper runs, None where ``model`` wraps none."""
    import torch

    compiled = getattr(model, "_orig_mod", None)
    if compiled is not None:
        return compiled
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    wraps = isinstance(model, parallel) or type(model).__name__ == "FullyShardedDataParallel"
    return model.module if wraps else None


def in_evaluation(module: Any) -> Any:
    """``module`` in evaluation mode; an exported one stays in the mode that it was exported in."""
    try:
        return module.eval()
    except NotImplementedError:
        return module
