"""Inputs of families that the general rules do not reach: one function each, registered at the end."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .families import (
    channels,
    deep,
    first_of,
    image_size,
    pair,
    pixels,
    token_ids,
    torch_zeros,
    with_placeholders,
)  # fmt: skip

Inputs = Callable[[Any, Any, int, int], dict[str, Any]]


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


def _codebooks(attribute: str, extra: int) -> Inputs:
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


def _qformer(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    return {
        "query_embeds": torch_zeros(1, 32, config.hidden_size),
        "encoder_hidden_states": torch_zeros(1, seq_len, config.encoder_hidden_size),
    }


def _features(wide: Callable[[Any], int], frames: int = 200, name: str = "input_features") -> Inputs:
    """Acoustic features [batch, frames, wide(config)], and a mask where forward demands one."""

    def inputs(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
        return {name: torch_zeros(batch_size, frames, wide(config))}

    return inputs


def _gemma3n_audio(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """The mask is true where a frame is padding."""
    import torch

    return {
        "audio_mel": torch_zeros(batch_size, 200, config.input_feat_size),
        "audio_mel_mask": torch.zeros((batch_size, 200), dtype=torch.bool),
    }


def _image_patches(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Patches as small images [patches, channels, height, width], and their grids."""
    import torch

    side, patch = 8, pair(config.patch_size)
    return {
        "pixel_values": torch_zeros(batch_size * side * side, channels(config), *patch),
        "grid_thw": torch.tensor([[1, side, side]] * batch_size),
    }


