"""An evaluation: nothing leaks, tiers know what they may, baselines stand beside, losing is loud."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError, InputError
from irene_build.evaluate import run
from irene_build.evaluate.methods import Answer, Method, stripped
from irene_build.evaluate.text import evaluation_text
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import LEVELS
from tests import synthetic

SIZES = ((2, 16), (4, 32))
GPU = RESOURCE_FEATURES.index("gpu_energy")


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    constants = {"pue": 1.58, "cpu_w": 100.0, "dram_w": 8.0, "gpu_w": 200.0}
    return run.evaluate(synthetic.dataset(sizes=SIZES, noise=0.01), "paper", constants=constants)


def test_the_json_is_as_fixed(result: dict[str, Any]) -> None:
    assert {"hardware", "method", "protocol", "provenance", "tiers", "baselines", "seconds"} <= set(result)
    assert list(result["tiers"]) == ["static", "profile"]
    for levels in result["tiers"].values():
        assert set(levels) == {*LEVELS, "per_model"}
        assert set(levels["ml"]) == {"mape", "p50", "p95", "p99", "max", "n", "n_distinct", "coverage90"}
        assert set(levels["per_model"]) == set(synthetic.MODELS)
    assert set(result["baselines"]) == {
        "latency", "gpu_energy", "flops", "predicted-sum", "predicted-sum-static", "strubell",
    }  # fmt: skip
    json.dumps(result, allow_nan=False)


def test_every_labelled_node_is_scored_once(result: dict[str, Any]) -> None:
    dataset = synthetic.dataset(sizes=SIZES)
    count = {level: sum(n.level == level for t in dataset.trees for n in t.tree.nodes) for level in LEVELS}
    assert {level: result["tiers"]["static"][level]["n"] for level in LEVELS} == count


def test_stripped_trees_know_what_their_tier_knows() -> None:
    tree = synthetic.dataset(["tiny-bert"]).trees[0]
    assert np.isnan(stripped(tree, "static", "emonpi").resources).all()
    live = stripped(tree, "live", "emonpi").resources
    assert np.isfinite(live[0]).all() and np.isnan(live[1:]).all()
    profile = stripped(tree, "profile", "emonpi")
    assert np.isfinite(profile.resources).all()
    assert np.isnan(profile.energy_j).all() and (profile.measurement == -1).all()
    by_nvml = stripped(tree, "profile", "nvml").resources
    assert np.isnan(by_nvml[:, GPU]).all() and np.isfinite(np.delete(by_nvml, GPU, axis=1)).all()
    assert np.isfinite(tree.energy_j).all() and np.isfinite(tree.resources).all()


def spy(seen: list[tuple[list[str], list[str]]]) -> Method:
    def fit(dataset: Dataset) -> Any:
        def predict(trees: Any, tier: str) -> list[Answer]:
            seen.append((dataset.models, sorted({t.model for t in trees})))
            assert all(np.isnan(t.energy_j).all() for t in trees)
            return [
                Answer(np.ones(len(t.energy_j)), np.zeros(len(t.energy_j)), np.ones(len(t.energy_j)))
                for t in trees
            ]

        return ("static",), predict

    return Method("spy", lambda dataset: dataset, fit)


@pytest.mark.parametrize("protocol", ["model-out", "family-out", "model+size-out"])
def test_a_method_never_sees_what_is_held_out(protocol: str) -> None:
    seen: list[tuple[list[str], list[str]]] = []
    run.run(spy(seen), synthetic.dataset(), protocol)
    assert seen and all(not set(train) & set(test) for train, test in seen)


def test_a_baseline_that_wins_is_said_loudly(result: dict[str, Any]) -> None:
    better = dict(
        result, baselines={"latency": {"tier": "profile", "ml": 0.0, "module": 99.0, "model": None}}
    )
    better["beaten_by"] = run.beaten_by(better)
    assert [(one["tier"], one["level"]) for one in better["beaten_by"]] == [("profile", "ml")]
    text = evaluation_text(better)
    assert "A BASELINE WINS" in text and "latency 0.00 %" in text
    worse = dict(
        better, baselines={"latency": {"tier": "profile", "ml": 99.0, "module": 99.0, "model": 99.0}}
    )
    worse["beaten_by"] = run.beaten_by(worse)
    assert worse["beaten_by"] == [] and "no baseline wins (3 comparisons)" in evaluation_text(worse)


def test_baselines_are_compared_where_they_know_no_more(result: dict[str, Any]) -> None:
    assert set(run.rivals_of(result, "static", "ml")) == {"flops", "predicted-sum-static"}
    live = run.rivals_of(result, "live", "model")
    assert {"latency", "gpu_energy", "flops"} <= set(live) and "predicted-sum" not in live
    assert "latency" not in run.rivals_of(result, "live", "module")


def test_a_gpu_counter_as_meter_is_no_baseline_of_itself() -> None:
    dataset = synthetic.dataset(["tiny-bert", "tiny-gpt"], sizes=[(2, 16)], label_source="nvml")
    found = run.evaluate(dataset, "paper", tiers=("static",))
    assert "gpu_energy" not in found["baselines"]
    assert found["skipped_baselines"]["gpu_energy"] == "gpu_energy is the label here"


def test_simulated_labels_say_so() -> None:
    dataset = synthetic.dataset(["tiny-bert", "tiny-gpt"], sizes=[(2, 16)], provenance="simulated")
    found = run.evaluate(dataset, "paper", tiers=("static",), baselines=False)
    assert found["provenance"] == "simulated" and "SIMULATED" in evaluation_text(found)


def test_hidden_labels_are_seen_by_no_fit_and_scored_all_the_same() -> None:
    dataset = synthetic.dataset()
    found = run.evaluate(dataset, "best", tiers=("static",), baselines=False, labels="model")
    assert found["labels"] == "model"
    assert found["tiers"]["static"]["ml"]["n"] == sum(
        n.level == "ml" for t in dataset.trees for n in t.tree.nodes
    )
    informed = run.evaluate(dataset, "best", tiers=("static",), baselines=False)
    assert informed["tiers"]["static"]["ml"]["mape"] < found["tiers"]["static"]["ml"]["mape"]
    with pytest.raises(InputError, match="method paper needs all"):
        run.evaluate(dataset, "paper", labels="model")


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(DatasetError, match="one model only"):
        run.evaluate(synthetic.dataset(["tiny-bert"]), "paper")
    with pytest.raises(DatasetError, match="no tier live"):
        run.evaluate(synthetic.dataset(), "paper", tiers=("live",))
    with pytest.raises(InputError, match="tier dream"):
        run.evaluate(synthetic.dataset(), "paper", tiers=("dream",))
    with pytest.raises(InputError, match="unknown method"):
        run.evaluate(synthetic.dataset(), "magic")


def test_the_summary_is_what_an_estimator_keeps(result: dict[str, Any]) -> None:
    kept = run.summary(result)
    assert kept["profile"]["model-out"]["ml"] == {
        key: round(result["tiers"]["profile"]["ml"][key], 4) for key in ("mape", "coverage90", "n")
    }


def test_progress_ends_at_one() -> None:
    ticks: list[float] = []
    dataset = synthetic.dataset(["tiny-bert", "tiny-gpt"], sizes=[(2, 16)])
    run.evaluate(dataset, "paper", tiers=("static",), report=lambda share, what: ticks.append(share))
    assert ticks == sorted(ticks) and ticks[0] > 0.0 and ticks[-1] <= 1.0
