"""Inputs of models over other sequences: time series, trajectories, bytes, hidden states."""

from __future__ import annotations

from typing import Any

from ..config import first_of, token_ids, torch_zeros
from .kind import Inputs


def _decision(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    return {
        "states": torch_zeros(batch_size, seq_len, config.state_dim),
        "actions": torch_zeros(batch_size, seq_len, config.act_dim),
        "rewards": torch_zeros(batch_size, seq_len, 1),
        "returns_to_go": torch_zeros(batch_size, seq_len, 1),
        "timesteps": torch.zeros((batch_size, seq_len), dtype=torch.long),
        "attention_mask": torch.ones((batch_size, seq_len), dtype=torch.long),
    }


def _series(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Past values of a time series, and of models that predict, the known future."""
    import inspect

    names = inspect.signature(module.forward).parameters
    wanted = int(first_of(config, "context_length", default=32))
    lags = max(first_of(config, "lags_sequence", default=None) or [0])
    width = int(first_of(config, "num_input_channels", "input_size", default=1))
    past = (
        (batch_size, wanted + lags)
        if width == 1 and "past_time_features" in names
        else (batch_size, wanted + lags, width)
    )
    given = {"past_values": torch_zeros(*past)}
    future = int(first_of(config, "prediction_length", default=1))
    extra = int(first_of(config, "num_time_features", default=0))
    if "past_time_features" in names:
        given["past_time_features"] = torch_zeros(batch_size, wanted + lags, extra)
        given["past_observed_mask"] = torch_zeros(*past) + 1
        given["future_values"] = torch_zeros(batch_size, future)
        given["future_time_features"] = torch_zeros(batch_size, future, extra)
    return given


def _timesfm(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    values = torch_zeros(batch_size, config.context_length)
    if config.model_type == "timesfm2_5":
        return {"past_values": values}
    return {
        "past_values": values, "past_values_padding": values, "freq": torch.zeros((batch_size, 1), dtype=torch.long),
    }  # fmt: skip


def _perceiver(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    return {"inputs": torch_zeros(batch_size, seq_len, config.d_model)}


def _blt(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Bytes in patches of even length: the entropies that cut them in use hang on weights."""
    import torch

    size = next(n for n in (4, 2, 1) if seq_len % n == 0)
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "patch_lengths": torch.full((batch_size, seq_len // size), size),
    }


def _muse_assistant(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Hidden states of several layers of the model that it drafts for, side by side."""
    wide = int(config.hidden_size)
    return {
        "noise_embeds": torch_zeros(batch_size, int(config.block_size), wide),
        "context_hidden_states": torch_zeros(batch_size, seq_len, wide * len(config.target_layer_ids)),
    }


#: model type -> inputs(module, config, batch_size, seq_len).
FAMILIES: dict[str, Inputs] = {
    "decision_transformer": _decision,
    "time_series_transformer": _series,
    "autoformer": _series,
    "informer": _series,
    "patchtst": _series,
    "patchtsmixer": _series,
    "perceiver": _perceiver,
    "timesfm": _timesfm,
    "timesfm2_5": _timesfm,
    "blt": _blt,
    "muse_glimmer_assistant": _muse_assistant,
}
