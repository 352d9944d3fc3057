"""The registry of inputs: general rules by parameter name (images and sound: ``media``); more is in ``special``.

A model has one or more variants of inputs, the fullest first: all modalities with the right number
of placeholder tokens, then what its main input is, then text alone. The first that runs is taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from . import media
from .config import deep, first_of, token_ids, torch_zeros
from .request import Pass, RefusedError
from .special import FAMILIES

Variant = Callable[[], dict[str, Any]]


def variants(module: Any, config: Any, names: list[str], run: Pass) -> list[Variant]:
    """The ways to call a transformers model, the fullest first; with images as they were asked for, if they were."""
    batch_size, seq_len, asked = run.batch_size, run.seq_len, run.images
    sized = media.sized(config, run.image_size)
    found: list[Variant] = []
    main = getattr(module, "main_input_name", "input_ids")
    text_too = "input_ids" in names

    def with_decoder(given: dict[str, Any]) -> dict[str, Any]:
        import torch

        if "decoder_input_ids" in names:
            given["decoder_input_ids"] = token_ids(config, batch_size, seq_len)
        if "bbox" in names and "input_ids" in given:
            given["bbox"] = torch.zeros((*given["input_ids"].shape, 4), dtype=torch.long)
        return given

    def text() -> dict[str, Any]:
        return with_decoder({"input_ids": token_ids(config, batch_size, seq_len)} if text_too else {})

    def beside_text(*kinds: str, masked: bool = False) -> Variant:
        def make() -> dict[str, Any]:
            import torch

            each = {kind: asked or 1 if kind == "image" else 1 for kind in kinds}
            guesses = {kind: media.GUESSES[kind](sized, names, batch_size, each[kind]) for kind in kinds}
            given = media.with_text(module, config, batch_size, seq_len, guesses)
            if masked:
                given["attention_mask"] = torch.ones_like(given["input_ids"])
            return with_decoder(given)

        return make

    def alone(kind: str, number: int = 0) -> Variant:
        return lambda: with_decoder(
            dict([*media.GUESSES[kind](sized, names, batch_size, asked or 1)][number])
        )

    def completed(makers: list[Variant]) -> list[Variant]:
        return [lambda make=make: complete(module, config, make(), batch_size, seq_len) for make in makers]  # type: ignore[misc]

    if text_too and asked == 0:
        return completed([text])
    entry = FAMILIES.get(config.model_type)
    if entry is not None:
        if run.image_size is not None or (asked or 1) > 1:
            raise RefusedError(
                f"{type(module).__name__}: number and size of images are those of its family; give others with --inputs"
            )
        special: list[Variant] = [lambda: entry(module, config, batch_size, seq_len)]
        if asked:
            return completed(special)
        return completed([*special, text] if main == "input_ids" and text_too else special)
    has_image = "pixel_values" in names or "grid_thw" in names or "image_grid_thw" in names
    kinds = [kind for kind, there in (
        ("image", has_image and main != "pixel_values_videos"),
        ("audio", "input_values" in names or "input_features" in names),
        ("video", "pixel_values_videos" in names and hasattr(module, "video_tower")),
    ) if there]  # fmt: skip
    if text_too and len(kinds) > 1:
        found += [beside_text(*kinds), beside_text(*kinds, masked=True)]
    for kind in kinds:
        if text_too:
            found.append(beside_text(kind))
            if "attention_mask" in names:
                found.append(beside_text(kind, masked=True))
        if not text_too or kind == "image":
            found.append(alone(kind))
        if kind == "audio":
            found.append(alone(kind, 1))
    if "pixel_values_videos" in names or "pixel_values" in names:
        found.append(alone("video"))
    if "pixel_values" in names and not text_too:
        pair_of, large = (batch_size, 2), (batch_size, media.channels(config), 1536, 1536)
        found.append(lambda: {"pixel_values": media.pixels(config, *pair_of)})
        found.append(lambda: {"pixel_values": torch_zeros(*large)})
    if asked or run.image_size:
        _check_images(module, config, run, kinds)
        # Not text alone, silently.
        return completed(found)
    if text_too:
        found.append(text)
    if not found:
        ids = main.endswith("ids") or main in ("inputs", "tokens")
        found.append(lambda: with_decoder({main: token_ids(config, batch_size, seq_len)} if ids else {}))
    return completed(found)


def _check_images(module: Any, config: Any, run: Pass, kinds: list[str]) -> None:
    """Raises RefusedError for images that the model does not take."""
    name = type(module).__name__
    if "image" not in kinds:
        raise RefusedError(f"{name} takes no images: leave out --images and --image-size")
    own = media.image_size(config)
    if run.image_size not in (None, own) and media.has_one_size(config):
        raise RefusedError(
            f"{name} takes images of {own[0]}x{own[1]} only; a larger one comes as several of these: --images N"
        )


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
