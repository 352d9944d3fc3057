"""FLOPs and bytes of every primitive of the registry, against numbers worked out by hand from its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional

from irene_build.trace import trace
from irene_build.trace.primitives import PRIMITIVES
from irene_runtime.features import PRIMITIVES as NAMES


class Case(NamedTuple):
    """Values counted: FLOPs of matrix products and others; elements (4 bytes each) read, of weights, written."""

    primitive: str
    module: Callable[[], nn.Module]
    inputs: dict[str, tuple[int, ...]]
    matmul: float
    other: float
    read: float
    weight: float
    write: float


class Fn(nn.Module):
    """A function of torch as a module, with weights of the given shapes behind its inputs."""

    def __init__(self, function: Callable[..., Any], *weights: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in weights])

    def forward(self, **inputs: Any) -> Any:
        return self.function(*inputs.values(), *self.weights)


class Experts(nn.Module):
    """Tokens [t, w] to two of four experts [w, w] each, as transformers' grouped ones."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(4, 8, 8))

    def forward(self, x: torch.Tensor, chosen: torch.Tensor) -> Any:
        ends = torch.tensor([1, 2, 3, 6], dtype=torch.int32)
        return torch._grouped_mm(x.repeat_interleave(2, 0), self.up, offs=ends)


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = Experts()

    def forward(self, x: torch.Tensor) -> Any:
        return self.experts(x, torch.zeros((3, 2), dtype=torch.long))


def apply_rotary_pos_emb(x: Any, cos: Any) -> Any:
    return x * cos + x * cos


def mamba_selective_scan(x: Any, y: Any) -> Any:
    return (x + y) * y


def _gated(gate: Any, up: Any) -> Any:
    return functional.silu(gate) * up


