"""Names and units of node features (IrEne, Table 1, and the shape features that extend it).

The one place that says what a feature is called and what it is measured in. ``model`` features
depend on the model and its input alone; ``resource`` features are observed while it runs.
"""

from typing import Dict, Tuple

#: name -> unit of what depends on the model and its input alone. batch_size, seq_len,
#: flops and mem_bytes are those of Table 1.
_MODEL = {
    "batch_size": "1", "seq_len": "1", "input_size": "1", "flops": "1e6", "mem_bytes": "MiB", "num_parameters": "1",
    "matmul_flops": "1e6", "elementwise_flops": "1e6", "weight_bytes": "MiB", "read_bytes": "MiB",
    "write_bytes": "MiB", "kernels": "1", "gemm_batch": "1", "gemm_m": "1", "gemm_n": "1", "gemm_k": "1", "rows": "1",
    "cols": "1", "elements": "1", "bytes_per_element": "B", "flops_2021": "1e6", "mem_bytes_2021": "MiB",
    "attended": "1", "unseen": "1",
    "law_time": "s", "law_energy": "J",
}  # fmt: skip
#: name -> unit of what is observed while it runs: the resource features of Table 1.
_RESOURCE = {
    "cpu_util": "%", "mem_usg": "%", "gpu_util": "%", "gm_usg": "%", "g_clk": "MHz", "gm_clk": "MHz", "latency": "s",
    "gpu_energy": "J",
}  # fmt: skip
#: name -> (kind, unit)
FEATURES: Dict[str, Tuple[str, str]] = {name: ("model", unit) for name, unit in _MODEL.items()}
FEATURES.update((name, ("resource", unit)) for name, unit in _RESOURCE.items())
MODEL_FEATURES, RESOURCE_FEATURES = tuple(_MODEL), tuple(_RESOURCE)
#: What tracing counts at every node, 0 included: where one is absent, nobody counted.
COUNTED = "flops matmul_flops elementwise_flops mem_bytes weight_bytes read_bytes write_bytes kernels".split()
#: More than the GPUs of any one machine take, W.
MAX_WATTS = 1e5
#: Table 1 of the paper, in its order.
TABLE_1 = ("batch_size", "seq_len", "flops", "mem_bytes") + RESOURCE_FEATURES

#: Primitives a leaf can have. A leaf of another name is rejected when a tree is loaded, except
#: ``Custom``, under which the tracer files what it does not know.
_NAMES = """
Linear LayerNorm Embedding BatchNorm1d Conv1d MaxPool1d AvgPool1d LSTM Tanh Conv1D LogSigmoid ReLU Sigmoid
GELU LeakyReLU MatMul Softmax Attention RMSNorm GroupNorm BatchNorm SiLU Activation RotaryEmbedding
GatedActivation Conv2d Conv3d ConvTranspose Pool RNN GroupedExperts StateSpaceScan TopK FFT Interpolate
Elementwise Reduction Copy Host Custom AllReduce
"""
PRIMITIVES = tuple(_NAMES.split())
