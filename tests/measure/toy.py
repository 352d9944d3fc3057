"""A model of three nodes, small enough to calibrate in a test."""

from __future__ import annotations

from typing import Any


def model() -> Any:
    """Token identities in, one linear layer over their embeddings out."""
    import torch

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(64, 32)
            self.dense = torch.nn.Linear(32, 32)

        def forward(self, input_ids: Any) -> Any:
            return self.dense(self.table(input_ids))

    return Toy()
