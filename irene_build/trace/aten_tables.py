"""Kinds of aten operations by name: which copy, which reduce a row, which cost nothing, and their FLOPs.

What is in no table here is told by torch's own tags (pointwise, reduction); the rest is ``Custom``.
"""

from __future__ import annotations

#: Floating point operations an element; every other pointwise operation counts one.
POINTWISE_FLOPS = {
    "tanh": 4, "tanh_": 4, "sigmoid": 4, "sigmoid_": 4, "exp": 4, "exp_": 4, "log": 4, "sin": 4, "cos": 4,
    "erf": 4, "log_sigmoid_forward": 5, "softplus": 5, "mish": 6, "floor_divide": 1, "floor_divide_": 1,
    "silu": 5, "silu_": 5, "gelu": 6, "elu": 5, "elu_": 5, "relu": 1, "sqrt": 1, "rsqrt": 2, "pow": 2,
    "leaky_relu": 2, "addcmul": 2, "addcmul_": 2, "lerp": 3, "polar": 8, "isin": 1, "glu": 5, "hardswish": 4,
    "hardswish_": 4, "_prelu_kernel": 2, "celu": 5, "celu_": 5, "_add_relu": 2, "rrelu_with_noise": 2,
    "fake_quantize_per_tensor_affine_cachemask": 5, "fake_quantize_per_channel_affine_cachemask": 5,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": 5, "_fused_moving_avg_obs_fq_helper": 7,
    "fake_quantize_per_tensor_affine": 5, "fake_quantize_per_channel_affine": 5,
    "_fake_quantize_learnable_per_tensor_affine": 5, "_fake_quantize_learnable_per_channel_affine": 5,
    "quantize_per_tensor": 3, "quantize_per_channel": 3, "quantize_per_tensor_dynamic": 5, "dequantize": 2,
    "_thnn_fused_lstm_cell": 28, "_thnn_fused_gru_cell": 19,
}  # fmt: skip
#: Of complex values; what is not here counts twice what real values do.
COMPLEX_FLOPS = {
    "mul": 6,
    "div": 11,
    "true_divide": 11,
    "reciprocal": 8,
    "abs": 4,
    "angle": 4,
    "sgn": 6,
    "pow": 14,
}
#: Of a row's element: what operations count that are neither pointwise nor a plain reduction.
ROWWISE = {
    "_softmax": ("Softmax", 5), "_log_softmax": ("Softmax", 5), "_safe_softmax": ("Softmax", 5),
    "native_layer_norm": ("LayerNorm", 8), "native_group_norm": ("GroupNorm", 8),
    "_fused_rms_norm": ("RMSNorm", 5), "native_batch_norm": ("BatchNorm", 4),
    "_native_batch_norm_legit_no_training": ("BatchNorm", 4), "_native_batch_norm_legit": ("BatchNorm", 4),
    "cudnn_batch_norm": ("BatchNorm", 4), "_batch_norm_with_update": ("BatchNorm", 4),
    "_batch_norm_no_update": ("BatchNorm", 4), "cumsum": ("Reduction", 1), "cumsum_": ("Reduction", 1),
    "cumprod": ("Reduction", 1), "logcumsumexp": ("Reduction", 5), "cummax": ("Reduction", 1),
    "cummin": ("Reduction", 1), "mse_loss": ("Reduction", 3), "linalg_vector_norm": ("Reduction", 2),
    "logsumexp": ("Reduction", 5), "var_mean": ("Reduction", 3), "var": ("Reduction", 3),
    "std": ("Reduction", 3), "topk": ("TopK", 0), "sort": ("TopK", 0), "argsort": ("TopK", 0),
    "median": ("TopK", 0), "nanmedian": ("TopK", 0), "kthvalue": ("TopK", 0), "mode": ("TopK", 0),
    "_weight_norm_interface": ("Reduction", 4), "histc": ("Reduction", 0), "bincount": ("Reduction", 0),
    "segment_reduce": ("Reduction", 1), "aminmax": ("Reduction", 2), "_aminmax": ("Reduction", 2),
    "renorm": ("Reduction", 3),
    "nll_loss_forward": ("Reduction", 1), "nll_loss2d_forward": ("Reduction", 1), "_ctc_loss": ("Reduction", 5),
    "_cummax_helper": ("Reduction", 1), "_cummin_helper": ("Reduction", 1), "_logcumsumexp": ("Reduction", 5),
    "_choose_qparams_per_tensor": ("Reduction", 2), "std_mean": ("Reduction", 3),
    "_is_all_true": ("Reduction", 0), "_is_any_true": ("Reduction", 0), "equal": ("Reduction", 0),
}  # fmt: skip
#: Operations that only move data.
COPIES = frozenset([
    "clone", "_to_copy", "copy", "copy_", "cat", "stack", "index", "index_put", "index_put_",
    "_index_put_impl_", "_unsafe_index", "_unsafe_index_put", "gather", "scatter", "scatter_",
    "scatter_add", "scatter_add_", "scatter_reduce", "index_add", "index_add_", "index_copy", "index_copy_",
    "index_select", "index_fill", "index_fill_", "masked_fill", "masked_fill_", "masked_scatter",
    "masked_scatter_", "masked_select", "where", "fill", "fill_", "zero", "zero_", "zeros", "ones", "full",
    "full_like", "zeros_like", "ones_like", "new_zeros", "new_ones", "new_full", "scalar_tensor", "arange",
    "linspace", "logspace", "eye", "tril", "triu", "tril_", "triu_", "tril_indices", "triu_indices",
    "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "roll", "flip", "repeat", "repeat_interleave", "nonzero", "split_with_sizes_copy",
    "unfold_copy", "im2col", "col2im", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle",
    "native_channel_shuffle", "rand", "randn", "rand_like", "randn_like", "randint", "randperm", "normal_",
    "uniform_", "bernoulli", "bernoulli_", "multinomial", "resize_", "slice_scatter", "select_scatter",
    "diagonal_scatter", "as_strided_scatter", "_conj_physical", "contiguous", "lift_fresh_copy", "take",
    "put_", "_pack_padded_sequence", "_pad_packed_sequence", "nonzero_static", "unique_consecutive",
    "_unique2", "unique_dim", "tensor_split", "bucketize", "searchsorted", "view_as_real_copy",
    "view_as_complex_copy", "_reshape_copy", "affine_grid_generator", "diag_embed", "_local_scalar_dense",
    "is_same_size", "triu_mask", "set_", "tile", "pad", "complex", "reflection_pad3d", "block_diag", "rot90",
    "max_unpool2d", "max_unpool3d", "index_reduce", "randint_like", "exponential", "geometric", "_chunk_cat",
    "_to_sparse", "_to_sparse_csr", "_to_dense", "_coalesce", "_jagged_to_padded_dense_forward", "int_repr",
    "_padded_dense_to_jagged_forward", "_nested_from_padded", "to_padded_tensor", "_nested_view_from_buffer_copy",
    "_nested_tensor_from_tensor_list", "_convert_weight_to_int4pack", "_convert_weight_to_int4pack_for_cpu",
])  # fmt: skip
#: Operations of other primitives, told by name alone.
NAMED = {
    "embedding": "Embedding", "_embedding_bag": "Embedding", "max_pool2d_with_indices": "Pool",
    "max_pool3d_with_indices": "Pool", "avg_pool2d": "Pool", "avg_pool3d": "Pool",
    "_adaptive_avg_pool2d": "Pool", "_adaptive_avg_pool3d": "Pool", "mean_pool": "Pool",
    "adaptive_max_pool2d": "Pool", "adaptive_max_pool3d": "Pool", "_upsample_nearest_exact1d": "Interpolate",
    "_upsample_nearest_exact2d": "Interpolate", "_upsample_nearest_exact3d": "Interpolate",
    "fractional_max_pool2d": "Pool", "fractional_max_pool3d": "Pool",
    "_cdist_forward": "Reduction", "_euclidean_dist": "Reduction", "_pdist_forward": "Reduction",
    "upsample_bilinear2d": "Interpolate",
    "upsample_nearest2d": "Interpolate", "upsample_bicubic2d": "Interpolate",
    "upsample_linear1d": "Interpolate", "upsample_nearest1d": "Interpolate",
    "upsample_trilinear3d": "Interpolate", "upsample_nearest3d": "Interpolate",
    "_upsample_bilinear2d_aa": "Interpolate", "_upsample_bicubic2d_aa": "Interpolate",
    "grid_sampler_2d": "Interpolate", "grid_sampler_3d": "Interpolate", "_fft_r2c": "FFT",
    "_fft_c2c": "FFT", "_fft_c2r": "FFT", "lstm": "RNN", "gru": "RNN",
}  # fmt: skip
#: Floating point operations a value that is interpolated: weights and a sum over its neighbours; nearest ones none.
INTERPOLATED = {"linear1d": 3, "bilinear2d": 7, "trilinear3d": 15, "bicubic2d": 31, "grid_sampler_2d": 7,
                "grid_sampler_3d": 15}  # fmt: skip
#: Writes into a part of their first argument: those values are written, and read before where they are added to.
WRITES_A_PART = {
    "index_put_": False, "index_put": False, "_index_put_impl_": False, "index_copy_": False, "scatter_": False,
    "index_add_": True, "scatter_add_": True,
}  # fmt: skip
#: Operations that reserve memory or read a shape: no kernel runs.
FREE = frozenset([
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted", "detach",
    "detach_", "alias", "lift", "lift_fresh", "sym_size", "sym_numel", "sym_stride", "_assert_async",
    "_assert_scalar", "_assert_tensor_metadata", "_has_compatible_shallow_copy_type", "resolve_conj",
    "resolve_neg", "_nested_tensor_size", "sym_storage_offset", "is_pinned", "unsqueeze_", "squeeze_", "t_",
    "transpose_", "as_strided_",
])  # fmt: skip
