"""Configurations for the coverage benchmark: completed where a class refuses its own defaults, trimmed, and shrunk."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

#: Values that a default configuration leaves open or gets wrong, so that the class refuses its own defaults:
#: those of the family's published checkpoints. (part of the configuration, attribute, value)
COMPLETED: dict[str, list[tuple[str, str, Any]]] = {
    "deepseek_v2": [("", "num_experts_per_tok", 6)],
    "glm4v": [("text_config", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glm4v_text": [("", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glm4v_moe": [("text_config", "head_dim", 128)],
    "glm4v_moe_text": [("", "head_dim", 128)],
    "glm_image": [("text_config", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glm_image_text": [("", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glm46v": [("text_config", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glmga": [("text_config", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "pp_ocrv6_small_det": [
        ("backbone_config", "out_features", [f"stage{n}" for n in range(1, 5)]),
        ("", "layer_list_out_channels", [96, 96, 192, 384]),
    ],
    "qwen3_omni_moe_thinker": [("text_config", "head_dim", 128)],
    "step3p7": [("text_config", "sliding_window", 512)],
    "lw_detr": [("", "projector_scale_factors", [1.0])],
    "uvdoc": [("backbone_config", "out_features", [f"stage{n}" for n in range(1, 7)])],
    "xmod": [("", "default_language", "en_XX")],
    "autoformer": [("", "prediction_length", 24)],
    "time_series_transformer": [("", "prediction_length", 24)],
}


def complete(model_type: str, config: Any) -> Any:
    """``config`` with the values of ``COMPLETED``; a dict is merged into the one that is there."""
    for part, name, value in COMPLETED.get(model_type, []):
        holder = getattr(config, part) if part else config
        if isinstance(value, dict):
            value = {**(getattr(holder, name) or {}), **value}
        setattr(holder, name, value)
    return config


def trim(config: Any) -> Any:
    """Two layers wherever a configuration counts layers."""
    names = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers",
             "num_encoder_layers", "num_decoder_layers", "depth")  # fmt: skip
    for name in names:
        if isinstance(getattr(config, name, None), int) and getattr(config, name) > 2:
            with suppress(Exception):  # a read-only alias of another name
                setattr(config, name, 2)
    for name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        with suppress(Exception):  # some configurations hold it for each layer
            if isinstance(getattr(config, name, None), int) and getattr(config, name) > 16:
                setattr(config, name, 16)
    if isinstance(getattr(config, "layer_types", None), list):
        with suppress(Exception):  # some compute it
            config.layer_types = config.layer_types[-2:]
    # Layers that are asked for by number must be there.
    for name in ("deepstack_visual_indexes", "intermediate_layers_indices", "vision_feature_layers"):
        if isinstance(getattr(config, name, None), (list, tuple)):
            setattr(config, name, [n for n in getattr(config, name) if -2 <= n < 2] or [0])
    for value in list(vars(config).values()):
        if hasattr(value, "model_type") and hasattr(value, "to_dict"):
            trim(value)
    return config


#: Widths that grow the weights and little else.
_WIDTHS = frozenset((
    "hidden_size", "intermediate_size", "d_model", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_embd",
    "n_inner", "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size", "embed_dim", "mlp_dim",
    "block_ff_dim", "dense_ffn_hidden_size", "expert_ffn_hidden_size",
))  # fmt: skip


def shrink(config: Any, by: int = 8) -> Any:
    """Widths from 512 on divided ``by``, so that real weights fit; numbers of heads and head widths stay."""
    for name, value in list(vars(config).items()):
        if name in _WIDTHS and isinstance(value, int) and value >= 512 and value % (by * 8) == 0:
            with suppress(Exception):  # a read-only alias of another name
                setattr(config, name, value // by)
        elif hasattr(value, "model_type") and hasattr(value, "to_dict"):
            shrink(value, by)
    return config
