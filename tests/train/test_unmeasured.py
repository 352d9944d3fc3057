"""Intervals know what was never measured: the shipped pc1, calibrated on float32 encoders and decoders up to 110 M
parameters, asked for what it has not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from irene_build.trace import trace_model
from irene_build.train import unmeasured
from irene_runtime.model import Estimator
from irene_runtime.prediction import Prediction
from irene_runtime.tree import ModelTree
from tests.train import synthetic

PC1 = Path(__file__).parents[2] / "artifacts" / "pc1" / "estimator.json"


@pytest.fixture(scope="module")
def pc1() -> Estimator:
    return Estimator(json.loads(PC1.read_text()))


def width(prediction: Prediction) -> float:
    """Half the interval of the whole model, as a share of its joules."""
    low, high = prediction.interval_j
    return max(high / prediction.energy_j - 1.0, 1.0 - low / prediction.energy_j)


def asked(estimator: Estimator, model: Any, **run: Any) -> Prediction:
    return estimator.predict(
        trace_model(model, **{"batch_size": 8, "seq_len": 128, "attention": "eager", **run})
    )


def test_what_was_measured_is_narrow_and_unflagged(pc1: Estimator) -> None:
    said = asked(pc1, "bert-base-uncased")
    assert width(said) < 0.06
    assert not said[0].flags


@pytest.mark.parametrize(
    ("model", "run", "least"),
    [
        ("gpt2", {"phase": "decode"}, 1.0),
        ("gpt2", {"phase": "prefill", "dtype": "bfloat16"}, 2.0),
        ("meta-llama/Llama-3.2-1B", {"phase": "decode", "dtype": "float16", "batch_size": 1}, 5.0),
        ("google/bert_uncased_L-2_H-128_A-2", {}, 0.15),
        ("bert-base-uncased", {"attention": "sdpa"}, 0.25),
    ],
)
def test_another_dtype_phase_attention_or_size_is_wide_and_flagged(
    pc1: Estimator, model: str, run: dict[str, Any], least: float
) -> None:
    said = asked(pc1, model, **run)
    assert width(said) > least
    assert "extrapolates" in said[0].flags


def test_primitives_that_were_never_calibrated_widen_the_root(pc1: Estimator) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    block = lambda i, o: [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]  # noqa: E731
    net = nn.Sequential(*block(3, 32), *block(32, 64), *block(64, 128), nn.Flatten(), nn.Linear(128 * 64, 10))
    said = pc1.predict(trace_model(net, inputs=torch.zeros(8, 3, 64, 64)))
    leaves = [node for node in said.nodes if node.level == "ml"]
    assert sum("uncalibrated" in node.flags for node in leaves) > len(leaves) / 2
    assert width(said) > 0.5
    assert "extrapolates" in said[0].flags


def test_a_pass_that_the_memory_cannot_hold_says_so(pc1: Estimator) -> None:
    said = asked(pc1, "meta-llama/Meta-Llama-3-70B")
    assert "cannot hold" in " ".join(said.notes)
    assert width(said) > 2.0


def test_stored_weights_and_another_engine_widen_as_the_tables_say(pc1: Estimator) -> None:
    tree = trace_model("bert-base-uncased", batch_size=8, seq_len=128, attention="eager")
    before = pc1.predict(tree)
    for name, value in (("weights", "int4"), ("engine", "vllm")):
        after = pc1.predict(ModelTree(tree.nodes, {**tree.header, name: value}))
        for one, other in zip(before.nodes, after.nodes, strict=True):
            more = (1.0 + unmeasured.WIDTHS[name] * 0.999) * one.interval_j[1]
            assert other.interval_j[1] > more or other.energy_j == 0.0


def test_parents_are_never_surer_than_the_unmeasured_leaves_below_them_allow(pc1: Estimator) -> None:
    said = asked(pc1, "meta-llama/Llama-3.2-1B", batch_size=1)
    children: dict[int, list[Any]] = {}
    for node in said.nodes[1:]:
        children.setdefault(node.parent, []).append(node)
    for parent, below in children.items():
        if said[parent].flags and all("uncalibrated" in node.flags for node in below):
            mine = said[parent].interval_j[1] / said[parent].energy_j
            assert mine >= min(node.interval_j[1] / node.energy_j for node in below) * (1 - 1e-9)


def test_a_dataset_says_what_it_has_of_each_condition() -> None:
    found = unmeasured.conditions(synthetic.dataset({"a": (1, 64)}, [(1, 16)]))
    assert found["dtype"] == {"known": ["float32"], "width": unmeasured.WIDTHS["dtype"]}
    assert found["phase"]["known"] == ["forward", "prefill"]
    assert "memory" not in found


def test_kernels_that_nobody_could_count_make_it_wider(pc1: Estimator) -> None:
    tree = trace_model("bert-base-uncased", 8, 128, attention="eager")
    before = width(pc1.predict(tree))
    tree.nodes[0].features["unseen"] = 0.1 * tree.nodes[0].features["kernels"]
    after = pc1.predict(tree)
    assert "extrapolates" in after[0].flags and "could not be counted" in str(after.notes)
    # Each may take ten times as much as another: a tenth of the kernels, twice the joules.
    assert 0.9 < width(after) - before < 1.5
