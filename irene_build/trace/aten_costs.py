"""Formulas of aten's operators: products, convolutions, attention, lookups, copies, pooling, transforms, rows."""

from __future__ import annotations

from math import log2, prod
from typing import Any

import torch

from . import attention
from .aten_tables import COPIES, INTERPOLATED, NAMED, ROWWISE, WRITES_A_PART
from .cost_registry import Called, Gemm, Work, product, register_cost
from .tensors import is_sparse, nbytes, numel, stored


def convolution_flops(x: Any, weight: Any, out: Any, transposed: bool) -> float:
    """2 x (positions of the output, or of the input if transposed) x the kernel's own elements x batch.

    Complex ones run as three real ones (of the real parts, of the imaginary ones, of their sums).
    """
    positions = x if transposed else out
    each = 6.0 if weight.is_complex() else 2.0
    return each * positions.shape[0] * prod(positions.shape[2:]) * prod(weight.shape)


def window(size: Any, spatial: int) -> int:
    """Values that a pooling with this kernel size looks at for one of its own."""
    sides = list(size) if isinstance(size, (list, tuple)) else [size]
    return int(prod(sides)) if len(sides) == spatial else int(sides[0]) ** spatial


# Products


def _sparse_product(call: Called, a: Any, b: Any, added: bool) -> Work:
    """2 FLOPs a stored value and column (or row) of the dense operand."""
    times = b.shape[-1] if is_sparse(a) else a.shape[-2]
    held = stored(a) if is_sparse(a) else stored(b)
    return Work("MatMul", 2.0 * held * int(times), float(call.elements) if added else 0.0)


@register_cost("mm", "_int_mm", "_scaled_mm", "_scaled_mm_v2", "_sparse_mm", "smm", "hspmm")
def _mm(call: Called) -> Work:
    a, b = call.inputs[:2]
    if is_sparse(a) or is_sparse(b):
        return _sparse_product(call, a, b, False)
    return product(call, (1, a.shape[0], b.shape[1], a.shape[1]))


@register_cost("addmm", "addmm_", "_addmm_activation", "sspaddmm", "_sparse_addmm")
def _addmm(call: Called) -> Work:
    a, b = call.args[1:3]
    if is_sparse(a) or is_sparse(b):
        return _sparse_product(call, a, b, True)
    return product(call, (1, a.shape[0], b.shape[1], a.shape[1]), added=True)


@register_cost("bmm")
def _bmm(call: Called) -> Work:
    a, b = call.inputs[:2]
    return product(call, (a.shape[0], a.shape[1], b.shape[2], a.shape[2]))


@register_cost("baddbmm", "baddbmm_", "addbmm", "addbmm_")
def _baddbmm(call: Called) -> Work:
    a, b = call.args[1:3]
    return product(call, (a.shape[0], a.shape[1], b.shape[2], a.shape[2]), added=True)


@register_cost("mv", "addmv", "addmv_")
def _mv(call: Called) -> Work:
    added = call.name.startswith("add")
    a = call.args[1] if added else call.args[0]
    return product(call, (1, a.shape[0], 1, a.shape[1]), added)


