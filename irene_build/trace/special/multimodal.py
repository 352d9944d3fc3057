"""Inputs of models that take text beside images, video or actions."""

from __future__ import annotations

from math import isqrt
from typing import Any

from ..config import deep, token_ids, torch_zeros
from ..media import pixels, with_text
from .kind import Inputs


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


def _pi0(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    image = {"pixel_values": pixels(config, batch_size, 1)}
    given = with_text(module, config, batch_size, seq_len, {"image": [image]})
    given["pixel_attention_mask"] = torch.ones((batch_size, 1), dtype=torch.bool)
    given["action_embeds"] = torch_zeros(batch_size, 8, int(deep(config.dit_config, "hidden_size") or 1024))
    return given


def _qformer(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    return {
        "query_embeds": torch_zeros(1, 32, config.hidden_size),
        "encoder_hidden_states": torch_zeros(1, seq_len, config.encoder_hidden_size),
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


def _tvp(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    size = int(config.max_img_size)
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "pixel_values": torch_zeros(batch_size, int(config.num_frames), 3, size, size),
    }


def _mllama(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """One image a sample in one tile; each token of text sees it."""
    import torch

    tiles = int(config.vision_config.max_num_tiles)
    mask = torch.zeros((batch_size, 1, tiles), dtype=torch.long)
    mask[:, :, 0] = 1
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "pixel_values": pixels(config, batch_size, 1, tiles),
        "aspect_ratio_ids": torch.ones((batch_size, 1), dtype=torch.long),
        "aspect_ratio_mask": mask,
        "cross_attention_mask": mask[:, None].repeat(1, seq_len, 1, 1),
    }


def _aria(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """An image of as many patches as the smaller of its two numbers of queries is for."""
    side = isqrt(min(map(int, config.projector_patch_to_query_dict))) * int(config.vision_config.patch_size)
    image = {"pixel_values": torch_zeros(batch_size, 3, side, side)}
    return with_text(module, config, batch_size, seq_len, {"image": [image]})


def _qwen2_audio(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """30 s of sound: a convolution and a pooling leave a token of four frames of 10 ms."""
    import torch

    frames = 2 * int(config.audio_config.max_source_positions)
    text = token_ids(config, batch_size, seq_len)
    ids = torch.cat([torch.full((batch_size, frames // 4), int(config.audio_token_id)), text], 1)
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids),
        "input_features": torch_zeros(batch_size, int(config.audio_config.num_mel_bins), frames),
        "feature_attention_mask": torch.ones((batch_size, frames), dtype=torch.long),
    }  # fmt: skip


#: model type -> inputs(module, config, batch_size, seq_len).
FAMILIES: dict[str, Inputs] = {
    "aria": _aria,
    "mllama": _mllama,
    "qwen2_audio": _qwen2_audio,
    "lxmert": _lxmert,
    "kosmos-2": _kosmos,
    "idefics": _idefics,
    "blip-2": _blip2,
    "pi0": _pi0,
    "instructblip": _blip2,
    "blip_2_qformer": _qformer,
    "instructblipvideo": _instructblip_video,
    "xclip": _clip_video,
    "tvp": _tvp,
}
