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
from dataclasses import dataclass
from functools import cache
from typing import Any

from . import formulas as f
from .formulas import Cost
from .ops import Costs
from .tensors import data_of, tensors_of


@dataclass(frozen=True)
class Primitive:
    """``modules``: ``package.module:Class`` whose own forward must run; ``pattern``: on the class name of a
    module without sub-modules; ``functions``: dotted names below ``torch``; ``plain``: on the name of a function of
    Python that stands beside the model's classes and is called there; ``operands``: the tensors of a
    module call in the order that ``cost(costs, operands, outputs)`` takes them; ``setting``: a number that tensors
    do not tell, of the module or function and its arguments, handed to ``cost`` as well; ``on_hollow``: the result for
    meta and fake tensors, where the operator itself would behave as no real back end does (None: call it); its second
    argument says whether ``enable_gqa`` was asked for."""

    name: str
    modules: tuple[str, ...] = ()
    pattern: str = ""
    functions: tuple[str, ...] = ()
    plain: str = ""
    cost: Callable[..., Cost] | None = None
    operands: Callable[[Any, tuple[Any, ...]], list[Any]] | None = None
    setting: Callable[[Any, tuple[Any, ...], dict[str, Any]], float] | None = None
    on_hollow: Callable[[list[Any], bool], Any] | None = None

    @property
    def as_run(self) -> Primitive:
        """This primitive as the sum of the operations that run inside it."""
        return Primitive(self.name)

    def cost_of(
        self, costs: Costs, operands: list[Any], outputs: list[Any], source: Any, args: Any, kwargs: Any
    ) -> Cost:
        """The cost of a call of ``source``, a module or a function."""
        assert self.cost is not None
        if self.name != "Attention":
            # Of sequences of different lengths: all their tokens.
            operands = [t if t is None else data_of(t) for t in operands]
            outputs = [data_of(t) for t in outputs]
        if self.setting is None:
            return self.cost(costs, operands, outputs)
        return self.cost(costs, operands, outputs, self.setting(source, args, kwargs))


_NN = "torch.nn:"
_F = "nn.functional."