IMAGE, SOUND = {"input": (2, 3, 6, 6)}, {"input": (2, 3, 6)}
X = {"input": (2, 8)}
CASES = {
    "Linear": Case("Linear", lambda: nn.Linear(8, 5), {"input": (2, 3, 8)}, 2 * 6 * 5 * 8, 30, 48, 45, 30),
    "linear": Case("Linear", lambda: Fn(functional.linear, (5, 8)), X, 2 * 2 * 5 * 8, 0, 16, 40, 10),
    "Conv1D": Case("Conv1D", lambda: _conv1d_gpt(), {"x": (2, 3, 8)}, 2 * 6 * 5 * 8, 30, 48, 45, 30),
    "matmul": Case("MatMul", lambda: Fn(torch.matmul), {"a": (2, 3, 4), "b": (2, 4, 5)}, 240, 0, 64, 0, 30),
    "bmm": Case("MatMul", lambda: Fn(torch.bmm), {"a": (2, 3, 4), "b": (2, 4, 5)}, 240, 0, 64, 0, 30),
    "einsum": Case(
        "MatMul", lambda: Fn(lambda a, b: torch.einsum("bik,bkj->bij", a, b)), {"a": (2, 3, 4), "b": (2, 4, 5)},
        240, 0, 64, 0, 30,
    ),
    "addbmm": Case(
        "MatMul", lambda: Fn(torch.addbmm), {"c": (3, 5), "a": (2, 3, 4), "b": (2, 4, 5)}, 240, 15, 79, 0, 15
    ),
    "addmv": Case("MatMul", lambda: Fn(torch.addmv), {"c": (3,), "a": (3, 4), "b": (4,)}, 24, 3, 19, 0, 3),
    "Softmax": Case("Softmax", lambda: nn.Softmax(-1), X, 0, 5 * 16, 16, 0, 16),
    "log_softmax": Case("Softmax", lambda: Fn(lambda x: x.log_softmax(-1)), X, 0, 5 * 16, 16, 0, 16),
    # 4 query heads share 2 of keys: 2 products of 2 m n k for each head of the query; scores stay on the chip.
    "Attention": Case(
        "Attention",
        lambda: Fn(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)),
        {"q": (1, 4, 3, 8), "k": (1, 2, 5, 8), "v": (1, 2, 5, 8)}, 2 * 4 * 3 * 5 * 16, 5 * 4 * 3 * 5, 256, 0, 96,
    ),
    "LayerNorm": Case("LayerNorm", lambda: nn.LayerNorm(8), X, 0, 8 * 16, 16, 16, 16),
    "layer_norm": Case("LayerNorm", lambda: Fn(lambda x: functional.layer_norm(x, (8,))), X, 0, 128, 16, 0, 16),
    # Each of its operations: square, mean, epsilon, root, two products.
    "RMSNorm": Case("RMSNorm", lambda: _rms_norm(), {"hidden_states": (2, 8)}, 0, 32 + 16 + 2 + 4 + 16 + 16,
                    16 + 16 + 2 + 2 + 18 + 16, 8, 16 + 2 + 2 + 2 + 16 + 16),
    "GroupNorm": Case("GroupNorm", lambda: nn.GroupNorm(1, 3), SOUND, 0, 8 * 36, 36, 6, 36 + 4),
    "BatchNorm1d": Case("BatchNorm1d", lambda: nn.BatchNorm1d(3), SOUND, 0, 4 * 36, 36 + 6, 6, 36),
    "BatchNorm": Case("BatchNorm", lambda: nn.BatchNorm2d(3), IMAGE, 0, 4 * 216, 216 + 6, 6, 216),
    # Padding of one on both sides: 6 positions, 3 x 3 weights an output channel.
    "Conv1d": Case("Conv1d", lambda: nn.Conv1d(3, 4, 3, padding=1), SOUND, 2 * 12 * 36, 48, 36, 40, 48),
    "depthwise": Case("Conv1d", lambda: nn.Conv1d(3, 3, 3, padding=1, groups=3), SOUND, 2 * 12 * 9, 36, 36, 12, 36),
    "Conv2d": Case("Conv2d", lambda: nn.Conv2d(3, 4, 2, 2, bias=False), IMAGE, 2 * 18 * 48, 0, 216, 48, 72),
    "Conv3d": Case("Conv3d", lambda: nn.Conv3d(1, 2, 2), {"input": (1, 1, 3, 3, 3)}, 2 * 8 * 16, 16, 27, 18, 16),
    "ConvTranspose": Case(
        "ConvTranspose", lambda: nn.ConvTranspose1d(3, 4, 2, 2), SOUND, 2 * 12 * 24, 2 * 4 * 12, 36, 28, 96
    ),
    # 4 windows of 3.
    "MaxPool1d": Case("MaxPool1d", lambda: nn.MaxPool1d(3, 1), SOUND, 0, 24 * 3, 36, 0, 24),
    "AvgPool1d": Case("AvgPool1d", lambda: nn.AvgPool1d(2), SOUND, 0, 18 * 2, 36, 0, 18),
    "Pool": Case("Pool", lambda: nn.MaxPool2d(3, 1), IMAGE, 0, 2 * 3 * 16 * 9, 216, 0, 96),
    "avg_pool2d": Case("Pool", lambda: Fn(lambda x: functional.avg_pool2d(x, (3, 2))), IMAGE, 0, 216, 216, 0, 36),
    "adaptive": Case("Pool", lambda: nn.AdaptiveAvgPool2d(1), IMAGE, 0, 216, 216, 0, 6),
    # 10 tokens, 4 gates of 4 from 3 and from 4, twice as many biases; the last states are written as well.
    "LSTM": Case("LSTM", lambda: nn.LSTM(3, 4), {"input": (5, 2, 3)}, 2 * 10 * 112, 10 * (28 * 4 + 32), 30, 144, 56),
    "GRU": Case("RNN", lambda: nn.GRU(3, 4), {"input": (5, 2, 3)}, 2 * 10 * 84, 10 * (19 * 4 + 24), 30, 108, 48),
    "RNN": Case("RNN", lambda: nn.RNN(3, 4), {"input": (5, 2, 3)}, 2 * 10 * 28, 10 * (5 * 4 + 8), 30, 36, 48),
    "Tanh": Case("Tanh", nn.Tanh, X, 0, 64, 16, 0, 16),
    "Sigmoid": Case("Sigmoid", nn.Sigmoid, X, 0, 64, 16, 0, 16),
    "LogSigmoid": Case("LogSigmoid", nn.LogSigmoid, X, 0, 80, 16, 0, 16),
    "ReLU": Case("ReLU", nn.ReLU, X, 0, 16, 16, 0, 16),
    "LeakyReLU": Case("LeakyReLU", nn.LeakyReLU, X, 0, 32, 16, 0, 16),
    "GELU": Case("GELU", nn.GELU, X, 0, 96, 16, 0, 16),
    "SiLU": Case("SiLU", nn.SiLU, X, 0, 80, 16, 0, 16),
    "gate": Case("GatedActivation", lambda: Fn(_gated), {"a": (2, 8), "b": (2, 8)}, 0, 16, 32, 0, 16),
    "GLU": Case("GatedActivation", nn.GLU, X, 0, 5 * 8, 16, 0, 8),
    "Hardswish": Case("Activation", nn.Hardswish, X, 0, 64, 16, 0, 16),
    "PReLU": Case("Activation", nn.PReLU, X, 0, 32, 16, 1, 16),
    "RotaryEmbedding": Case(
        "RotaryEmbedding", lambda: Fn(lambda *a: apply_rotary_pos_emb(*a)), {"x": (2, 8), "cos": (1, 8)},
        0, 48, 24 + 24 + 32, 0, 48,
    ),
    "StateSpaceScan": Case(
        "StateSpaceScan", lambda: Fn(lambda *a: mamba_selective_scan(*a)), {"x": (2, 8), "y": (2, 8)},
        0, 32, 64, 0, 32,
    ),
    # Three tokens, two of four experts each: 1 - (1 - 2/4)^3 of the weights. Tokens are copied for each of theirs.
    "GroupedExperts": Case(
        "GroupedExperts", Mixture, {"x": (3, 8)}, 2 * 6 * 8 * 8, 0, 24 + 48 + 4, 4 * 64 * 7 / 8, 48 + 48
    ),
    # Two values and two indices of 8 bytes a row; comparing is no arithmetic.
    "TopK": Case("TopK", lambda: Fn(lambda x: torch.topk(x, 2)), X, 0, 0, 16, 0, 4 + 2 * 4),
    # 5/2 n log2 n for n real values; five complex ones a row are left.
    "FFT": Case("FFT", lambda: Fn(torch.fft.rfft), X, 0, 2.5 * 16 * 3, 16, 0, 2 * 2 * 5),
    "bilinear": Case(
        "Interpolate", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE, 0, 7 * 864, 216, 0, 864
    ),
    "nearest": Case("Interpolate", lambda: nn.Upsample(scale_factor=2), IMAGE, 0, 0, 216, 0, 864),
    "Elementwise": Case("Elementwise", lambda: Fn(torch.mul), {"a": (2, 8), "b": (1, 8)}, 0, 16, 24, 0, 16),
    "Copy": Case("Copy", lambda: Fn(lambda a, b: torch.cat([a, b])), {"a": (2, 8), "b": (1, 8)}, 0, 0, 24, 0, 24),
    "Reduction": Case("Reduction", lambda: Fn(lambda x: x.sum(-1)), X, 0, 16, 16, 0, 2),
    "cdist": Case("Reduction", lambda: Fn(torch.cdist), {"a": (2, 8), "b": (5, 8)}, 0, 3 * 10 * 8, 56, 0, 10),
    # A third of n^3.
    "Custom": Case("Custom", lambda: Fn(lambda x: torch.linalg.cholesky_ex(x)[0]), {"x": (6, 6)}, 0, 72, 36, 0, 37),
}  # fmt: skip


