"""Images, sound and video for the registry: guesses of their shapes, and how many tokens stand for them in a text.

A guess is what a family of models takes; the first that the model's own ``get_image_features`` (or
its kin) takes is the one, and what that returns says how many placeholder tokens there are.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any

from .config import deep, first_of, token_ids, torch_zeros
from .request import RefusedError

Guess = dict[str, Any]


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


def sized(config: Any, size: tuple[int, int] | None) -> Any:
    """A copy of the configuration whose images have this (height, width); itself where none was asked for."""
    if size is None:
        return config
    made = copy.deepcopy(config)
    for part in {id(p): p for p in (made, vision_of(made))}.values():
        part.image_size = list(size)
    vision_of(made).image_size_asked = list(size)
    return made


#: Encoders with a table of positions, made for one size of images.
_ONE_SIZE = (
    "clip_vision_model",
    "siglip_vision_model",
    "llama4_vision_model",
    "mllama_vision_model",
    "intern_vit_6b",
)


def has_one_size(config: Any) -> bool:
    return getattr(vision_of(config), "model_type", "") in _ONE_SIZE


def channels(config: Any) -> int:
    names = ("num_channels", "in_channels", "in_chans", "num_input_channels", "input_channels")
    return int(first_of(vision_of(config), *names) or 3)


def pixels(config: Any, *lead: int) -> Any:
    """Zeros of shape [*lead, channels, height, width]."""
    import torch

    return torch.zeros((*lead, channels(config), *image_size(config)))


def patch_grid(config: Any, images: int) -> tuple[Any, Any, int]:
    """Flattened patches [patches, values], their grids [images, 3] (time, height, width), tokens an image.

    An image is 4 x 4 tokens, unless a size was asked for: then it is rounded to whole tokens.
    """
    import torch

    part = vision_of(config)
    patch = pair(first_of(part, "patch_size", "spatial_patch_size", default=14))
    merge = int(first_of(part, "spatial_merge_size", "merge_size", "pixel_shuffle_factor", default=1) or 1)
    size = first_of(part, "image_size_asked")
    unit = patch[0] * merge
    height, width = (max(1, round(n / unit)) * merge for n in size) if size else (4 * merge, 4 * merge)
    frames = int(first_of(part, "temporal_patch_size", "patch_temporal", default=1) or 1)
    values = channels(part) * frames * prod(patch)
    grid = torch.tensor([[1, height, width]] * images)
    return torch.zeros((images * height * width, values)), grid, height * width // merge**2


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
    if hasattr(found, "pooler_output") or hasattr(found, "last_hidden_state"):
        found = first_of(found, "pooler_output", "last_hidden_state")
    if isinstance(found, (list, tuple)) and found and not hasattr(found[0], "shape"):
        found = found[0]
    parts = found if isinstance(found, (list, tuple)) else [found]
    return sum(int(part.numel()) // int(part.shape[-1]) for part in parts)


_PLACEHOLDERS = {
    "image": ("image_token_id", "image_token_index", "image_token", "media_token_id", "image_patch_id"),
    "audio": ("audio_token_id", "audio_token_index", "audio_token", "speech_token_id"),
    "video": ("video_token_id", "video_token_index"),
}


def placeholder_of(config: Any, modality: str) -> int | None:
    """The token that stands for features of a modality; None where the configuration names none."""
    token = first_of(config, *_PLACEHOLDERS[modality])
    return int(token) if isinstance(token, int) else None


def placeholder(config: Any, modality: str) -> int | None:
    """The token that stands for features of a modality; where the configuration leaves it open, one that is free."""
    names = _PLACEHOLDERS[modality]
    token = first_of(config, *names)
    open_ones = [name for name in names if hasattr(config, name)]
    if token is None and open_ones:
        token = {"image": 7, "audio": 8, "video": 9}[modality]
        setattr(config, open_ones[0], token)
    return None if token is None else int(token)


def with_text(
    module: Any, config: Any, batch_size: int, seq_len: int, guesses: Mapping[str, Iterable[Guess]]
) -> Guess:
    """Inputs of each modality and token ids: as many placeholders as there are features, then ``seq_len`` of text."""
    import torch

    given: Guess = {}
    parts, kinds = [], []
    for modality, options in guesses.items():
        token = placeholder(config, modality)
        if token is None or not hasattr(module, f"get_{modality}_features"):
            given |= next(iter(options))
            continue
        taken, count = _first_taken(module, modality, options)
        given |= taken
        parts.append(torch.full((batch_size, count // batch_size), token))
        kinds.append((modality, token))
    ids = torch.cat([*parts, token_ids(config, batch_size, seq_len)], 1)
    if kinds and "mm_token_type_ids" in inspect.signature(module.forward).parameters:
        numbers = {"image": 1, "video": 2, "audio": 3}
        given["mm_token_type_ids"] = sum((ids == token).long() * numbers[kind] for kind, token in kinds)
    return {"input_ids": ids, **given}


#: The input that holds a modality's features.
FED = {
    "image": ("pixel_values",),
    "audio": ("input_features", "input_values"),
    "video": ("pixel_values_videos",),
}


def placed(module: Any, given: Guess) -> Guess:
    """``given`` with placeholders at the start of its token ids for the features that it holds. Raises RefusedError."""
    config, ids, at = getattr(module, "config", None), given.get("input_ids"), 0
    if config is None or ids is None or not hasattr(config, "model_type"):
        return given
    for modality, names in FED.items():
        if not any(name in given for name in names) or not hasattr(module, f"get_{modality}_features"):
            continue
        token = placeholder(config, modality)
        if token is None:
            continue
        count = feature_tokens(module, f"get_{modality}_features", given) // ids.shape[0]
        if at + count > ids.shape[1]:
            raise RefusedError(
                f"{type(module).__name__}: {count} tokens stand for the {modality} in each sequence; input_ids has "
                f"{ids.shape[1]}, give it at least {at + count}"
            )
        ids[:, at : at + count] = token
        at += count
    return given


def _first_taken(module: Any, modality: str, options: Iterable[Guess]) -> tuple[Guess, int]:
    """The first guess that the module makes features of, and how many. Raises what the first one raised."""
    first: Exception | None = None
    for option in options:
        try:
            return option, feature_tokens(module, f"get_{modality}_features", option)
        except Exception as error:  # noqa: PERF203
            first = first or error
    assert first is not None
    raise first


def images(config: Any, names: list[str], samples: int, each: int = 1) -> Iterator[Guess]:
    """Image inputs by the names of forward's parameters; then other shapes that families give them.

    ``samples`` sequences with ``each`` images: most models take all of them in one batch.
    """
    import torch

    batch_size = samples * each

    grids = [n for n in names if n in ("image_grid_thw", "grid_thw", "image_grid_hws", "spatial_shapes")]
    if grids and ("image_grid_thw" in names or "grid_thw" in names):
        yield from _patches(config, names, batch_size, grids[0])
        return
    if "target_sizes" in names:
        yield strip(config, batch_size)
    given: Guess = {"pixel_values": pixels(config, batch_size)}
    if "spatial_shapes" in names:
        part = vision_of(config)
        side = int(first_of(part, "num_patches", default=256) ** 0.5)
        values = channels(part) * prod(pair(first_of(part, "patch_size", default=16)))
        given["pixel_values"] = torch.zeros((batch_size, side * side, values))
        given["spatial_shapes"] = torch.tensor([[side, side]] * batch_size)
        mask = "pixel_attention_mask" if "pixel_attention_mask" in names else "attention_mask"
        given[mask] = torch.ones((batch_size, side * side), dtype=torch.long)
    # Of LLaVA's encoders only Pixtral's takes sizes.
    sized_ones = getattr(vision_of(config), "model_type", "") == "pixtral" or config.model_type != "llava"
    if "image_sizes" in names and sized_ones:
        given["image_sizes"] = torch.tensor([list(image_size(config))] * batch_size)
    if "high_res_pixel_values" in names:
        part = first_of(config, "high_res_vision_config", default=config)
        size = pair(first_of(part, "image_size", default=1024))
        given["high_res_pixel_values"] = torch.zeros((batch_size, channels(config), *size))
    yield given
    if "image_sizes" in given:
        yield {"pixel_values": pixels(config, batch_size)}
    pinpoints = first_of(config, "image_grid_pinpoints")
    if pinpoints:
        yield _tiles(config, pair(pinpoints[0]), batch_size)
    # One image a sample, of ones (images of zeros are taken for padding), in whole blocks of patches.
    unit = (
        int(first_of(config, "scale_factor", "pixel_shuffle_factor", default=1))
        * pair(first_of(vision_of(config), "patch_size", default=1))[0]
    )
    height, width = (-(-side // unit) * unit for side in image_size(config))
    stacked: Guess = {"pixel_values": torch.ones((samples, each, channels(config), height, width))}
    if "pixel_attention_mask" in names:
        stacked["pixel_attention_mask"] = torch.ones((samples, each, height, width), dtype=torch.bool)
    yield stacked


def strip(config: Any, batch_size: int) -> Guess:
    """All images of a batch side by side as one strip of patches, and their sizes in patches."""
    import torch

    side, patch = 16, pair(first_of(vision_of(config), "patch_size", default=14))[0]
    return {
        "pixel_values": torch_zeros(1, channels(config), patch, batch_size * side * side * patch),
        "target_sizes": torch.tensor([[side, side]] * batch_size, dtype=torch.int32),
    }


def _tiles(config: Any, size: tuple[int, int], batch_size: int) -> Guess:
    """An image of ``size`` (height, width) in tiles as large as the model sees, and the whole in one of them."""
    import torch

    height, width = image_size(config)
    count = (size[0] // height) * (size[1] // width) + 1
    return {
        "pixel_values": pixels(config, batch_size, count),
        "image_sizes": torch.tensor([list(size)] * batch_size),
    }


def _patches(config: Any, names: list[str], batch_size: int, grid_name: str) -> Iterator[Guess]:
    """Patches with a grid: flat, as small images, as small images of one strip, as blocks of merged patches."""
    import torch

    flat, grid, _ = patch_grid(config, batch_size)
    part = vision_of(config)
    name = "pixel_values" if "pixel_values" in names else "hidden_states"
    rest: Guess = {grid_name: grid}
    if "image_merge_sizes" in names:
        merge = int(first_of(part, "spatial_merge_size", "merge_size", default=1) or 1)
        rest["image_merge_sizes"] = torch.full((batch_size,), merge)
    yield {name: flat, **rest}
    small = torch_zeros(flat.shape[0], channels(part), *pair(first_of(part, "patch_size", default=14)))
    yield {name: small, **rest}
    yield {name: small[None], **rest}
    merged = (
        int(first_of(part, "spatial_merge_size", default=1))
        * pair(first_of(part, "patch_size", default=14))[0]
    )
    yield {name: torch_zeros(flat.shape[0], merged, merged, channels(part)), **rest}


def sounds(config: Any, names: list[str], batch_size: int, each: int = 1) -> Iterator[Guess]:
    """Log-mel features [batch, bins, frames] or [batch, frames, bins], or the waveform, with their masks."""
    import torch

    part = first_of(
        config, "audio_config", "encoder_config", "speech_config", "audio_encoder_config", default=config
    )
    if "input_values" in names:
        bins = first_of(part, "num_mel_bins")
        length = int(first_of(part, "max_length", default=1024)) if bins else 16000
        given = {
            "input_values": torch_zeros(*((batch_size, length, int(bins)) if bins else (batch_size, length)))
        }
        yield given
        yield {"input_values": torch_zeros(batch_size, 1, 16000)}
        if "padding_mask" in names:
            yield {**given, "padding_mask": torch.ones((batch_size, length), dtype=torch.bool)}
        return
    wide = (
        "num_mel_bins", "input_feat_per_channel", "feature_size", "n_mels", "mel_bins", "num_mels", "input_dim",
        "feature_projection_input_dim", "input_feat_size",
    )  # fmt: skip
    bins = int(first_of(part, *wide) or deep(config, *wide) or 80)
    positions = first_of(part, "max_source_positions")
    frames = 2 * int(positions) if positions and positions <= 1500 else 200
    mel_first = bool(positions) and frames != 200 and config.model_type != "speech_to_text"
    stacked = bins * int(first_of(part, "num_stacked_frames", default=1))

    def features(length: int, width: int, swapped: bool, *masks: str) -> Guess:
        shape = (batch_size, width, length) if swapped else (batch_size, length, width)
        made: Guess = {"input_features": torch.zeros(shape)}
        for mask in ("input_features_mask", "feature_attention_mask", *masks):
            if mask in names:
                made[mask] = torch.ones((batch_size, length), dtype=torch.bool)
        return made

    yield features(frames, bins, mel_first)
    yield {**features(frames, bins, not mel_first)}
    for length in dict.fromkeys((frames, 3000, 200)):
        for width in dict.fromkeys((bins, stacked)):
            for swapped in (True, False):
                yield features(length, width, swapped, "padding_mask")


def videos(config: Any, names: list[str], batch_size: int, each: int = 1) -> Iterator[Guess]:
    """Frames [batch, frames, channels, height, width]."""
    counts = ("num_frames", "frames_per_clip", "video_length")
    frames = int(first_of(config, *counts) or deep(config, *counts) or 8)
    name = "pixel_values_videos" if "pixel_values_videos" in names else "pixel_values"
    yield {name: pixels(config, batch_size, frames)}


#: modality -> guesses(config, names of forward's parameters, batch_size, how many a sequence).
GUESSES: dict[str, Callable[[Any, list[str], int, int], Iterator[Guess]]] = {
    "image": images, "audio": sounds, "video": videos,
}  # fmt: skip