def _merged_patches(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Blocks of merged patches [blocks, height, width, channels], and their grids."""
    import torch

    side, size = 4, config.spatial_merge_size * config.patch_size
    return {
        "pixel_values": torch_zeros(batch_size * side * side, size, size, config.num_channels),
        "image_grid_thw": torch.tensor([[1, side, side]] * batch_size),
    }


def _minicpm_vision(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """All images of a batch lie side by side as one strip of patches."""
    import torch

    side, patch = 16, int(config.patch_size)
    return {
        "pixel_values": torch_zeros(1, channels(config), patch, batch_size * side * side * patch),
        "target_sizes": torch.tensor([[side, side]] * batch_size, dtype=torch.int32),
    }


def _instructblip_video(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    frames = 4
    if config.video_token_index is None:
        config.video_token_index = 7
    holders = torch.full((batch_size, frames * int(config.num_query_tokens)), int(config.video_token_index))
    text = token_ids(config, batch_size, seq_len)
    given = {
        "pixel_values": pixels(config, batch_size, frames), "qformer_input_ids": text,
        "input_ids": torch.cat([holders, text], 1),
    }  # fmt: skip
    if getattr(config.text_config, "is_encoder_decoder", False):
        given["decoder_input_ids"] = text
    return given


def _clip_video(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    frames = int(config.vision_config.num_frames)
    return {
        "input_ids": token_ids(config, batch_size, seq_len), "pixel_values": pixels(config, batch_size, frames),
    }  # fmt: skip


def _two_images(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    return {"pixel_values": torch_zeros(batch_size, 2, 3, 480, 640)}


def _seggpt(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """An image and a prompt, each the half of what the model sees."""
    height, width = pair(config.image_size)
    names = ("pixel_values", "prompt_pixel_values", "prompt_masks")
    return {name: torch_zeros(batch_size, channels(config), height // 2, width) for name in names}


def _square(side: int) -> Inputs:
    def inputs(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
        return {"pixel_values": torch_zeros(batch_size, 3, side, side)}

    return inputs


def _tvp(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    size = int(config.max_img_size)
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "pixel_values": torch_zeros(batch_size, int(config.num_frames), 3, size, size),
    }


def _speecht5(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Without pre-nets both sides take hidden states."""
    return {
        "input_values": torch_zeros(batch_size, seq_len, config.hidden_size),
        "decoder_input_values": torch_zeros(batch_size, seq_len, config.hidden_size),
    }


def _timesfm(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    values = torch_zeros(batch_size, config.context_length)
    if config.model_type == "timesfm2_5":
        return {"past_values": values}
    return {
        "past_values": values, "past_values_padding": values, "freq": torch.zeros((batch_size, 1), dtype=torch.long),
    }  # fmt: skip


def _clvp(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    size = int(config.decoder_config.feature_size)
    return {
        "input_ids": token_ids(config, batch_size, seq_len), "input_features": torch_zeros(batch_size, size, 400),
    }  # fmt: skip


def _codec(channels_of: Callable[[Any], int], name: str = "hidden_states") -> Inputs:
    """What a part of an audio codec takes: [batch, channels, samples]."""

    def inputs(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
        wide = channels_of(config)
        return {name: torch_zeros(batch_size, wide, 16000 if wide == 1 else seq_len)}

    return inputs


def _neucodec(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    semantic = config.semantic_model_config
    return {
        "input_values": torch_zeros(batch_size, 1, 16000),
        "input_features": torch_zeros(batch_size, 50, int(semantic.feature_projection_input_dim)),
    }


def _blt(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Bytes in patches of even length: the entropies that cut them in use hang on weights."""
    import torch

    size = next(n for n in (4, 2, 1) if seq_len % n == 0)
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "patch_lengths": torch.full((batch_size, seq_len // size), size),
    }


def _voxtral_realtime(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """One token of text for each step of audio (``audio_length_per_tok`` mel frames)."""
    import torch

    bins, frames = int(config.audio_config.num_mel_bins), seq_len * int(config.audio_length_per_tok)
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "input_features": torch_zeros(batch_size, bins, frames),
        "num_delay_tokens": torch.tensor(int(config.default_num_delay_tokens)),
    }


def _muse_assistant(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Hidden states of several layers of the model that it drafts for, side by side."""
    wide = int(config.hidden_size)
    return {
        "noise_embeds": torch_zeros(batch_size, int(config.block_size), wide),
        "context_hidden_states": torch_zeros(batch_size, seq_len, wide * len(config.target_layer_ids)),
    }


def _samples(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """A waveform of whole tokens."""
    return {"input_values": torch_zeros(batch_size, 8 * prod(config.patch_sizes))}


def _tracked_video(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """The first frame of a video in which ``batch_size`` objects are pointed at, and the session that keeps them."""
    import sys

    import torch

    kind = type(module)
    package = sys.modules[kind.__module__]
    session_kind = getattr(package, f"{kind.__name__.removesuffix('Model')}InferenceSession")
    parameter = next(module.parameters())
    height, width = image_size(config)
    session = session_kind(
        video_height=height, video_width=width, inference_device=parameter.device,
        inference_state_device=parameter.device, video_storage_device=parameter.device, dtype=parameter.dtype,
    )  # fmt: skip
    for number in range(batch_size):
        index = session.obj_id_to_idx(number)
        point = {
            "point_coords": torch_zeros(1, 1, 1, 2),
            "point_labels": torch.ones((1, 1, 1), dtype=torch.int32),
        }
        session.add_point_inputs(index, 0, point)
        session.obj_with_new_inputs.append(number)
    return {"inference_session": session, "frame": torch_zeros(1, 3, height, width)}


#: model type -> inputs(module, config, batch_size, seq_len), tried before the general rules.
FAMILIES: dict[str, Inputs] = {
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
    "blip_2_qformer": _qformer,
    "fun_asr_nano_encoder": _features(lambda c: c.num_mel_bins * c.num_stacked_frames),
    "gemma3n_audio": _gemma3n_audio,
    "gemma4_audio": _features(lambda c: 128),
    "granite_speech5_ctc": _features(lambda c: 4 * c.encoder_config.num_mel_bins, 256),
    "granite_speech5_encoder": _features(lambda c: 4 * c.num_mel_bins, 256),
    "nemotron3_5_transcribe_word_timestamp": _features(lambda c: c.hidden_size, 64, "inputs_embeds"),
    "kimi_k25_vision": _image_patches,
    "inkling2_vision": _merged_patches,
    "minicpm_ocr_vision": _minicpm_vision,
    "minicpmv4_7_vision": _minicpm_vision,
    "instructblipvideo": _instructblip_video,
    "xclip": _clip_video,
    "lightglue": _two_images,
    "seggpt": _seggpt,
    "rf_detr": _square(560),
    "lw_detr": _square(1024),
    "tvp": _tvp,
    "speecht5": _speecht5,
    "timesfm": _timesfm,
    "timesfm2_5": _timesfm,
    "clvp": _clvp,
    "vibevoice_acoustic_tokenizer_decoder": _codec(lambda c: c.hidden_size),
    "vibevoice_acoustic_tokenizer_encoder": _codec(lambda c: c.channels),
    "neucodec": _neucodec,
    "xcodec2": _neucodec,
    "blt": _blt,
    "voxtral_realtime": _voxtral_realtime,
    "muse_glimmer_assistant": _muse_assistant,
    "muse_spark_audio": _samples,
    "edgetam_video": _tracked_video,
    "sam2_video": _tracked_video,
    "sam3_tracker_video": _tracked_video,
}
