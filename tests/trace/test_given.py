"""Modules as users hold them: adapters and hooks, wrappers, hand-written signatures, weights somewhere else."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from irene_build.errors import ModelError
from irene_build.trace import trace_model
from irene_build.trace.request import Pass
from irene_build.trace.tracer import record

X = torch.zeros(6, 8)
#: FLOPs of one product of 6 x 8 with 8 x 8.
ONE = 2 * 6 * 8 * 8


def flops(module: Any, inputs: Any = X) -> int:
    return round(trace_model(module, 1, 1, inputs=inputs).nodes[0].features["matmul_flops"] * 1e6)


# What a call runs counts, whatever its class


def _adapted(layer: nn.Linear) -> None:
    down, up, own = nn.Parameter(torch.zeros(8, 2)), nn.Parameter(torch.zeros(2, 8)), layer.forward
    layer.forward = lambda x: own(x) + x @ down @ up  # type: ignore[method-assign]


def _replaced(layer: nn.Linear) -> None:
    def forward(self: Any, x: Any) -> Any:
        return F.linear(x, self.weight) @ self.weight

    layer.forward = types.MethodType(forward, layer)  # type: ignore[method-assign]


class _LowRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.zeros(8, 2)), nn.Parameter(torch.zeros(2, 8))

    def forward(self, weight: Any) -> Any:
        return weight + self.down @ self.up


_RUN: dict[str, tuple[Callable[[nn.Linear], Any], float]] = {
    "instance forward": (_adapted, ONE + 2 * 2 * 6 * 8 * 2),
    "method": (_replaced, 2 * ONE),
    "hook": (lambda m: m.register_forward_hook(lambda m, given, out: out @ m.weight), 2 * ONE),
    "pre hook": (lambda m: m.register_forward_pre_hook(lambda m, given: given[0] @ m.weight), 2 * ONE),
    "parametrization": (
        lambda m: parametrize.register_parametrization(m, "weight", _LowRank()), ONE + 2 * 8 * 2 * 8
    ),
    "weight norm": (parametrizations.weight_norm, ONE),
}  # fmt: skip


@pytest.mark.parametrize("name", _RUN)
@pytest.mark.parametrize("depth", [0, 1])
def test_a_layer_that_runs_something_else_is_counted_as_it_runs(name: str, depth: int) -> None:
    change, expected = _RUN[name]
    layer = nn.Linear(8, 8)
    change(layer)
    assert flops(nn.Sequential(layer) if depth else layer) == expected


def test_a_subclass_that_calls_its_parent_is_counted_as_it_runs() -> None:
    class Twice(nn.Linear):
        def __call__(self, x: Any) -> Any:
            return super().__call__(x) @ self.weight

    assert flops(nn.Sequential(Twice(8, 8))) == 2 * ONE


def test_weights_that_a_hook_swaps_in_are_weights() -> None:
    layer = nn.Linear(8, 8, bias=False)

    def load(module: Any, given: Any) -> None:
        module.weight.data = torch.zeros(8, 8)

    layer.register_forward_pre_hook(load)
    found = trace_model(nn.Sequential(layer), inputs=X).nodes[0].features
    assert (round(found["matmul_flops"] * 1e6), found["weight_bytes"] * 2**20) == (ONE, 8 * 8 * 4)


def test_offloaded_weights_are_counted_as_if_they_were_here() -> None:
    class Hook:
        """As accelerate's: the module's weights are elsewhere, its forward loads them."""

        weights: dict[str, Any]

    layer = nn.Linear(8, 8)
    plain = trace_model(nn.Sequential(layer), inputs=X)
    hook, own = Hook(), layer.forward
    hook.weights = {"weight": torch.zeros(8, 8)}
    layer.to("meta")

    def forward(x: Any) -> Any:
        raise AssertionError("nothing is loaded for a trace")

    layer._hf_hook, layer._old_forward, layer.forward = hook, own, forward  # type: ignore[assignment, method-assign]
    found = trace_model(nn.Sequential(layer), inputs=X)
    assert [n.to_json() for n in found.nodes] == [n.to_json() for n in plain.nodes]
    assert layer._hf_hook is hook


# Ways to give inputs


class _Several(nn.Linear):
    def forward(self, *xs: Any) -> Any:
        return sum(super(_Several, self).forward(x) for x in xs)


class _ByPosition(nn.Linear):
    def forward(self, x: Any, scale: Any = None, /) -> Any:
        return super().forward(x)


class _Words(nn.Module):
    def forward(self, **words: Any) -> Any:
        return words["a"] @ words["b"]


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        (nn.Linear(8, 8), X, ONE), (nn.Linear(8, 8), (X,), ONE), (nn.Linear(8, 8), {"input": X}, ONE),
        (_Several(8, 8), (X, X), 2 * ONE), (_Several(8, 8), {"xs": (X, X)}, 2 * ONE),
        (_ByPosition(8, 8), {"x": X}, ONE), (_ByPosition(8, 8), X, ONE), (nn.Linear(8, 8), lambda *_: X, ONE),
        (_Words(), {"a": X, "b": torch.zeros(8, 8)}, ONE),
    ],
)  # fmt: skip
def test_inputs_are_a_tensor_a_tuple_or_a_dict(module: nn.Module, inputs: Any, expected: int) -> None:
    assert flops(module, inputs) == expected


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="forward does not take these 3 inputs"):
        flops(nn.Linear(8, 8), (X, X, X))


# Fallbacks and wrappers


class _Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Any) -> Any:
        weights, chosen = self.gate(x).topk(2)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            row, place = torch.where(chosen == number)
            out[row] += weights[row, place, None] * expert(x[row])
        return out


def test_a_mixture_that_values_steer_is_run_with_its_own_weights() -> None:
    module = _Mixture().train()
    before = module.gate.weight.clone()
    tree = trace_model(module, inputs=X)
    assert round(tree.nodes[0].features["matmul_flops"] * 1e6) == 2 * 6 * 8 * 4 + 2 * 6 * 2 * 8 * 8
    assert tree.header["traced_by"]["tensors"] == "cpu"
    assert module.training and torch.equal(module.gate.weight, before)


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, torch.compile, lambda m: nn.Sequential(torch.compile(m)), torch.fx.symbolic_trace],
    ids=["data parallel", "compiled", "compiled part", "fx"],
)
def test_wrappers_run_what_they_wrap(wrap: Callable[[nn.Module], Any]) -> None:
    assert flops(wrap(nn.Sequential(nn.Linear(8, 8)))) == ONE


@pytest.mark.filterwarnings("ignore")
def test_an_exported_module_is_counted_from_a_factory_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "exported.py").write_text(
        "import torch\n"
        "def net():\n"
        "    layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())\n"
        "    return torch.export.export(layers, (torch.zeros(6, 8),)).module()\n"
        "def wrapped():\n"
        "    return torch.nn.DataParallel(torch.nn.Linear(8, 8))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("net", "wrapped"):
        assert flops(f"exported:{name}") == ONE


def test_a_function_that_is_compiled_inside_runs_as_it_is_written() -> None:
    class Compiles(nn.Linear):
        def forward(self, x: Any) -> Any:
            return torch.compile(lambda y: y @ self.weight, fullgraph=True)(super().forward(x))

    assert flops(Compiles(8, 8)) == 2 * ONE


def test_an_adapter_hands_on_what_its_base_model_takes() -> None:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )

    class Adapter(nn.Module):
        """As PEFT's: text by name, all else through keywords."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.base_model, self.config = model, model.config

        def get_base_model(self) -> Any:
            return self.base_model

        def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
            return self.base_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    model = transformers.LlamaForCausalLM._from_config(config)
    plain, adapted = (trace_model(m, 2, 16, "decode") for m in (model, Adapter(model)))
    assert adapted.nodes[0].features["flops"] == plain.nodes[0].features["flops"]
    assert adapted.header["past_len"] == 16


@pytest.mark.parametrize("inside", [False, True])
def test_autocast_makes_the_casts_of_a_real_run(inside: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

        def forward(self, x: Any) -> Any:
            with torch.autocast(
                x.device.type, torch.bfloat16, enabled=inside or torch.is_autocast_enabled("cpu")
            ):
                y = self.norm(self.up(x))
                return (y @ y.mT).softmax(-1)

    with torch.autocast("cpu", torch.bfloat16, enabled=not inside):
        hollow = trace_model(Net(), inputs=X)
        real, _ = record(Net(), "Net", Pass(inputs=X, tensors="cpu"))
    assert [(n.scope, n.type, n.features) for n in hollow.nodes] == [
        (n.scope, n.type, n.features) for n in real.nodes
    ]
    assert any("bfloat16" in str(node.shapes) for node in hollow.nodes)
    assert hollow.header["traced_by"].get("autocast") == (None if inside else "bfloat16")