def _conv1d_gpt() -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    made: nn.Module = Conv1D(5, 8)
    return made


def _rms_norm() -> nn.Module:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    made: nn.Module = LlamaRMSNorm(8)
    return made


def _leaf(case: Case) -> Any:
    inputs = {name: torch.zeros(shape) for name, shape in case.inputs.items()}
    tree = trace(case.module(), 1, 1, inputs=lambda *_: inputs)
    (leaf,) = [n for n in tree.nodes if n.level == "ml" and n.primitive == case.primitive]
    return leaf


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_the_definition(name: str) -> None:
    case = CASES[name]
    found = _leaf(case).features
    counted = (
        found["matmul_flops"] * 1e6, found["elementwise_flops"] * 1e6, found["read_bytes"] * 2**18,
        found["weight_bytes"] * 2**18, found["write_bytes"] * 2**18,
    )  # fmt: skip
    assert counted == pytest.approx(case[3:])
    assert found["flops"] == pytest.approx(found["matmul_flops"] + found["elementwise_flops"])
    moved = found["read_bytes"] + found["weight_bytes"] + found["write_bytes"]
    assert found["mem_bytes"] == pytest.approx(moved)


def test_an_embedding_reads_indices_and_the_rows_that_they_pick() -> None:
    ids = torch.ones((2, 3), dtype=torch.long)
    tree = trace(nn.Embedding(100, 4), 1, 1, inputs=lambda *_: {"input": ids})
    found = tree.nodes[1].features
    assert tree.nodes[1].primitive == "Embedding" and found["flops"] == 0
    counted = [found[f"{what}_bytes"] * 2**20 for what in ("read", "weight", "write")]
    assert counted == [6 * 8, 6 * 4 * 4, 6 * 4 * 4]


