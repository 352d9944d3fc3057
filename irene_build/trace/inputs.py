"""Example inputs of a model: what its ``forward`` is called with, at a batch size and a sequence length."""

from __future__ import annotations

from typing import Any


def example_inputs(model: Any, batch_size: int, seq_len: int, device: str) -> dict[str, Any]:
    """Token ids of shape [batch_size, seq_len], on ``device``."""
    import torch

    return {"input_ids": torch.ones((batch_size, seq_len), dtype=torch.long, device=device)}
