"""Formulas of operators whose weights are packed: quantised products and lookups, oneDNN and MKL, recurrent cells.

A packed weight is no tensor but an object of TorchScript; ``unpack`` tells its shape, its dtype and its scales.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from .aten_costs import convolution_flops
from .cost_registry import Called, Work, product, register_cost
from .tensors import nbytes, numel

if TYPE_CHECKING:
    from torch import Tensor

_LINEAR = ("linear", "linear_relu", "linear_leaky_relu", "linear_tanh")
_DYNAMIC = ("linear_dynamic", "linear_relu_dynamic", "linear_dynamic_fp16", "linear_relu_dynamic_fp16")
_CONVOLUTIONS = tuple(
    f"{kind}{spatial}d{after}"
    for kind in ("conv", "conv_transpose")
    for spatial in (1, 2, 3)
    for after in ("", "_relu", "_dynamic", "_add", "_add_relu")
)
_QUANTIZED = ("quantized", "_quantized")


def unpacked(packed: Any) -> list[Tensor]:
    """The tensors in a packed weight (weight first, then a bias); empty for an object that does not tell."""
    if not hasattr(packed, "unpack"):
        return []
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        found = packed.unpack()
    return [
        t for t in (found if isinstance(found, (list, tuple)) else [found]) if isinstance(t, torch.Tensor)
    ]


def packed_bytes(tensors: list[Tensor], half: bool = False) -> float:
    """Bytes of unpacked tensors as they are stored: codes, scales and zero points a channel, biases. ``half``: fp16."""
    total = 0.0
    for tensor in tensors:
        if half and tensor.dim() > 1:
            total += 2.0 * tensor.numel()
        else:
            total += tensor.numel() * tensor.element_size()
        if tensor.is_quantized and "channel" in str(tensor.qscheme()):
            # A float32 scale and an int32 zero point for each channel.
            total += 8.0 * tensor.shape[tensor.q_per_channel_axis()]
    return total


def _objects(values: Any) -> list[Any]:
    return [a for a in values if isinstance(a, torch.ScriptObject)]


@register_cost(*(f"{space}::{name}" for space in _QUANTIZED for name in (*_LINEAR, *_DYNAMIC)))
def _quantized_linear(call: Called) -> Work:
    x = call.inputs[0]
    found = unpacked(_objects(call.args)[0])
    if not found:
        return Work("Linear", unseen=True)
    n, k = int(found[0].shape[0]), int(x.shape[-1])
    work = product(call, (1, numel(x) // max(k, 1), n, k), len(found) > 1, "Linear")
    work.weight_bytes = packed_bytes(found, "fp16" in call.name)
    return work


@register_cost(
    *(f"quantized::linear_with_input_q_dq_qweight_dq{after}output_fp32" for after in ("_", "_relu_"))
)
def _quantized_linear_between(call: Called) -> Work:
    return _quantized_linear(call)


@register_cost(*(f"{space}::{name}" for space in _QUANTIZED for name in _CONVOLUTIONS))
def _quantized_convolution(call: Called) -> Work:
    found = unpacked(_objects(call.args)[0])
    if not found:
        return Work("Conv2d", unseen=True)
    x, out, weight = call.inputs[0], call.outputs[0], found[0]
    transposed = "transpose" in call.name
    positions = x if transposed else out
    flops = 2.0 * positions.shape[0] * prod(positions.shape[2:]) * weight.numel()
    primitive = "ConvTranspose" if transposed else f"Conv{x.dim() - 2}d"
    added = float(call.elements) if len(found) > 1 else 0.0
    return Work(primitive, flops, added, weight_bytes=packed_bytes(found))


@register_cost(
    *(f"quantized::embedding_{bits}" for bits in ("byte", "4bit")),
    *(
        f"quantized::embedding_bag_{bits}{after}"
        for bits in ("byte", "4bit", "2bit")
        for after in ("", "_rowwise_offsets")
    ),
)  # fmt: skip
def _quantized_lookup(call: Called) -> Work:
    """Rows of codes, each with its scale and zero point (8 bytes; 4 below 8 bits)."""
    bits = 8 if "byte" in call.name else 2 if "2bit" in call.name else 4
    tables = _objects(call.args)
    indices = call.inputs[0] if tables else call.inputs[1]
    width = int(call.outputs[0].shape[-1])
    row = width * bits / 8 + (8 if bits == 8 else 4)
    others = float(sum(map(nbytes, call.inputs if tables else call.inputs[1:])))
    # Two FLOPs to make a number of a code, one to add it to a bag.
    flops = (3.0 if "bag" in call.name else 2.0) * numel(indices) * width
    return Work("Embedding", 0.0, flops, None, others, numel(indices) * row)


#: FLOPs an element of operators on quantised tensors that read no weights.
_POINTWISE = {
    **dict.fromkeys(("add", "add_relu", "mul", "mul_relu", "add_scalar", "add_scalar_relu", "mul_scalar"), 1),
    **dict.fromkeys(("mul_scalar_relu", "clamp", "relu6", "leaky_relu", "hardswish", "dropout"), 1),
    **dict.fromkeys(("sigmoid", "tanh", "elu", "celu", "prelu"), 4),
}
_NORMS = {"layer_norm": 8, "group_norm": 8, "instance_norm": 8, "softmax": 5}


@register_cost(*(f"quantized::{name}" for name in (*_POINTWISE, *_NORMS)))
def _on_codes(call: Called) -> Work:
    """Codes of 8 bits in, codes of 8 bits out."""
    norm = call.name in _NORMS
    primitive = {"layer_norm": "LayerNorm", "softmax": "Softmax"}.get(call.name, "GroupNorm")
    each = _NORMS[call.name] if norm else _POINTWISE[call.name]
    return Work(primitive if norm else "Elementwise", elementwise_flops=float(each * call.elements))


@register_cost(
    *(
        f"quantized::batch_norm{kind}"
        for kind in ("", "1d", "2d", "3d", "_relu", "1d_relu", "2d_relu", "3d_relu")
    )
)
def _norm_of_codes(call: Called) -> Work:
    return Work("BatchNorm", elementwise_flops=4.0 * call.elements)


@register_cost("quantized::cat", "quantized::cat_relu")
def _joined_codes(call: Called) -> Work:
    return Work("Copy")


@register_cost("quantized::matmul")
def _quantized_matmul(call: Called) -> Work:
    a, b = call.inputs[:2]
    return product(call, (prod(a.shape[:-2]), a.shape[-2], b.shape[-1], a.shape[-1]))


@register_cost(
    "onednn::qlinear_pointwise", "mkldnn::_linear_pointwise", "mkl::_mkl_linear",
    "_quantized::wrapped_quantized_linear",
    "fbgemm_linear_int8_weight", "fbgemm_linear_int8_weight_fp32_activation", "fbgemm_linear_fp16_weight",
    "fbgemm_linear_fp16_weight_fp32_activation",
)  # fmt: skip
def _prepacked_linear(call: Called) -> Work:
    """The packed matrix hides its shape; operand and result have it."""
    x, out = call.inputs[0], call.outputs[0]
    k = int(x.shape[-1])
    return product(call, (1, numel(x) // max(k, 1), int(out.shape[-1]), k), False, "Linear")


@register_cost(
    "mkldnn::_convolution_pointwise", "mkldnn::_convolution_pointwise_", "onednn::qconv_pointwise",
    *(f"onednn::qconv{spatial}d_pointwise" for spatial in (1, 2, 3)),
)  # fmt: skip
def _prepacked_convolution(call: Called) -> Work:
    out = call.outputs[0]
    weight = next(t for t in call.inputs[1:] if t.dim() == out.dim() and t.shape[0] == out.shape[1])
    return Work(f"Conv{out.dim() - 2}d", convolution_flops(call.inputs[0], weight, out, False))


@register_cost("quantized::quantized_lstm_cell_dynamic", "quantized::quantized_gru_cell_dynamic",
               "quantized::quantized_rnn_tanh_cell_dynamic", "quantized::quantized_rnn_relu_cell_dynamic")  # fmt: skip
def _quantized_cell(call: Called) -> Work:
    """One step: both products of a row, and the gates."""
    matrices = [unpacked(packed) for packed in _objects(call.args)]
    rows = int(call.inputs[0].shape[0])
    elements = sum(tensors[0].numel() for tensors in matrices if tensors)
    gates = {"lstm": (4, 28.0), "gru": (3, 19.0)}.get(call.name.split("_")[1], (1, 5.0))
    hidden = int(call.outputs[0].shape[-1])
    return Work(
        "LSTM" if gates[0] == 4 else "RNN", 2.0 * rows * elements, rows * hidden * gates[1],
        weight_bytes=sum(map(packed_bytes, matrices)), unseen=not elements,
    )  # fmt: skip


@register_cost("quantized_lstm", "quantized_gru")
def _quantized_recurrent(call: Called) -> Work:
    """Weights of one byte (two in float16) and biases of four; their shapes are those of input and states."""
    gates, each = (4, 28.0) if call.name.endswith("lstm") else (3, 19.0)
    work, elements, biases = _recurrent(call, gates, each)
    work.weight_bytes = (2.0 if call.kwargs.get("dtype") is torch.float16 else 1.0) * elements + 4.0 * biases
    return work


@register_cost("lstm", "gru", "rnn_tanh", "rnn_relu", "_cudnn_rnn", "mkldnn_rnn_layer", "miopen_rnn")
def _fused_recurrent(call: Called) -> Work:
    """All matrices of a recurrent module in one operator: 2 FLOPs a weight and token."""
    x = call.inputs[0]
    tokens = numel(x) // max(int(x.shape[-1]), 1)
    weights = [t for t in call.inputs[1:] if t.dim() == 2]
    flops = 2.0 * tokens * sum(t.numel() for t in weights)
    rows = sum(int(t.shape[0]) for t in weights) / 2
    gates, each = (4, 28.0) if "lstm" in call.name or "rnn_layer" in call.name else (3, 19.0)
    return Work("LSTM" if gates == 4 else "RNN", flops, tokens * rows / gates * each)


def _recurrent(call: Called, gates: int, each: float) -> tuple[Work, int, int]:
    """Work, matrix elements and biases of a recurrent operator from (input, first states, ..., layers, directions)."""
    x, state = call.inputs[0], call.inputs[1] if call.inputs[1].dim() > 1 else call.inputs[2]
    directions = 2 if any(a is True for a in call.args[-2:]) and state.shape[0] % 2 == 0 else 1
    layers, hidden = int(state.shape[0]) // directions, int(state.shape[-1])
    tokens, width = numel(x) // max(int(x.shape[-1]), 1), int(x.shape[-1])
    widths = [width] + [hidden * directions] * (layers - 1)
    elements = sum(gates * hidden * (w + hidden) for w in widths) * directions
    biases = 2 * gates * hidden * layers * directions
    work = Work(
        "LSTM" if gates == 4 else "RNN", 2.0 * tokens * elements,
        tokens * (each * hidden * layers * directions + biases),
    )  # fmt: skip
    return work, elements, biases
