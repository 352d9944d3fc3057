"""Inputs of models that see images or video, and nothing else."""

from __future__ import annotations

from math import prod
from typing import Any

from ..config import first_of, torch_zeros
from ..media import channels, image_size, pair, pixels, strip
from .kind import Inputs


def _oneformer(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    length = int(first_of(config, "task_seq_len", default=77))
    return {"pixel_values": pixels(config, batch_size), "task_inputs": torch.full((batch_size, length), 5)}


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


def _strip_of_images(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    return strip(config, batch_size)


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


#: model type -> inputs(module, config, batch_size, seq_len).
FAMILIES: dict[str, Inputs] = {
    "oneformer": _oneformer,
    "gemma4_vision": _gemma4_vision,
    "kimi_k25_vision": _image_patches,
    "inkling2_vision": _merged_patches,
    "minicpm_ocr_vision": _strip_of_images,
    "minicpmv4_7_vision": _strip_of_images,
    "lightglue": _two_images,
    "seggpt": _seggpt,
    "rf_detr": _square(560),
    "lw_detr": _square(1024),
    "edgetam_video": _tracked_video,
    "sam2_video": _tracked_video,
    "sam3_tracker_video": _tracked_video,
}
