"""The registry of inputs: general rules by parameter name, and entries for families that want more."""

from __future__ import annotations

from typing import Any


def sub(config: Any, *names: str) -> Any:
    """The first of these attributes that the configuration or one of its parts has, None if none."""
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return value
    return None


def token_ids(config: Any, batch_size: int, seq_len: int, vocabulary: int | None = None) -> Any:
    """Token ids [batch_size, seq_len], none of them special."""
    import torch

    special = set()
    if config is not None:
        for part in (config, sub(config, "text_config", "decoder")):
            values = vars(part) if hasattr(part, "__dict__") else {}
            special |= {
                v for k, v in values.items() if k.endswith(("token_id", "token_index")) and isinstance(v, int)
            }
    value = next(v for v in range(5, 10_000) if v not in special)
    if vocabulary is not None:
        value = min(value, vocabulary - 1)
    return torch.full((batch_size, seq_len), value)


def image_size(config: Any) -> tuple[int, int]:
    part = sub(config, "vision_config", "image_config", "backbone_config", "encoder") or config
    size = sub(part, "image_size", "input_size", "img_size") or sub(config, "image_size") or 224
    if isinstance(size, dict):
        size = (size.get("height", 224), size.get("width", 224))
    if isinstance(size, (list, tuple)):
        return int(size[-2] if len(size) > 1 else size[0]), int(size[-1])
    return int(size), int(size)


def channels(config: Any) -> int:
    part = sub(config, "vision_config", "image_config", "backbone_config") or config
    return int(sub(part, "num_channels", "in_channels", "in_chans", "num_input_channels") or 3)


def pixels(config: Any, batch_size: int) -> Any:
    import torch

    return torch.zeros((batch_size, channels(config), *image_size(config)))


def inputs_of(module: Any, config: Any, names: list[str], batch_size: int, seq_len: int) -> dict[str, Any]:
    """Inputs of a transformers model by its type's entry, else by its main input and its parameters' names."""
    import torch

    entry = FAMILIES.get(config.model_type)
    if entry is not None:
        made: dict[str, Any] = entry(module, config, batch_size, seq_len)
        return made
    main = getattr(module, "main_input_name", "input_ids")
    found: dict[str, Any] = {}
    if (
        main == "input_ids"
        or ("input_ids" in names and main not in names)
        or ("input_ids" in names and "pixel_values" in names)
    ):
        found["input_ids"] = token_ids(config, batch_size, seq_len)
    if main == "pixel_values" or "pixel_values" in names:
        found["pixel_values"] = pixels(config, batch_size)
    if main == "pixel_values_videos":
        frames = int(sub(config, "num_frames", "frames_per_clip") or 8)
        found["pixel_values_videos"] = torch.zeros(
            (batch_size, frames, channels(config), *image_size(config))
        )
    if main == "input_values":
        bins = sub(config, "num_mel_bins")
        shape = (batch_size, int(sub(config, "max_length") or 1024), bins) if bins else (batch_size, 16000)
        found["input_values"] = torch.zeros(shape)
    if main == "input_features":
        bins = int(sub(config, "num_mel_bins", "input_feat_per_channel", "feature_size") or 80)
        positions = sub(config, "max_source_positions")
        if positions and config.model_type in ("whisper",):
            found["input_features"] = torch.zeros((batch_size, bins, 2 * positions))
        else:
            found["input_features"] = torch.zeros((batch_size, 200, bins))
    if "decoder_input_ids" in names:
        found["decoder_input_ids"] = token_ids(config, batch_size, seq_len)
    if "bbox" in names and "input_ids" in found:
        found["bbox"] = torch.zeros((batch_size, seq_len, 4), dtype=torch.long)
    if not found and main in names:
        found[main] = token_ids(config, batch_size, seq_len)
    return found


#: model type -> inputs(module, config, batch_size, seq_len).
FAMILIES: dict[str, Any] = {}