PRIMITIVES: tuple[Primitive, ...] = (
    Primitive("Linear", (_NN + "Linear",), functions=(_F + "linear",), cost=f.linear, operands=f.weight_bias),
    Primitive("Conv1D", ("transformers.pytorch_utils:Conv1D",), cost=f.conv1d_gpt, operands=f.weight_bias),
    Primitive("MatMul", functions=(
        "matmul", "bmm", "mm", "addmm", "baddbmm", "einsum", "mv", "dot", "tensordot", "inner", "chain_matmul", "outer",
        "Tensor.matmul", "Tensor.__matmul__", "Tensor.__rmatmul__", "Tensor.bmm", "Tensor.mm", "Tensor.addmm",
        "Tensor.baddbmm", "linalg.multi_dot", "linalg.matmul",
    )),
    Primitive("Softmax", (_NN + "Softmax", _NN + "LogSoftmax"), functions=(
        _F + "softmax", "softmax", "Tensor.softmax", _F + "log_softmax", "log_softmax", "Tensor.log_softmax",
        "special.softmax",
    ), cost=f.rowwise(5.0), operands=f.input_only),
    Primitive("Attention", functions=(_F + "scaled_dot_product_attention",), cost=f.attention,
              setting=f.is_causal, on_hollow=f.hollow_attention),
    Primitive("LayerNorm", (_NN + "LayerNorm",), functions=(_F + "layer_norm", "layer_norm"), cost=f.rowwise(8.0),
              operands=f.weight_bias),
    Primitive("RMSNorm", (_NN + "RMSNorm",), pattern=r"RMSNorm|T5LayerNorm$|RMSLayerNorm|RmsNorm",
              functions=(_F + "rms_norm", "rms_norm")),
    Primitive("LayerNorm", pattern=r"LayerNorm"),
    Primitive("GroupNorm", (_NN + "GroupNorm",), functions=(_F + "group_norm", "group_norm")),
    Primitive("BatchNorm1d", (_NN + "BatchNorm1d",), cost=f.rowwise(4.0), operands=f.normalised),
    Primitive("BatchNorm", (_NN + "BatchNorm2d", _NN + "BatchNorm3d"), pattern=r"BatchNorm",
              functions=(_F + "batch_norm", "batch_norm"), cost=f.rowwise(4.0), operands=f.normalised),
    Primitive("Embedding", (_NN + "Embedding",), functions=(_F + "embedding", "embedding"), cost=f.embedding,
              operands=f.weight_bias),
    Primitive("Conv1d", (_NN + "Conv1d",), functions=(_F + "conv1d", "conv1d"), cost=f.convolution(False),
              operands=f.weight_bias),
    Primitive("Conv2d", (_NN + "Conv2d",), functions=(_F + "conv2d", "conv2d"), cost=f.convolution(False),
              operands=f.weight_bias),
    Primitive("Conv3d", (_NN + "Conv3d",), functions=(_F + "conv3d", "conv3d"), cost=f.convolution(False),
              operands=f.weight_bias),
    Primitive("ConvTranspose", (_NN + "ConvTranspose1d", _NN + "ConvTranspose2d", _NN + "ConvTranspose3d"), functions=(
        _F + "conv_transpose1d", _F + "conv_transpose2d", _F + "conv_transpose3d",
        "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    ), cost=f.convolution(True), operands=f.weight_bias),
    Primitive("MaxPool1d", (_NN + "MaxPool1d",), functions=(_F + "max_pool1d", "max_pool1d"), cost=f.pool,
              operands=f.input_only, setting=f.pool_window),
    Primitive("AvgPool1d", (_NN + "AvgPool1d",), functions=(_F + "avg_pool1d", "avg_pool1d"), cost=f.pool,
              operands=f.input_only, setting=f.pool_window),
    Primitive("Pool", tuple(_NN + name for name in (
        "MaxPool2d", "MaxPool3d", "AvgPool2d", "AvgPool3d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d",
        "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    )), functions=tuple(_F + name for name in (
        "max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
        "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    )), cost=f.pool, operands=f.input_only, setting=f.pool_window),
    # Sums of both products, sigmoids and tanhs of 4, and the products of gates and states.
    Primitive("LSTM", (_NN + "LSTM",), cost=f.recurrent(4, 28.0), operands=f.recurrent_operands, setting=f.steps),
    Primitive("RNN", (_NN + "GRU",), cost=f.recurrent(3, 19.0), operands=f.recurrent_operands, setting=f.steps),
    Primitive("RNN", (_NN + "RNN",), cost=f.recurrent(1, 5.0), operands=f.recurrent_operands, setting=f.steps),
    Primitive("Tanh", (_NN + "Tanh",), functions=("tanh", _F + "tanh", "Tensor.tanh"), cost=f.pointwise(4.0),
              operands=f.input_only),
    Primitive("Sigmoid", (_NN + "Sigmoid",), functions=("sigmoid", _F + "sigmoid", "Tensor.sigmoid"),
              cost=f.pointwise(4.0), operands=f.input_only),
    Primitive("LogSigmoid", (_NN + "LogSigmoid",), functions=(_F + "logsigmoid",), cost=f.pointwise(5.0),
              operands=f.input_only),
    Primitive("ReLU", (_NN + "ReLU", _NN + "ReLU6"), functions=(_F + "relu", "relu", "Tensor.relu", _F + "relu6"),
              cost=f.pointwise(1.0), operands=f.input_only),
    Primitive("LeakyReLU", (_NN + "LeakyReLU",), functions=(_F + "leaky_relu",), cost=f.pointwise(2.0),
              operands=f.input_only),
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
    """The primitive that a module is, None if it is an inner node.

    A leaf is priced by its class, so a module that runs something else than its class's ``forward`` is none: one with
    sub-modules (adapters, parametrizations), with hooks, or with a ``forward`` of its own.
    """
    if module._modules or runs_something_else(module):
        return None
    entry: Primitive | None = of_class(module.__class__)
    return entry if entry is not None else of_pattern(type(module).__name__)


def runs_something_else(module: Any) -> bool:
    """Whether calling ``module`` is more, or other, than its class's ``forward``."""
    from torch.nn.modules import module as everywhere

    own = vars(module).get("forward")
    if own is not None and getattr(own, "__func__", None) is not type(module).forward:
        return True
    # Lazy modules learn their shapes in a hook.
    before = [
        hook
        for hook in module._forward_pre_hooks.values()
        if getattr(hook, "__name__", "") != "_infer_parameters"
    ]
    return bool(
        module._forward_hooks or before
        or everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks
        or (type(module).__call__ is not everywhere.Module.__call__)
    )  # fmt: skip


def operands_of_function(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Tensors of a function call in the order of its parameters, None kept in place."""
    flat: list[Any] = [a for a in args if a is None or hasattr(a, "untyped_storage")]
    names = ("input", "query", "key", "value", "weight", "bias", "attn_mask")
    flat += [kwargs[name] for name in names if name in kwargs]
    return flat or tensors_of([args, kwargs])