def test_every_primitive_has_a_case() -> None:
    covered = {case.primitive for case in CASES.values()} | {"Embedding"}
    assert covered >= {entry.name for entry in PRIMITIVES}
    # Host and AllReduce are leaves that other stages add to a tree.
    assert covered >= set(NAMES) - {"Host", "AllReduce"}


@pytest.mark.parametrize(("batch_first", "steps"), [(False, 5), (True, 2)])
def test_a_recurrent_cell_runs_once_a_step_layer_and_direction(batch_first: bool, steps: int) -> None:
    module = nn.LSTM(3, 4, 2, bidirectional=True, batch_first=batch_first)
    tree = trace(module, 1, 1, inputs=lambda *_: {"input": torch.zeros(5, 2, 3)})
    assert tree.nodes[1].features["kernels"] == steps * 2 * 2


def test_writing_into_a_part_moves_that_part() -> None:
    def step(cache: Any, values: Any, rows: Any) -> Any:
        return cache.index_copy_(0, rows, values)

    inputs = {"cache": torch.zeros(10, 4), "values": torch.zeros(2, 4), "rows": torch.tensor([1, 2])}
    tree = trace(Fn(step), 1, 1, inputs=lambda *_: inputs)
    (leaf,) = [n for n in tree.nodes if n.level == "ml" and "index_copy_" in str(n.shapes)]
    assert leaf.features["write_bytes"] * 2**20 == 2 * 4 * 4
    assert leaf.features["read_bytes"] * 2**20 == 2 * 4 * 4 + 2 * 8


@pytest.mark.parametrize(("mask", "written"), [(False, 2 * 10), (True, 4 * 10)])
def test_a_number_written_to_places_is_written_to_each(mask: bool, written: int) -> None:
    def step(x: Any, places: Any) -> Any:
        x[:, places] = 0.0
        return x

    places = torch.tensor([True, False, True, False]) if mask else torch.tensor([1, 3])
    inputs = {"x": torch.zeros(10, 4), "places": places}
    tree = trace(Fn(step), 1, 1, inputs=lambda *_: inputs)
    (leaf,) = [n for n in tree.nodes if n.level == "ml" and "index_put_" in str(n.shapes)]
    assert leaf.features["write_bytes"] * 2**20 == written * 4
