"""Baselines do what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from irene_build.errors import DatasetError
from irene_build.train import baselines, paper
from irene_runtime.features import RESOURCE_FEATURES
from tests import synthetic

LATENCY = RESOURCE_FEATURES.index("latency")


def test_a_constant_is_the_median_ratio() -> None:
    dataset = synthetic.dataset(["tiny-bert"])
    fitted = baselines.fit_constant(dataset, "latency")
    energy = np.concatenate([t.energy_j for t in dataset.trees])
    latency = np.concatenate([t.resources[:, LATENCY] for t in dataset.trees])
    assert fitted.constant == np.median(energy / latency)
    np.testing.assert_array_equal(
        fitted.predict(dataset.trees)[0], fitted.constant * dataset.trees[0].resources[:, LATENCY]
    )


def test_what_is_not_known_is_not_predicted() -> None:
    dataset = synthetic.dataset(["tiny-bert"])
    fitted = baselines.fit_constant(dataset, "latency")
    tree = synthetic.dataset(["tiny-bert"]).trees[0]
    tree.resources[1:, LATENCY] = np.nan
    found = fitted.predict([tree])[0]
    assert np.isfinite(found[0]) and np.isnan(found[1:]).all()
    for labelled in dataset.trees:
        labelled.resources[:] = np.nan
    with pytest.raises(DatasetError, match="has latency"):
        baselines.fit_constant(dataset, "latency")


def test_the_formula_of_strubell() -> None:
    tree = synthetic.dataset(["tiny-bert"]).trees[0]
    tree.resources[0] = (50.0, 25.0, 80.0, 0.0, 0.0, 0.0, 2.0, 0.0)
    formula = baselines.strubell({"pue": 1.5, "cpu_w": 100.0, "dram_w": 8.0, "gpu_w": 200.0})
    assert formula.predict([tree])[0][0] == pytest.approx(1.5 * (50.0 + 2.0 + 160.0) * 2.0)
    tree.resources[0, 2] = np.nan
    assert formula.predict([tree])[0][0] == pytest.approx(1.5 * (50.0 + 2.0) * 2.0)


def test_unstructured_ignores_the_tree() -> None:
    dataset = synthetic.dataset()
    fitted = baselines.fit_unstructured(dataset)
    tree = synthetic.dataset(["tiny-bert"]).trees[1]
    before = fitted.predict([tree])[0]
    leaf = next(i for i, n in enumerate(tree.tree.nodes) if n.level == "ml")
    tree.tree.nodes[leaf].features["flops"] *= 5.0
    after = fitted.predict([tree])[0]
    assert after[0] == before[0] and after[leaf] != before[leaf]
    summed = paper.fit(dataset, strategy="predicted-sum").predict([tree])[0]
    assert after[leaf] == summed[leaf]


def test_unstructured_needs_labels_above_the_leaves() -> None:
    dataset = synthetic.dataset(["tiny-bert"])
    for tree in dataset.trees:
        tree.energy_j[[n.level != "ml" for n in tree.tree.nodes]] = np.nan
    with pytest.raises(DatasetError, match="no module or model"):
        baselines.fit_unstructured(dataset)
