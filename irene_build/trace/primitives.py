"""The registry of ML primitives: one entry each says how it is recognised and what it costs.

A primitive is recognised as a module (by the class whose ``forward`` runs, or by a pattern on the
class name) or as a call of a function. ``cost`` computes it from shapes at the level of that call;
an entry without ``cost`` is the sum of the aten operations that ran inside it. What a backend runs
inside an operator (fused attention, LSTM) differs between machines, so those must have a ``cost``.

To add one: write an entry here and its name in ``irene_runtime.features.PRIMITIVES``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

from .ops import Costs, attention_flops, convolution_flops, tensors_of


@dataclass
class Cost:
    """What a leaf costs: absolute FLOPs and bytes, and the shape features of its kind."""

    matmul_flops: float = 0.0
    elementwise_flops: float = 0.0
    read_bytes: float = 0.0
    write_bytes: float = 0.0
    weight_bytes: float = 0.0
    kernels: float = 1.0
    shape: dict[str, float] = field(default_factory=dict)
    weights: tuple[int, ...] = ()


@dataclass(frozen=True)
class Primitive:
    """``modules``: ``package.module:Class`` whose own forward must run; ``pattern``: on the class name of a
    module without sub-modules; ``functions``: dotted names below ``torch``; ``plain``: on the name of a function of
    Python that stands beside the model's classes and is called there; ``operands``: the tensors of a
    module call in the order that ``cost(costs, operands, outputs)`` takes them; ``on_hollow``: the result for
    meta and fake tensors, where the operator itself would behave as no real back end does (None: call it); its second
    argument says whether ``enable_gqa`` was asked for."""

    name: str
    modules: tuple[str, ...] = ()
    pattern: str = ""
    functions: tuple[str, ...] = ()
    plain: str = ""
    cost: Callable[[Costs, list[Any], list[Any]], Cost] | None = None
    operands: Callable[[Any, tuple[Any, ...]], list[Any]] | None = None
    on_hollow: Callable[[list[Any], bool], Any] | None = None


def _moved(costs: Costs, operands: list[Any], outputs: list[Any], **values: Any) -> Cost:
    """A cost whose bytes are: every operand read once, every output written once."""
    read, weight, ids = costs.traffic([t for t in operands if t is not None])
    write = float(sum(t.numel() * t.element_size() for t in outputs))
    return Cost(read_bytes=read, weight_bytes=weight, write_bytes=write, weights=ids, **values)


def _weight_bias(module: Any, args: tuple[Any, ...]) -> list[Any]:
    return [args[0], module.weight, getattr(module, "bias", None)]


def _input_only(module: Any, args: tuple[Any, ...]) -> list[Any]:
    return [args[0]]


def _linear(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
    """x[..., k] w[n, k] + b: 2 m n k, and m n for the bias."""
    x, weight = operands[0], operands[1]
    k = int(x.shape[-1])
    m = x.numel() // max(k, 1)
    n = int(weight.shape[0]) if weight.dim() == 2 else 1
    bias = m * n if len(operands) > 2 and operands[2] is not None else 0
    gemm = {"gemm_batch": 1, "gemm_m": m, "gemm_n": n, "gemm_k": k}
    return _moved(
        costs, operands, outputs, matmul_flops=2.0 * m * n * k, elementwise_flops=float(bias), shape=gemm
    )


def _conv1d_gpt(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
    """GPT's Conv1D is a Linear with its weight stored as [k, n]."""
    x, weight = operands[0], operands[1]
    k, n = (int(size) for size in weight.shape)
    m = x.numel() // max(k, 1)
    gemm = {"gemm_batch": 1, "gemm_m": m, "gemm_n": n, "gemm_k": k}
    return _moved(
        costs, operands, outputs, matmul_flops=2.0 * m * n * k, elementwise_flops=float(m * n), shape=gemm
    )


