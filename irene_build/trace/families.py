"""The registry of inputs: general rules by parameter name; families that want more are in ``special``.

A model has one or more variants of inputs, the fullest first: all modalities with the right number
of placeholder tokens, then what its main input is, then text alone. The first that runs is taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import prod
from typing import Any

Variant = Callable[[], dict[str, Any]]


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
        positions = deep(
            first_of(config, "text_config", default=config), "max_position_embeddings", "max_text_len"
        )
        if isinstance(positions, int) and 0 < positions < seq_len:
            seq_len = positions
    value = next(v for v in range(5, 10_000) if v not in special)
    return torch.full((batch_size, seq_len), value)


def vision_of(config: Any) -> Any:
    return first_of(config, "vision_config", "image_config", "backbone_config", "vit_config", default=config)


def pair(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        size = (size.get("height", 224), size.get("width", 224))
    if isinstance(size, (list, tuple)):
        return int(size[-2] if len(size) > 1 else size[0]), int(size[-1])
    return int(size), int(size)


def image_size(config: Any) -> tuple[int, int]:
    part = vision_of(config)
    names = ("image_size", "input_size", "img_size", "sample_size", "resolution", "crop_size")
    return pair(first_of(part, *names) or first_of(config, *names) or deep(config, *names) or 224)


def channels(config: Any) -> int:
    names = ("num_channels", "in_channels", "in_chans", "num_input_channels", "input_channels")
    return int(first_of(vision_of(config), *names) or 3)


def pixels(config: Any, *lead: int) -> Any:
    """Zeros of shape [*lead, channels, height, width]."""
    import torch

    return torch.zeros((*lead, channels(config), *image_size(config)))


def patch_grid(config: Any, batch_size: int) -> tuple[Any, Any, int]:
    """Flattened patches [patches, values], their grids [batch, 3] (time, height, width), tokens an image."""
    import torch

    part = vision_of(config)
    patch = pair(first_of(part, "patch_size", "spatial_patch_size", default=14))
    merge = int(first_of(part, "spatial_merge_size", "merge_size", "pixel_shuffle_factor", default=1) or 1)
    side = 4 * merge
    frames = int(first_of(part, "temporal_patch_size", "patch_temporal", default=1) or 1)
    values = channels(part) * frames * prod(patch)
    grid = torch.tensor([[1, side, side]] * batch_size)
    return torch.zeros((batch_size * side * side, values)), grid, side * side // merge**2


def feature_tokens(module: Any, method: str, given: dict[str, Any]) -> int:
    """How many placeholder tokens these features take: what ``get_image_features`` and its kin return."""
    function = getattr(module, method)
    device = next(module.parameters()).device
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    names = inspect.signature(function).parameters
    moved = {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in given.items()
        if name in names
    }
    found = function(**moved)
    found = getattr(found, "pooler_output", None) if hasattr(found, "pooler_output") else found
    if isinstance(found, (list, tuple)) and found and not hasattr(found[0], "shape"):
        found = found[0]
    parts = found if isinstance(found, (list, tuple)) else [found]
    return sum(int(part.numel()) // int(part.shape[-1]) for part in parts)


_PLACEHOLDERS = {
    "image": ("image_token_id", "image_token_index", "image_token", "media_token_id", "image_patch_id"),
    "audio": ("audio_token_id", "audio_token_index", "audio_token", "speech_token_id"),
    "video": ("video_token_id", "video_token_index"),
}


def with_placeholders(
    module: Any, config: Any, batch_size: int, seq_len: int, modality: str, given: dict[str, Any]
) -> dict[str, Any]:
    """``given`` and token ids: as many placeholders as there are features, then ``seq_len`` of text."""
    import torch

    text = token_ids(config, batch_size, seq_len)
    token = first_of(config, *_PLACEHOLDERS[modality])
    method = f"get_{modality}_features"
    if token is None or not hasattr(module, method):
        return {"input_ids": text, **given}
    count = feature_tokens(module, method, given) // batch_size
    ids = torch.cat([torch.full((batch_size, count), int(token)), text], 1)
    if modality == "image" and "mm_token_type_ids" in inspect.signature(module.forward).parameters:
        given = {**given, "mm_token_type_ids": (ids == int(token)).long()}
    return {"input_ids": ids, **given}


def _images(module: Any, config: Any, names: list[str], batch_size: int) -> dict[str, Any]:
    """Image inputs by the names of forward's parameters."""
    import torch

    grids = [n for n in names if n in ("image_grid_thw", "grid_thw", "image_grid_hws", "spatial_shapes")]
    if grids and ("image_grid_thw" in names or "grid_thw" in names):
        patches, grid, _ = patch_grid(config, batch_size)
        return {("pixel_values" if "pixel_values" in names else "hidden_states"): patches, grids[0]: grid}
    given: dict[str, Any] = {"pixel_values": pixels(config, batch_size)}
    if "spatial_shapes" in names:
        part = vision_of(config)
        side = int(first_of(part, "num_patches", default=256) ** 0.5)
        values = channels(part) * prod(pair(first_of(part, "patch_size", default=16)))
        given["pixel_values"] = torch.zeros((batch_size, side * side, values))
        given["spatial_shapes"] = torch.tensor([[side, side]] * batch_size)
        mask = "pixel_attention_mask" if "pixel_attention_mask" in names else "attention_mask"
        given[mask] = torch.ones((batch_size, side * side), dtype=torch.long)
    if "image_sizes" in names:
        given["image_sizes"] = torch.tensor([list(image_size(config))] * batch_size)
    if "high_res_pixel_values" in names:
        size = pair(
            first_of(first_of(config, "high_res_vision_config", default=config), "image_size", default=1024)
        )
        given["high_res_pixel_values"] = torch.zeros((batch_size, channels(config), *size))
    return given


