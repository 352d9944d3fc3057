"""Names and units of node features (IrEne, Table 1, and the shape features that extend it).

The one place that says what a feature is called and what it is measured in. ``model`` features
depend on the model and its input alone; ``resource`` features are observed while it runs.
"""

#: name -> (kind, unit). The first four and the eight resource features are Table 1.
FEATURES = {
    "batch_size": ("model", "1"),
    "seq_len": ("model", "1"),
    "input_size": ("model", "1"),
    "flops": ("model", "1e6"),
    "mem_bytes": ("model", "MiB"),
    "num_parameters": ("model", "1"),
    "matmul_flops": ("model", "1e6"),
    "elementwise_flops": ("model", "1e6"),
    "weight_bytes": ("model", "MiB"),
    "read_bytes": ("model", "MiB"),
    "write_bytes": ("model", "MiB"),
    "kernels": ("model", "1"),
    "gemm_batch": ("model", "1"),
    "gemm_m": ("model", "1"),
    "gemm_n": ("model", "1"),
    "gemm_k": ("model", "1"),
    "rows": ("model", "1"),
    "cols": ("model", "1"),
    "elements": ("model", "1"),
    "bytes_per_element": ("model", "B"),
    "flops_2021": ("model", "1e6"),
    "mem_bytes_2021": ("model", "MiB"),
    "cpu_util": ("resource", "%"),
    "mem_usg": ("resource", "%"),
    "gpu_util": ("resource", "%"),
    "gm_usg": ("resource", "%"),
    "g_clk": ("resource", "MHz"),
    "gm_clk": ("resource", "MHz"),
    "latency": ("resource", "s"),
    "gpu_energy": ("resource", "J"),
}
#: What they mean, for people.
MEANINGS = {
    "batch_size": "batch size",
    "seq_len": "input tokens of one sequence",
    "input_size": "input tokens of the whole batch: batch_size times seq_len",
    "flops": "floating point operations",
    "mem_bytes": "memory read and written",
    "num_parameters": "parameters of the module, shared ones once",
    "matmul_flops": "multiply-accumulates of matrix products, times two",
    "elementwise_flops": "all other floating point operations",
    "weight_bytes": "parameters read, once a kernel",
    "read_bytes": "activations read",
    "write_bytes": "activations written",
    "kernels": "device kernels launched, as counted from the operations",
    "gemm_batch": "independent matrix products",
    "gemm_m": "rows of the product",
    "gemm_n": "columns of the product",
    "gemm_k": "length of the inner products",
    "rows": "rows that a normalisation, softmax or lookup works on",
    "cols": "length of such a row",
    "elements": "elements written",
    "bytes_per_element": "size of one activation element",
    "flops_2021": "flops as the published rows count them (imported trees only)",
    "mem_bytes_2021": "mem_bytes as the published rows count them (imported trees only)",
    "cpu_util": "CPU utilisation",
    "mem_usg": "memory usage",
    "gpu_util": "GPU processor utilisation",
    "gm_usg": "GPU memory usage",
    "g_clk": "GPU processor clock",
    "gm_clk": "GPU memory clock",
    "latency": "time of one run",
    "gpu_energy": "GPU driver energy of one run",
}

MODEL_FEATURES = tuple(n for n, (kind, _) in FEATURES.items() if kind == "model")
RESOURCE_FEATURES = tuple(n for n, (kind, _) in FEATURES.items() if kind == "resource")
#: Table 1 of the paper, in its order.
TABLE_1 = ("batch_size", "seq_len", "flops", "mem_bytes") + RESOURCE_FEATURES

#: Primitives a leaf can have. A leaf of another name is rejected when a tree is loaded, except
#: ``Custom``, under which the tracer files what it does not know.
PRIMITIVES = (
    "Linear", "LayerNorm", "Embedding", "BatchNorm1d", "Conv1d", "MaxPool1d", "AvgPool1d", "LSTM",
    "Tanh", "Conv1D", "LogSigmoid", "ReLU", "Sigmoid", "GELU", "LeakyReLU", "MatMul", "Softmax",
    "Attention", "RMSNorm", "GroupNorm", "BatchNorm", "SiLU", "Activation", "RotaryEmbedding",
    "GatedActivation", "Conv2d", "Conv3d", "ConvTranspose", "Pool", "RNN", "GroupedExperts", "StateSpaceScan",
    "TopK", "FFT", "Interpolate", "Elementwise", "Reduction", "Copy", "Custom",
)  # fmt: skip
