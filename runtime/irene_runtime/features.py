"""Names and units of node features (IrEne, Table 1, and the shape features that extend it).

The one place that says what a feature is called and what it is measured in. ``model`` features
depend on the model and its input alone; ``resource`` features are observed while it runs.
"""

#: name -> (kind, unit, meaning). The first four and the eight resource features are Table 1.
FEATURES = {
    "batch_size": ("model", "1", "batch size"),
    "seq_len": ("model", "1", "input tokens of one sequence"),
    "input_size": ("model", "1", "input tokens of the whole batch: batch_size times seq_len"),
    "flops": ("model", "1e6", "floating point operations"),
    "mem_bytes": ("model", "MiB", "memory read and written"),
    "num_parameters": ("model", "1", "parameters of the module, shared ones once"),
    "matmul_flops": ("model", "1e6", "multiply-accumulates of matrix products, times two"),
    "elementwise_flops": ("model", "1e6", "all other floating point operations"),
    "weight_bytes": ("model", "MiB", "parameters read, once a kernel"),
    "read_bytes": ("model", "MiB", "activations read"),
    "write_bytes": ("model", "MiB", "activations written"),
    "kernels": ("model", "1", "device kernels launched, as counted from the operations"),
    "gemm_batch": ("model", "1", "independent matrix products"),
    "gemm_m": ("model", "1", "rows of the product"),
    "gemm_n": ("model", "1", "columns of the product"),
    "gemm_k": ("model", "1", "length of the inner products"),
    "rows": ("model", "1", "rows that a normalisation, softmax or lookup works on"),
    "cols": ("model", "1", "length of such a row"),
    "elements": ("model", "1", "elements written"),
    "bytes_per_element": ("model", "B", "size of one activation element"),
    "flops_2021": ("model", "1e6", "flops as the published rows count them (imported trees only)"),
    "mem_bytes_2021": ("model", "MiB", "mem_bytes as the published rows count them (imported trees only)"),
    "cpu_util": ("resource", "%", "CPU utilisation"),
    "mem_usg": ("resource", "%", "memory usage"),
    "gpu_util": ("resource", "%", "GPU processor utilisation"),
    "gm_usg": ("resource", "%", "GPU memory usage"),
    "g_clk": ("resource", "MHz", "GPU processor clock"),
    "gm_clk": ("resource", "MHz", "GPU memory clock"),
    "latency": ("resource", "s", "time of one run"),
    "gpu_energy": ("resource", "J", "GPU driver energy of one run"),
}

MODEL_FEATURES = tuple(n for n, (kind, _, _) in FEATURES.items() if kind == "model")
RESOURCE_FEATURES = tuple(n for n, (kind, _, _) in FEATURES.items() if kind == "resource")
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