def _audio(module: Any, config: Any, names: list[str], batch_size: int) -> dict[str, Any]:
    """Log-mel features [batch, bins, frames] or [batch, frames, bins], or the waveform, with their masks."""
    import torch

    part = first_of(
        config, "audio_config", "encoder_config", "speech_config", "audio_encoder_config", default=config
    )
    given: dict[str, Any] = {}
    if "input_values" in names:
        bins = first_of(part, "num_mel_bins")
        length = int(first_of(part, "max_length", default=1024)) if bins else 16000
        given["input_values"] = torch.zeros((batch_size, length, int(bins)) if bins else (batch_size, length))
    elif "input_features" in names:
        wide = (
            "num_mel_bins", "input_feat_per_channel", "feature_size", "n_mels", "mel_bins", "num_mels", "input_dim",
            "feature_projection_input_dim", "input_feat_size",
        )  # fmt: skip
        bins = int(first_of(part, *wide) or deep(config, *wide) or 80)
        positions = first_of(part, "max_source_positions")
        frames = 2 * int(positions) if positions and positions <= 1500 else 200
        mel_first = bool(positions) and frames != 200 and config.model_type != "speech_to_text"
        given["input_features"] = torch.zeros(
            (batch_size, bins, frames) if mel_first else (batch_size, frames, bins)
        )
        for mask in ("input_features_mask", "feature_attention_mask"):
            if mask in names:
                given[mask] = torch.ones((batch_size, frames), dtype=torch.bool)
    return given


