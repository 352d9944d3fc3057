"""Whole-model labels alone: the roots are predicted well, the nodes say that they were never measured."""

from __future__ import annotations

import numpy as np
import pytest

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import arithmetic, whole_model
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


def test_intervals_below_the_roots_say_that_nothing_was_measured_there(measured: Dataset) -> None:
    levels = whole_model.fit(measured)["tiers"]["static"]["interval"]["levels"]
    assert levels["ml"]["q"] == levels["module"]["q"] == pytest.approx(0.7)
    assert levels["model"]["q"] < 0.2


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
