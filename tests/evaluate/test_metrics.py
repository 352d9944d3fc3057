"""Errors are counted as the paper counts them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.evaluate import metrics
from irene_runtime.tree import LEVELS
from tests import synthetic


def scores(factor: float = 1.1, spread: float = 0.2) -> metrics.Scores:
    trees = synthetic.dataset(["tiny-bert", "tiny-gpt"]).trees
    predicted = [tree.energy_j * factor for tree in trees]
    low = [tree.energy_j * factor * (1.0 - spread) for tree in trees]
    high = [tree.energy_j * factor * (1.0 + spread) for tree in trees]
    return metrics.score(trees, predicted, low, high)


def test_errors_are_percent_of_the_label() -> None:
    found = metrics.tier_metrics(scores())
    for level in LEVELS:
        assert found[level]["mape"] == pytest.approx(10.0)
        assert found[level]["p50"] == pytest.approx(found[level]["max"]) == pytest.approx(found[level]["p99"])
        assert found[level]["coverage90"] == 100.0
    assert found["per_model"]["tiny-gpt"]["model"] == pytest.approx(10.0)
    assert found["model"]["n"] == 6


def test_coverage_counts_labels_inside_their_interval() -> None:
    assert metrics.level_metrics(scores(1.5, 0.2), "ml")["coverage90"] == 0.0


def test_copies_count_in_errors_and_once_as_measurements() -> None:
    trees = synthetic.dataset(["tiny-bert"], sizes=[(2, 16)]).trees
    trees[0].measurement[:] = np.minimum(trees[0].measurement, 4)
    found = metrics.level_metrics(metrics.score(trees, [trees[0].energy_j]), "ml")
    leaves = [n.level == "ml" for n in trees[0].tree.nodes]
    assert found["n"] == sum(leaves)
    assert found["n_distinct"] == len(set(trees[0].measurement[leaves])) < found["n"]
    assert found["coverage90"] is None


def test_a_label_of_another_shape_is_compared_with_what_was_measured_and_that_is_said() -> None:
    tree = synthetic.dataset(["tiny-bert"], sizes=[(2, 16)]).trees[0]
    up, down = (
        next(i for i, n in enumerate(tree.tree.nodes) if n.scope.endswith(name)) for name in ("up", "down")
    )
    tree.measurement[down], tree.energy_j[down] = tree.measurement[up], tree.energy_j[up]
    predicted = tree.energy_j.copy()
    predicted[down] *= 1.5
    scored = metrics.score([tree], [predicted])
    found = metrics.tier_metrics(scored)
    leaves = sum(n.level == "ml" for n in tree.tree.nodes)
    assert found["ml"]["mape"] == pytest.approx(0.0)
    assert set(found) == {*LEVELS, "per_model"}
    assert metrics.copies_of_other_shapes(scored) == {"n": 1, "mape_own": pytest.approx(50.0 / leaves)}
    assert metrics.copies_of_other_shapes(scores()) is None


def test_unlabelled_nodes_are_not_scored_and_silence_is_counted() -> None:
    tree = synthetic.dataset(["tiny-bert"]).trees[0]
    tree.energy_j[1] = np.nan
    predicted = tree.energy_j * 1.2
    predicted[0] = np.nan
    found = metrics.tier_metrics(metrics.score([tree], [predicted]))
    assert found["module"]["n"] == sum(n.level == "module" for n in tree.tree.nodes) - 1
    assert found["model"] == {
        "mape": None, "p50": None, "p95": None, "p99": None, "max": None, "n": 1, "n_distinct": 1,
        "coverage90": None, "n_unpredicted": 1,
    }  # fmt: skip


@given(errors=st.lists(st.floats(-0.9, 5.0), min_size=1, max_size=30))
def test_percentiles_are_ordered(errors: list[float]) -> None:
    tree = synthetic.dataset(["small-gpt"], sizes=[(2, 16)]).trees[0]
    factors = np.resize(np.array(errors) + 1.0, len(tree.energy_j))
    found = metrics.level_metrics(metrics.score([tree], [tree.energy_j * factors]), "ml")
    assert found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
    assert found["mape"] <= found["max"] * (1.0 + 1e-12)


def test_pairs_hold_every_node_once() -> None:
    found = scores()
    for level, entry in metrics.pairs(found).items():
        assert sum(entry["copies"]) == (found.level == level).sum()
        assert len(entry["low_j"]) == len(entry["measured_j"]) == len(entry["model"])