def variants(module: Any, config: Any, names: list[str], batch_size: int, seq_len: int) -> list[Variant]:
    """The ways to call a transformers model, the fullest first."""
    from .special import FAMILIES

    entry = FAMILIES.get(config.model_type)
    if entry is not None:
        return [
            lambda: complete(module, config, entry(module, config, batch_size, seq_len), batch_size, seq_len)
        ]
    found: list[Variant] = []
    main = getattr(module, "main_input_name", "input_ids")

    def text() -> dict[str, Any]:
        given = {"input_ids": token_ids(config, batch_size, seq_len)} if "input_ids" in names else {}
        return _with_decoder(given)

    def _with_decoder(given: dict[str, Any]) -> dict[str, Any]:
        import torch

        if "decoder_input_ids" in names:
            given["decoder_input_ids"] = token_ids(config, batch_size, seq_len)
        if "bbox" in names and "input_ids" in given:
            given["bbox"] = torch.zeros((*given["input_ids"].shape, 4), dtype=torch.long)
        return given

    def images() -> dict[str, Any]:
        given = _images(module, config, names, batch_size)
        if "input_ids" in names:
            given = with_placeholders(module, config, batch_size, seq_len, "image", given)
        return _with_decoder(given)

    def audio() -> dict[str, Any]:
        given = _audio(module, config, names, batch_size)
        if "input_ids" in names:
            given = with_placeholders(module, config, batch_size, seq_len, "audio", given)
        return _with_decoder(given)

    def images_alone() -> dict[str, Any]:
        return _with_decoder(_images(module, config, names, batch_size))

    def audio_mel_first() -> dict[str, Any]:
        given = _with_decoder(_audio(module, config, names, batch_size))
        given["input_features"] = given["input_features"].transpose(1, 2).contiguous()
        return given

    def video() -> dict[str, Any]:
        counts = ("num_frames", "frames_per_clip", "video_length")
        frames = int(first_of(config, *counts) or deep(config, *counts) or 8)
        name = "pixel_values_videos" if "pixel_values_videos" in names else "pixel_values"
        return {name: pixels(config, batch_size, frames)}

    def waveform() -> dict[str, Any]:
        return {"input_values": torch_zeros(batch_size, 1, 16000)}

    def image_pair() -> dict[str, Any]:
        return {"pixel_values": pixels(config, batch_size, 2)}

    def large_image() -> dict[str, Any]:
        return {"pixel_values": torch_zeros(batch_size, channels(config), 1536, 1536)}

    has_image = "pixel_values" in names or "grid_thw" in names or "image_grid_thw" in names
    if has_image and main != "pixel_values_videos":
        found += [images, images_alone] if "input_ids" in names else [images]
    if "input_values" in names or "input_features" in names:
        found.append(audio)
        found.append(audio_mel_first if "input_features" in names else waveform)
    if "pixel_values_videos" in names or "pixel_values" in names:
        found.append(video)
    if "pixel_values" in names and "input_ids" not in names:
        found += [image_pair, large_image]
    if "input_ids" in names:
        found.append(text)
    if not found:
        ids = main.endswith("ids") or main in ("inputs", "tokens")
        found.append(lambda: _with_decoder({main: token_ids(config, batch_size, seq_len)} if ids else {}))
    return [lambda make=make: complete(module, config, make(), batch_size, seq_len) for make in found]  # type: ignore[misc]


def torch_zeros(*shape: int) -> Any:
    import torch

    return torch.zeros(shape)


def complete(
    module: Any, config: Any, given: dict[str, Any], batch_size: int, seq_len: int
) -> dict[str, Any]:
    """``given`` and what forward demands beyond it, by the parameter's name."""
    import torch

    for name, parameter in inspect.signature(module.forward).parameters.items():
        if name in given or parameter.default is not parameter.empty or parameter.kind in (2, 4):
            continue
        hidden = int(deep(config, "hidden_size", "d_model", "embed_dim", "dim") or 768)
        tokens = next((v.shape[1] for v in given.values() if hasattr(v, "dim") and v.dim() > 1), seq_len)
        if name.endswith("input_ids") or name in ("task_inputs",):
            given[name] = token_ids(config, batch_size, seq_len)
        elif name.endswith("mask"):
            given[name] = torch.ones((batch_size, tokens), dtype=torch.bool)
        elif name == "query_embeds":
            count = int(first_of(config, "num_query_tokens", default=32))
            given[name] = torch.zeros((1, count, int(first_of(config, "hidden_size", default=hidden))))
        elif name in ("input_features",):
            given[name] = torch.zeros(
                (batch_size, 200, int(deep(config, "num_mel_bins", "feature_size") or 160))
            )
        elif name == "latents":
            width = int(first_of(config, "hidden_size", default=hidden))
            given[name] = torch.zeros((batch_size, width, seq_len))
        elif name == "merge_sizes":
            given[name] = torch.full(
                (batch_size,), int(first_of(config, "spatial_merge_size", "merge_size", default=1))
            )
        elif name.endswith(("hidden_states", "embeds", "features")):
            given[name] = torch.zeros((batch_size, tokens, hidden))
        elif name.endswith(("position_ids", "positions")):
            given[name] = torch.zeros((batch_size, tokens), dtype=torch.long)
    return given
