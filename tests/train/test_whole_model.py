"""Whole-model labels alone: the roots are predicted well, the nodes say that they were never measured."""

from __future__ import annotations

import numpy as np
import pytest

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import api, arithmetic, intervals, whole_model
from irene_build.train.reading_ranges import with_ranges
from tests.train import synthetic

MODELS = {"a": (2, 64), "b": (3, 128), "c": (2, 192), "d": (4, 96), "e": (1, 256)}
SIZES = [(1, 32), (2, 64), (4, 64), (8, 96), (8, 128)]


@pytest.fixture(scope="module")
def measured() -> Dataset:
    return synthetic.dataset(MODELS, SIZES, noise=0.005)


def test_roots_are_predicted_and_nodes_are_not_nothing(measured: Dataset) -> None:
    found = whole_model.evaluate(measured)
    assert found["static"]["model"]["mape"] < 3.0
    assert found["live"]["model"]["mape"] < 1.5
    assert found["static"]["module"]["mape"] < 40.0
    assert found["static"]["model"]["n"] == len(measured.trees)


def test_node_labels_are_not_looked_at(measured: Dataset) -> None:
    lies = synthetic.dataset(MODELS, SIZES, noise=0.005)
    for tree in lies.trees:
        tree.energy_j[1:] = 1e6
    assert whole_model.fit(lies) == whole_model.fit(measured)


def test_intervals_below_the_roots_are_as_wide_as_the_roots_leave_open(measured: Dataset) -> None:
    estimator = whole_model.fit(measured)
    interval = estimator["tiers"]["static"]["interval"]
    levels, root = interval["levels"], interval["levels"]["model"]["q"]
    assert levels["ml"]["q"] > 2.0 * root and levels["module"]["q"] > root
    assert interval["primitives"]["fallback"]["q"] >= intervals.UNKNOWN
    apart = whole_model.apart(whole_model.hide_nodes(measured))
    for name, width in apart.items():
        told = interval["primitives"].get(name) or levels[name]
        assert told["q"] == pytest.approx(min(root + 2.0 * width, intervals.HOPELESS), abs=1e-4)
    # What takes most of a model is known best.
    assert apart["Linear"] < apart["Copy"]


def test_hidden_labels_lie_inside_those_intervals(measured: Dataset) -> None:
    for tier, levels in whole_model.evaluate(measured).items():
        for level in ("ml", "module"):
            assert levels[level]["coverage90"] > 88.0, (tier, level)


def test_train_takes_this_way_where_roots_alone_are_labelled(measured: Dataset) -> None:
    rooted = whole_model.hide_nodes(measured)
    assert whole_model.roots_alone(rooted) and not whole_model.roots_alone(measured)
    estimator = api.fit(rooted)
    assert estimator == with_ranges(whole_model.fit(measured), measured) | {
        "trained_on": estimator["trained_on"]
    }
    assert estimator["trained_on"]["labels"] == "model"
    assert list(api.fit(rooted, tiers=("static",))["tiers"]) == ["static"]
    with pytest.raises(DatasetError, match="profile needs measurements of the nodes"):
        api.fit(rooted, tiers=("profile",))


def test_no_node_is_zero(measured: Dataset) -> None:
    estimator = whole_model.fit(measured)
    (p,) = arithmetic.predict(estimator, [synthetic.tree("x", 2, 128, 1, 8)], "static")
    assert (p.energy_j > 0.0).all() and np.isfinite(p.high_j).all()


def test_without_readings_there_is_the_static_tier_alone(measured: Dataset) -> None:
    bare = whole_model.hide_nodes(measured)
    for tree in bare.trees:
        tree.resources[:] = np.nan
    assert list(whole_model.fit(bare)["tiers"]) == ["static"]


def test_a_dataset_without_root_labels_is_refused(measured: Dataset) -> None:
    bare = whole_model.hide_nodes(measured)
    for tree in bare.trees:
        tree.energy_j[:] = np.nan
    with pytest.raises(DatasetError, match="no tree with a whole-model label"):
        whole_model.fit(bare)
    with pytest.raises(DatasetError, match="needs two models"):
        whole_model.evaluate(measured.subset(["a"]))
