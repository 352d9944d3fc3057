"""Inputs of families that the general rules do not reach: one function each, registered at the end."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .families import channels, deep, first_of, pair, pixels, token_ids, torch_zeros, with_placeholders


def _musicgen(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    books = int(deep(config, "num_codebooks") or 4)
    if not hasattr(module, "text_encoder"):
        return {"input_ids": torch.full((batch_size * books, seq_len), 5)}
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "decoder_input_ids": torch.full((batch_size * books, seq_len), 5),
    }


def _clap(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    given = {
        "input_features": torch_zeros(batch_size, 1, 1001, 64),
        "is_longer": torch.zeros((batch_size, 1), dtype=torch.bool),
    }
    if hasattr(module, "text_model"):
        given["input_ids"] = token_ids(config, batch_size, seq_len)
    return given


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


def _lxmert(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "visual_feats": torch_zeros(batch_size, 36, config.visual_feat_dim),
        "visual_pos": torch_zeros(batch_size, 36, config.visual_pos_dim),
    }


def _kosmos(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    count = int(config.latent_query_num)
    mask = torch.zeros((batch_size, count + seq_len), dtype=torch.long)
    mask[:, :count] = 1
    return {
        "pixel_values": pixels(config, batch_size),
        "input_ids": token_ids(config, batch_size, count + seq_len),
        "image_embeds_position_mask": mask,
    }


def _codebooks(attribute: str, extra: int) -> Callable[[Any, Any, int, int], dict[str, Any]]:
    """Token ids of several streams: [batch, tokens, streams]."""

    def inputs(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
        import torch

        return {"input_ids": torch.full((batch_size, seq_len, int(getattr(config, attribute)) + extra), 5)}

    return inputs


def _dia(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    streams = int(deep(config, "num_channels") or 9)
    return {
        "input_ids": token_ids(None, batch_size, seq_len),
        "decoder_input_ids": torch.full((batch_size, seq_len, streams), 5),
    }


def _oneformer(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    length = int(first_of(config, "task_seq_len", default=77))
    return {"pixel_values": pixels(config, batch_size), "task_inputs": torch.full((batch_size, length), 5)}


def _blip2(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Older checkpoints have no placeholder token in their configuration; any id that is free will do."""
    import torch

    if config.image_token_index is None:
        config.image_token_index = 7
    given: dict[str, Any] = {"pixel_values": pixels(config, batch_size)}
    count = int(config.num_query_tokens)
    holders = torch.full((batch_size, count), int(config.image_token_index))
    given["input_ids"] = torch.cat([holders, token_ids(config, batch_size, seq_len)], 1)
    if getattr(config.text_config, "is_encoder_decoder", False):
        given["decoder_input_ids"] = token_ids(config, batch_size, seq_len)
    return given


def _idefics(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "pixel_values": pixels(config, batch_size, 1),
        "image_attention_mask": torch.ones((batch_size, seq_len, 1), dtype=torch.long),
    }


def _perceiver(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    return {"inputs": torch_zeros(batch_size, seq_len, config.d_model)}


def _pi0(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    given = with_placeholders(
        module, config, batch_size, seq_len, "image", {"pixel_values": pixels(config, batch_size, 1)}
    )
    given["pixel_attention_mask"] = torch.ones((batch_size, 1), dtype=torch.bool)
    given["action_embeds"] = torch_zeros(batch_size, 8, int(deep(config.dit_config, "hidden_size") or 1024))
    return given


def _gemma4_vision(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    side = 12
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1)[None].repeat(batch_size, 1, 1)
    return {
        "pixel_values": torch_zeros(
            batch_size, side * side, channels(config) * prod(pair(config.patch_size))
        ),
        "pixel_position_ids": places,
    }


#: model type -> inputs(module, config, batch_size, seq_len), tried before the general rules.
FAMILIES: dict[str, Callable[[Any, Any, int, int], dict[str, Any]]] = {
    "musicgen": _musicgen,
    "musicgen_melody": _musicgen,
    "musicgen_decoder": _musicgen,
    "musicgen_melody_decoder": _musicgen,
    "clap": _clap,
    "clap_audio_model": _clap,
    "decision_transformer": _decision,
    "time_series_transformer": _series,
    "autoformer": _series,
    "informer": _series,
    "patchtst": _series,
    "patchtsmixer": _series,
    "lxmert": _lxmert,
    "kosmos-2": _kosmos,
    "kyutai_speech_to_text": _codebooks("num_codebooks", 1),
    "dia": _dia,
    "oneformer": _oneformer,
    "idefics": _idefics,
    "blip-2": _blip2,
    "perceiver": _perceiver,
    "pi0": _pi0,
    "gemma4_vision": _gemma4_vision,
    "instructblip": _blip2,
}