@register_cost("dot", "vdot", "linalg_vecdot")
def _dot(call: Called) -> Work:
    length = int(call.inputs[0].shape[-1])
    return product(call, (numel(call.inputs[0]) // max(length, 1), 1, 1, length))


@register_cost("addr", "addr_")
def _addr(call: Called) -> Work:
    return product(call, (1, call.args[1].shape[0], call.args[2].shape[0], 1), added=True)


@register_cost("matmul")
def _matmul(call: Called) -> Work:
    """Where nobody took it apart: of the dimensions before the last two, those of both are broadcast."""
    a, b = call.inputs[:2]
    k = int(a.shape[-1])
    n = int(b.shape[-1]) if b.dim() > 1 else 1
    return product(call, (1, numel(call.outputs[0]) // max(n, 1), n, k))


@register_cost("linear", "mkldnn_linear")
def _linear(call: Called) -> Work:
    x, weight = call.inputs[:2]
    gemm: Gemm = (1, numel(x) // max(int(x.shape[-1]), 1), int(weight.shape[0]), int(x.shape[-1]))
    return product(call, gemm, len(call.inputs) > 2, "Linear")


@register_cost(
    "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu", "_weight_int4pack_mm_with_scales_and_zeros",
    "_weight_int8pack_mm", "_mixed_dtypes_linear", "_dyn_quant_matmul_4bit",
)  # fmt: skip
def _packed_product(call: Called) -> Work:
    """Matrices packed to 8 or 4 bits: their shape is that of the packing, so it is taken from the result."""
    x, out = call.inputs[0], call.outputs[0]
    return product(call, (1, numel(x) // x.shape[-1], out.shape[-1], x.shape[-1]))


@register_cost("_cslt_sparse_mm", "_sparse_semi_structured_mm", "_sparse_semi_structured_linear")
def _half_product(call: Called) -> Work:
    """Two of four weights are stored: half of the dense product."""
    dense, out = (
        (call.inputs[1], call.outputs[0]) if "linear" not in call.name else (call.inputs[0], call.outputs[0])
    )
    k = int(dense.shape[-1]) if "linear" in call.name else int(dense.shape[0])
    return Work("MatMul", float(numel(out) * k))


@register_cost(
    "_grouped_mm", "_scaled_grouped_mm", "_scaled_grouped_mm_v2", "transformers::grouped_mm_fallback",
    "transformers::_grouped_mm_fallback",
)  # fmt: skip
def _grouped_mm(call: Called) -> Work:
    """Of a stack of matrices only those of experts that some token chose are read."""
    a, b = call.inputs[:2]
    rows = a.shape[0] if a.dim() == 2 else a.shape[0] * a.shape[1]
    found = product(call, (1, int(rows), int(b.shape[-1]), int(a.shape[-1])), primitive="GroupedExperts")
    if b.dim() == 3:
        found.weight_bytes = call.weight_bytes * call.chosen_experts(rows, int(b.shape[0]))
    return found


@register_cost("_trilinear")
def _trilinear(call: Called) -> Work:
    """sum_ij x1_i W_oij x2_j runs as multiplications and sums, one operand after the other."""
    x, weight = call.inputs[:2]
    outputs, first, second = (int(n) for n in weight.shape[-3:])
    batch = numel(x) // max(first, 1)
    return Work("Elementwise", elementwise_flops=2.0 * batch * outputs * second * (first + 1))


@register_cost(
    "convolution", "_convolution", "convolution_overrideable", "cudnn_convolution", "mkldnn_convolution",
    "miopen_convolution", "miopen_depthwise_convolution", "_nnpack_spatial_convolution", "conv_depthwise3d",
    "cudnn_convolution_relu", "cudnn_convolution_add_relu", "cudnn_convolution_transpose",
    "miopen_convolution_transpose", "_conv_depthwise2d", "slow_conv3d_forward", "_slow_conv2d_forward",
)  # fmt: skip
def _convolution(call: Called) -> Work:
    generic = call.name in ("convolution", "_convolution", "convolution_overrideable")
    transposed = bool(call.argument("transposed")) if generic else "transpose" in call.name
    x, weight = call.inputs[:2]
    return Work(
        "ConvTranspose" if transposed else f"Conv{max(1, weight.dim() - 2)}d",
        convolution_flops(x, weight, call.outputs[0], transposed),
        float(call.elements) if len(call.inputs) > 2 else 0.0,
    )


# Attention


def _attention(call: Called, found: attention.Attended) -> Work:
    block = found.blocks[0]
    gemm = (block.products, block.queries, block.keys, found.width) if len(found.blocks) == 1 else None
    return Work(
        "Attention", found.matmul_flops, found.softmax_flops, gemm, attended=found.shape["attended"]
    )  # fmt: skip


@register_cost(
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math",
    "_scaled_dot_product_attention_math_for_mps", "scaled_dot_product_attention", "_triton_scaled_dot_attention",
)  # fmt: skip
def _of_heads(call: Called) -> Work:
    """Laid out [batch, heads, tokens, width]."""
    q, k, v = call.args[:3]
    return _attention(call, attention.of_heads(q, k, v, causal=bool(call.argument("is_causal"))))


@register_cost("_cudnn_attention_forward")
def _cudnn(call: Called) -> Work:
    """Laid out [batch, heads, tokens, width], or [tokens, heads, width] with the ends of sequences."""
    q, k, v = (call.argument(name) for name in ("query", "key", "value"))
    causal = bool(call.argument("is_causal"))
    if call.argument("cum_seq_q") is None:
        return _attention(call, attention.of_heads(q, k, v, causal=causal))
    lengths = _lengths(call, "cum_seq_q", "cum_seq_k", "max_q", "max_k")
    return _attention(call, attention.of_sequences(q, k, v, lengths, causal))


@register_cost("_flash_attention_forward", "_flash_attention_forward_no_dropout_inplace")
def _flash(call: Called) -> Work:
    """Laid out [batch, tokens, heads, width], or [tokens, heads, width] with the ends of sequences."""
    q, k, v = (call.argument(name) for name in ("query", "key", "value"))
    sides = (call.argument("window_size_left"), call.argument("window_size_right"))
    window = (_side(sides[0]), _side(sides[1]))
    causal = bool(call.argument("is_causal"))
    if call.argument("cum_seq_q") is None:
        return _attention(call, attention.of_tokens(q, k, v, causal, window))
    lengths = _lengths(call, "cum_seq_q", "cum_seq_k", "max_q", "max_k")
    return _attention(call, attention.of_sequences(q, k, v, lengths, causal, window))


@register_cost("_efficient_attention_forward", "xformers::efficient_attention_forward_cutlass")
def _efficient(call: Called) -> Work:
    """Laid out [batch, tokens, heads, width]; with the ends of sequences all tokens are in one batch."""
    q, k, v = (call.argument(name) for name in ("query", "key", "value"))
    causal = int(call.argument("custom_mask_type") or 0) > 0
    size = call.argument("window_size")
    window = (-1 if size is None else int(size) - 1, -1)
    ends = "cu_seqlens_q" if call.argument("cu_seqlens_q") is not None else "seqstart_q"
    if call.argument(ends) is None:
        return _attention(call, attention.of_tokens(q, k, v, causal, window))
    q, k, v = (t.squeeze(0) if t.dim() == 4 else t for t in (q, k, v))
    lengths = _lengths(call, ends, f"{ends[:-1]}k", "max_seqlen_q", "max_seqlen_k")
    return _attention(call, attention.of_sequences(q, k, v, lengths, causal, window))


@register_cost("flash_attn::_flash_attn_forward", "flash_attn_3::_flash_attn_forward")
def _flash_package(call: Called) -> Work:
    """The package flash-attn, laid out [batch, tokens, heads, width]."""
    window = (_side(call.argument("window_size_left")), _side(call.argument("window_size_right")))
    q, k, v = call.args[:3]
    return _attention(call, attention.of_tokens(q, k, v, bool(call.argument("causal")), window))


@register_cost(
    "torch_attn::_varlen_attn", "torch_attn::_varlen_attn_out", "flash_attn::_flash_attn_varlen_forward"
)  # fmt: skip
def _varlen(call: Called) -> Work:
    """Laid out [tokens, heads, width] with the ends of sequences."""
    short = call.argument("q") is not None
    q, k, v = (call.argument(name) for name in (("q", "k", "v") if short else ("query", "key", "value")))
    ends = "cu_seqlens_q" if call.argument("cu_seqlens_q") is not None else "cu_seq_q"
    longest = "max_seqlen_" if call.argument("max_seqlen_q") is not None else "max_"
    lengths = _lengths(call, ends, f"{ends[:-1]}k", f"{longest}q", f"{longest}k")
    causal = bool(call.argument("is_causal") or call.argument("causal"))
    size = call.argument("window_size") or (
        call.argument("window_size_left"),
        call.argument("window_size_right"),
    )
    window = (_side(size[0]), _side(size[1]))
    return _attention(call, attention.of_sequences(q, k, v, lengths, causal, window))


def _side(size: Any) -> int:
    """A side of a window; -1 is an open one."""
    return -1 if size is None else int(size)


def _lengths(call: Called, *names: str) -> list[tuple[int, int]]:
    """Lengths of queries and keys, by the names of their ends and of the longest ones."""
    ends_q, ends_k, longest_q, longest_k = (call.argument(name) for name in names)
    ends_k = ends_q if ends_k is None else ends_k
    sides = [
        attention.lengths_of(ends, call.values(ends), int(longest or 0))
        for ends, longest in ((ends_q, longest_q), (ends_k, longest_k))
    ]
    return list(zip(*sides, strict=True))


@register_cost("_native_multi_head_attention", "_triton_multi_head_attention")
def _multi_head(call: Called) -> Work:
    """Input projections, attention and output projection of one module in one operator."""
    q, k, _, width, heads = call.args[:5]
    return _encoder_attention(numel(q) // int(width), int(k.shape[-2]), int(width), int(heads))


@register_cost("_transformer_encoder_layer_fwd")
def _encoder_layer(call: Called) -> Work:
    """A whole layer: attention, two norms of 8 FLOPs a value, two products with an activation in between."""
    x, width, heads = call.args[0], int(call.args[1]), int(call.args[2])
    tokens = numel(x) // width
    inner = int(call.argument("ffn_weight_1").shape[0])
    found = _encoder_attention(tokens, int(x.shape[-2]), width, heads)
    found.matmul_flops += 4.0 * tokens * width * inner
    gelu = bool(call.argument("use_gelu"))
    found.elementwise_flops += tokens * (2.0 * (8 + 1) * width + width + inner * (1 + (6 if gelu else 1)))
    return found


def _encoder_attention(tokens: int, keys: int, width: int, heads: int) -> Work:
    scores = tokens * keys * heads
    return Work(
        "Attention", 8.0 * tokens * width * width + 4.0 * scores * (width // heads),
        4.0 * tokens * width + 5.0 * scores, attended=scores,
    )  # fmt: skip


# Lookups, copies, writes into a part


@register_cost(
    *(name for name, primitive in NAMED.items() if primitive == "Embedding"), "_embedding_bag_forward_only"
)
def _lookup(call: Called) -> Work:
    """The rows that are picked are read; a bag adds them up, one FLOP a value (two where they are weighted)."""
    table, indices = call.inputs[:2]
    rows = numel(indices) * table.element_size() * prod(table.shape[1:])
    others = float(sum(nbytes(t) for t in call.inputs[1:]))
    bag = "bag" in call.name
    flops = float(numel(indices) * prod(table.shape[1:])) if bag else 0.0
    if bag and call.argument("per_sample_weights") is not None:
        flops *= 2.0
    write = nbytes(call.outputs[0]) if bag else call.write_bytes
    read, weight = (others, float(rows)) if call.weights else (others + rows, 0.0)
    return Work("Embedding", 0.0, flops, None, read, weight, float(write))


_PICKS = ("index", "gather", "index_select", "take", "_unsafe_index")


@register_cost(*(name for name in COPIES if name not in _PICKS and name not in WRITES_A_PART))
def _copy(call: Called) -> Work:
    if call.name in ("copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_") and call.inputs:
        return Work("Copy", read_bytes=float(sum(map(nbytes, call.inputs[1:]))), weight_bytes=0.0)
    return Work("Copy")


@register_cost(*_PICKS)
def _pick(call: Called) -> Work:
    """A lookup reads what it picks, not the whole table."""
    others = float(sum(map(nbytes, call.inputs[1:])))
    if call.weights:
        return Work("Copy", read_bytes=others, weight_bytes=call.write_bytes)
    return Work("Copy", read_bytes=others + call.write_bytes, weight_bytes=0.0)


@register_cost(*(name for name in WRITES_A_PART if name in COPIES))
def _write_part(call: Called) -> Work:
    written = _part_written(call)
    others = float(sum(map(nbytes, call.inputs[1:])))
    adds = WRITES_A_PART[call.name] or (call.name.startswith("index_put") and call.args[-1] is True)
    return Work(
        "Copy", read_bytes=others + (written if adds else 0.0), weight_bytes=0.0, write_bytes=written
    )  # fmt: skip


def _part_written(call: Called) -> float:
    """Bytes that land in the first tensor. Boolean masks pick nobody knows how many: all of it is the most."""
    target, last = call.inputs[0], call.inputs[-1]
    if "index_put" in call.name:
        picks = [(d, index) for d, index in enumerate(call.args[1]) if index is not None]
        if any(index.dtype == torch.bool for _, index in picks):
            count = target.numel()
        else:
            each = prod(n for d, n in enumerate(target.shape) if d not in dict(picks))
            count = prod(torch.broadcast_shapes(*(index.shape for _, index in picks))) * each
    else:
        count = call.inputs[1].numel() if call.name.startswith("scatter") else last.numel()
    return float(count * target.element_size())


# Rows, pooling, transforms, interpolation, distances


@register_cost(*ROWWISE)
def _rows(call: Called) -> Work:
    primitive, per_element = ROWWISE[call.name]
    return Work(
        primitive, elementwise_flops=float(per_element * numel(call.inputs[0])) if call.is_floating else 0.0
    )


@register_cost(*(name for name, primitive in NAMED.items() if primitive == "Pool"))
def _pool(call: Called) -> Work:
    flops = float(numel(call.inputs[0]))
    if "adaptive" not in call.name:
        flops = float(numel(call.outputs[0]) * window(call.args[1], 3 if "3d" in call.name else 2))
    return Work("Pool", elementwise_flops=flops if call.is_floating else 0.0)


@register_cost("_fft_r2c", "_fft_c2c", "_fft_c2r")
def _transform(call: Called) -> Work:
    """5 n log2 n for n complex values (Cooley and Tukey), the half of it for real ones."""
    side = call.outputs[0] if call.name == "_fft_c2r" else call.inputs[0]
    length = prod(side.shape[d] for d in call.args[1])
    each = 5.0 if call.name == "_fft_c2c" else 2.5
    return Work("FFT", elementwise_flops=each * numel(side) * log2(max(length, 1)))


@register_cost("_cdist_forward", "_euclidean_dist", "_pdist_forward")
def _distance(call: Called) -> Work:
    return Work("Reduction", elementwise_flops=3.0 * numel(call.outputs[0]) * int(call.inputs[0].shape[-1]))


@register_cost(*(name for name, primitive in NAMED.items() if primitive == "Interpolate"))
def _interpolate(call: Called) -> Work:
    each = next((n for method, n in INTERPOLATED.items() if method in call.name), 0)
    return Work("Interpolate", elementwise_flops=float(each * numel(call.outputs[0])))