def _rowwise(per_element: float) -> Callable[[Costs, list[Any], list[Any]], Cost]:
    """``per_element`` FLOPs an element of the input, worked on in rows of its last dimension."""

    def cost(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
        x = operands[0]
        cols = int(x.shape[-1]) if x.dim() else 1
        shape = {"rows": x.numel() // max(cols, 1), "cols": cols}
        return _moved(costs, operands, outputs, elementwise_flops=per_element * x.numel(), shape=shape)

    return cost


def _pointwise(per_element: float) -> Callable[[Costs, list[Any], list[Any]], Cost]:
    def cost(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
        return _moved(costs, operands[:1], outputs, elementwise_flops=per_element * operands[0].numel())

    return cost


def _embedding(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
    """A lookup reads indices and the picked rows."""
    indices = operands[0]
    made = _moved(costs, operands[:1], outputs)
    made.weight_bytes += made.write_bytes
    made.weights = costs.traffic(operands[1:2])[2]
    made.shape = {"rows": int(indices.numel()), "cols": int(operands[1].shape[-1])}
    return made


def _convolution(transposed: bool) -> Callable[[Costs, list[Any], list[Any]], Cost]:
    def cost(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
        x, weight, out = operands[0], operands[1], outputs[0]
        spatial = weight.dim() - 2
        if x.dim() == spatial + 1:
            x, out = x.unsqueeze(0), out.unsqueeze(0)
        flops = convolution_flops(x, weight, out, transposed)
        bias = out.numel() if len(operands) > 2 and operands[2] is not None else 0
        return _moved(costs, operands, outputs, matmul_flops=flops, elementwise_flops=float(bias))

    return cost


def _attention(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
    """Fused softmax(q k' + mask) v: two products and a softmax, scores are never written to memory."""
    q, k, v = operands[:3]
    rows, cols = prod(q.shape[:-1]), int(k.shape[-2])
    shape = {
        "rows": rows, "cols": cols, "gemm_batch": prod(q.shape[:-2]), "gemm_m": int(q.shape[-2]),
        "gemm_n": cols, "gemm_k": int(q.shape[-1]),
    }  # fmt: skip
    flops = attention_flops(q, k, v)
    return _moved(
        costs, operands[:4], outputs, matmul_flops=flops, elementwise_flops=5.0 * rows * cols, shape=shape
    )


def _hollow_attention(operands: list[Any], grouped: bool) -> Any:
    """The fused kernel of the CPU lays its result out as the query is; what it does not take runs as products.

    It takes four dimensions, rows without gaps, one width, one number of heads (unless ``grouped``), and a
    mask of two or four dimensions (torch's ``sdp_utils_cpp``).
    """
    import torch

    query, key, value = operands[:3]
    mask = operands[3] if len(operands) > 3 else None
    fused = (
        query.dim() == 4
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and all(t.stride(-1) == 1 for t in (query, key, value))
        and query.shape[0] == key.shape[0] == value.shape[0]
        and (grouped or query.shape[1] == key.shape[1] == value.shape[1])
        and (mask is None or (mask.dim() in (2, 4) and not mask.requires_grad))
    )
    return torch.empty_like(query) if fused else query.new_empty((*query.shape[:-1], value.shape[-1]))


def _pool(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
    return _moved(costs, operands[:1], outputs, elementwise_flops=float(operands[0].numel()))


def _recurrent_operands(module: Any, args: tuple[Any, ...]) -> list[Any]:
    return [args[0], *module.parameters()]


def _recurrent(gates: int) -> Callable[[Costs, list[Any], list[Any]], Cost]:
    """Per token and layer: gates x 2 x (input + hidden) x hidden, and about 10 FLOPs a hidden value."""

    def cost(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
        x = operands[0]
        tokens = x.numel() // max(int(x.shape[-1]), 1)
        matrices = [w for w in operands[1:] if w.dim() == 2]
        flops = 2.0 * tokens * sum(w.numel() for w in matrices)
        hidden = sum(int(w.shape[0]) for w in matrices) / max(2 * gates, 1)
        made = _moved(costs, operands, outputs, matmul_flops=flops, elementwise_flops=10.0 * tokens * hidden)
        made.kernels = (
            float(len(matrices)) / 2 * (int(x.shape[1 if x.dim() == 3 else 0]) if x.dim() > 1 else 1)
        )
        return made

    return cost


_NN = "torch.nn:"
_F = "nn.functional."
_ACT = "transformers.activations:"

PRIMITIVES: tuple[Primitive, ...] = (
    Primitive("Linear", (_NN + "Linear",), functions=(_F + "linear",), cost=_linear, operands=_weight_bias),
    Primitive("Conv1D", ("transformers.pytorch_utils:Conv1D",), cost=_conv1d_gpt, operands=_weight_bias),
    Primitive("MatMul", functions=(
        "matmul", "bmm", "mm", "addmm", "baddbmm", "einsum", "mv", "dot", "tensordot", "inner", "chain_matmul", "outer",
        "Tensor.matmul", "Tensor.__matmul__", "Tensor.__rmatmul__", "Tensor.bmm", "Tensor.mm", "Tensor.addmm",
        "Tensor.baddbmm", "linalg.multi_dot", "linalg.matmul",
    )),
    Primitive("Softmax", (_NN + "Softmax", _NN + "LogSoftmax"), functions=(
        _F + "softmax", "softmax", "Tensor.softmax", _F + "log_softmax", "log_softmax", "Tensor.log_softmax",
        "special.softmax",
    ), cost=_rowwise(5.0), operands=_input_only),
    Primitive("Attention", functions=(_F + "scaled_dot_product_attention",), cost=_attention,
              on_hollow=_hollow_attention),
    Primitive("LayerNorm", (_NN + "LayerNorm",), functions=(_F + "layer_norm", "layer_norm"), cost=_rowwise(8.0),
              operands=_weight_bias),
    Primitive("RMSNorm", (_NN + "RMSNorm",), pattern=r"RMSNorm|T5LayerNorm$|RMSLayerNorm|RmsNorm",
              functions=(_F + "rms_norm", "rms_norm")),
    Primitive("LayerNorm", pattern=r"LayerNorm"),
    Primitive("GroupNorm", (_NN + "GroupNorm",), functions=(_F + "group_norm", "group_norm")),
    Primitive("BatchNorm1d", (_NN + "BatchNorm1d",), cost=_rowwise(4.0), operands=_weight_bias),
    Primitive("BatchNorm", (_NN + "BatchNorm2d", _NN + "BatchNorm3d"), pattern=r"BatchNorm",
              functions=(_F + "batch_norm", "batch_norm"), cost=_rowwise(4.0), operands=_weight_bias),
    Primitive("Embedding", (_NN + "Embedding",), functions=(_F + "embedding", "embedding"), cost=_embedding,
              operands=_weight_bias),
    Primitive("Conv1d", (_NN + "Conv1d",), functions=(_F + "conv1d", "conv1d"), cost=_convolution(False),
              operands=_weight_bias),
    Primitive("Conv2d", (_NN + "Conv2d",), functions=(_F + "conv2d", "conv2d"), cost=_convolution(False),
              operands=_weight_bias),
    Primitive("Conv3d", (_NN + "Conv3d",), functions=(_F + "conv3d", "conv3d"), cost=_convolution(False),
              operands=_weight_bias),
    Primitive("ConvTranspose", (_NN + "ConvTranspose1d", _NN + "ConvTranspose2d", _NN + "ConvTranspose3d"), functions=(
        _F + "conv_transpose1d", _F + "conv_transpose2d", _F + "conv_transpose3d",
        "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    ), cost=_convolution(True), operands=_weight_bias),
    Primitive("MaxPool1d", (_NN + "MaxPool1d",), functions=(_F + "max_pool1d",), cost=_pool, operands=_input_only),
    Primitive("AvgPool1d", (_NN + "AvgPool1d",), functions=(_F + "avg_pool1d",), cost=_pool, operands=_input_only),
    Primitive("Pool", tuple(_NN + name for name in (
        "MaxPool2d", "MaxPool3d", "AvgPool2d", "AvgPool3d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d",
        "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    )), functions=tuple(_F + name for name in (
        "max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
        "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    )), cost=_pool, operands=_input_only),
    Primitive("LSTM", (_NN + "LSTM",), cost=_recurrent(4), operands=_recurrent_operands),
    Primitive("RNN", (_NN + "GRU", _NN + "RNN"), cost=_recurrent(3), operands=_recurrent_operands),
    Primitive("Tanh", (_NN + "Tanh",), functions=("tanh", _F + "tanh", "Tensor.tanh"), cost=_pointwise(4.0),
              operands=_input_only),
    Primitive("Sigmoid", (_NN + "Sigmoid",), functions=("sigmoid", _F + "sigmoid", "Tensor.sigmoid"),
              cost=_pointwise(4.0), operands=_input_only),
    Primitive("LogSigmoid", (_NN + "LogSigmoid",), functions=(_F + "logsigmoid",), cost=_pointwise(5.0),
              operands=_input_only),
    Primitive("ReLU", (_NN + "ReLU", _NN + "ReLU6"), functions=(_F + "relu", "relu", "Tensor.relu", _F + "relu6"),
              cost=_pointwise(1.0), operands=_input_only),
    Primitive("LeakyReLU", (_NN + "LeakyReLU",), functions=(_F + "leaky_relu",), cost=_pointwise(2.0),
              operands=_input_only),
    Primitive("GELU", (_NN + "GELU",), pattern=r"GELU", functions=(_F + "gelu",)),
    Primitive("SiLU", (_NN + "SiLU",), pattern=r"SiLU|Swish", functions=(_F + "silu", "silu")),
    Primitive("GatedActivation", (_NN + "GLU",), functions=(_F + "glu",)),
    Primitive("Activation", tuple(_NN + name for name in (
        "ELU", "CELU", "SELU", "Mish", "Softplus", "Softsign", "Hardtanh", "Hardswish", "Hardsigmoid", "PReLU",
        "Tanhshrink",
    )), pattern=r"Activation$", functions=tuple(_F + name for name in (
        "elu", "celu", "selu", "mish", "softplus", "hardtanh", "hardswish", "hardsigmoid", "prelu",
    ))),
    Primitive("RotaryEmbedding", pattern=r"Rotary\w*Embedding|RotaryPos|RoPE",
              plain=r"^_?(vision_)?apply_(multidimensional_)?(rotary|rope)"),
    # What a fused kernel does in one piece runs here as its reference: the sum of its operations.
    Primitive("StateSpaceScan", plain=r"selective_scan|chunk_scan$|selective_state_update|_gated_delta_rule$"),
    Primitive("GroupedExperts", pattern=r"Experts$"),
    Primitive("TopK", functions=("topk", "Tensor.topk", "sort", "Tensor.sort", "argsort", "Tensor.argsort")),
    Primitive("FFT", functions=(
        *(f"fft.{way}{name}" for way in ("", "i") for name in ("fft", "rfft", "fft2", "fftn", "rfft2", "rfftn")),
        "stft", "istft",
    )),
    Primitive("Interpolate", (_NN + "Upsample",), functions=(_F + "interpolate", _F + "grid_sample")),
)  # fmt: skip

#: Modules that do nothing when a model is evaluated; dropped unless they run an operation after all.
_NOTHING = re.compile(r"Dropout|DropPath|^Identity$|StochasticDepth")


#: Activations whose product with another tensor is a gated activation (GLU, Shazeer 2020, table 1).
GATES = frozenset(("SiLU", "GELU", "ReLU", "Sigmoid", "Activation"))


@cache
def of_plain_function(name: str) -> Primitive | None:
    """The primitive that a function of Python is, by its name."""
    return next((entry for entry in PRIMITIVES if entry.plain and re.search(entry.plain, name)), None)


@cache
def function_table() -> dict[Any, Primitive]:
    """Callable -> primitive, for the functions that this version of torch has."""
    import torch

    table: dict[Any, Primitive] = {}
    for entry in PRIMITIVES:
        for dotted in entry.functions:
            target: Any = torch
            for part in dotted.split("."):
                target = getattr(target, part, None)
            if target is not None:
                table[target] = entry
    return table


@cache
def _class_table() -> dict[str, Primitive]:
    table = {}
    for entry in PRIMITIVES:
        for dotted in entry.modules:
            package, _, name = dotted.partition(":")
            table[f"{'torch.nn.modules' if package == 'torch.nn' else package}:{name}"] = entry
    return table


def _table_key(kind: type) -> str:
    package = kind.__module__
    return f"{'torch.nn.modules' if package.startswith('torch.nn.modules.') else package}:{kind.__name__}"


@cache
def of_class(kind: Any) -> Primitive | None:
    """The entry whose class gives ``kind`` its forward; a subclass with a forward of its own is no primitive."""
    for base in kind.__mro__:
        entry = _class_table().get(_table_key(base))
        if entry is not None and kind.forward is base.forward:
            return entry
        if "forward" in vars(base):
            break
    return None


@cache
def of_pattern(name: str) -> Primitive | None:
    for entry in PRIMITIVES:
        if entry.pattern and re.search(entry.pattern, name):
            # The pattern's entry sums its operations: an analytic cost knows the class's forward, not this one.
            return Primitive(entry.name, pattern=entry.pattern)
    return None


def of_module(module: Any) -> Primitive | None:
    """The primitive that a module is, None if it is an inner node."""
    kind: Any = type(module)
    entry: Primitive | None = of_class(kind)
    if entry is None and not module._modules:
        entry = of_pattern(type(module).__name__)
    return entry


def does_nothing(module: Any) -> bool:
    return bool(_NOTHING.search(type(module).__name__))


def operands_of_function(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Tensors of a function call in the order of its parameters, None kept in place."""
    flat: list[Any] = [a for a in args if a is None or hasattr(a, "untyped_storage")]
    names = ("input", "query", "key", "value", "weight", "bias", "attn_mask")
    flat += [kwargs[name] for name in names if name in kwargs]
    return flat or tensors_of([args, kwargs])
