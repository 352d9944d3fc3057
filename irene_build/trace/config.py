"""What configurations of transformers models say, by whatever name: settings of their parts, positions, token ids."""

from __future__ import annotations

from typing import Any


def first_of(config: Any, *names: str, default: Any = None) -> Any:
    """The first of these attributes that is there and not None."""
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return value
    return default


def deep(config: Any, *names: str) -> Any:
    """The first of these attributes in the configuration or any part of it, breadth first."""
    level = [config]
    for _ in range(4):
        for part in level:
            value = first_of(part, *names)
            if value is not None:
                return value
        level = [
            v for part in level for k, v in vars(part).items() if hasattr(v, "to_dict") and k != "text_config"
        ]
    return None


def positions_of(config: Any) -> int | None:
    """How many tokens of text the model has positions for; None where that has no limit."""
    names = ("max_position_embeddings", "max_text_len", "max_target_positions")
    found = deep(first_of(config, "text_config", default=config), *names)
    return found if isinstance(found, int) and found > 0 else None


def token_ids(config: Any, batch_size: int, seq_len: int) -> Any:
    """Token ids [batch_size, seq_len], none of them special."""
    import torch

    special = set()
    if config is not None:
        for part in (config, first_of(config, "text_config", "decoder", default=config)):
            values = vars(part) if hasattr(part, "__dict__") else {}
            special |= {
                v for k, v in values.items() if k.endswith(("token_id", "token_index")) and isinstance(v, int)
            }
        seq_len = min(seq_len, positions_of(config) or seq_len)
    value = next(v for v in range(5, 10_000) if v not in special)
    return torch.full((batch_size, seq_len), value)


def torch_zeros(*shape: int) -> Any:
    import torch

    return torch.zeros(shape)
