"""Example inputs of a model: what its ``forward`` is called with, at a batch size and a sequence length."""

from __future__ import annotations

from typing import Any


def example_inputs(model: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Token ids of shape [batch_size, seq_len], on the CPU."""
    import torch

    inputs: dict[str, Any] = {"input_ids": torch.ones((batch_size, seq_len), dtype=torch.long)}
    if accepts(model, "use_cache"):
        inputs["use_cache"] = False
    return inputs


def accepts(model: Any, name: str) -> bool:
    """Whether ``forward`` names this parameter."""
    import inspect

    return name in inspect.signature(model.forward).parameters


def on_device(inputs: Any, device: str, shadows: Any) -> Any:
    """Inputs moved to ``device``; on meta, the values of the small ones stay known to ``shadows``."""
    if isinstance(inputs, dict):
        return {name: on_device(value, device, shadows) for name, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(on_device(value, device, shadows) for value in inputs)
    if not hasattr(inputs, "untyped_storage"):
        return inputs
    moved = inputs.to(device)
    if shadows is not None and inputs.numel() <= 2**20 and not inputs.is_floating_point():
        shadows.put(moved, inputs)
    return moved
