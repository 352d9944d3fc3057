"""Readings know where they were calibrated: one far outside is flagged and wide, one that cannot be is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from irene_build.dataset.table import Dataset
from irene_build.errors import InputError
from irene_build.train import api
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.model import Estimator
from tests.train.synthetic import dataset as synthetic


@pytest.fixture(scope="module")
def measured() -> Dataset:
    models = {"a": (2, 64), "b": (2, 128), "c": (1, 96)}
    return synthetic(models, [(1, 16), (4, 32)], noise=0.005)


@pytest.fixture(scope="module")
def fitted(measured: Dataset) -> Estimator:
    return Estimator(api.fit(measured))


def reading(data: Dataset, **changes: float) -> dict[str, Any]:
    root = dict(zip(RESOURCE_FEATURES, data.trees[0].resources[0].tolist(), strict=True))
    return {name: changes.get(name, value) for name, value in root.items() if math.isfinite(value)}


def test_what_was_measured_lies_inside(measured: Dataset, fitted: Estimator) -> None:
    live = fitted.tiers["live"].direct["model"]
    assert len(live.within) == 3, "energy, latency, and the watts that they make"
    for tree in measured.trees:
        own = dict(zip(RESOURCE_FEATURES, tree.resources[0].tolist(), strict=True))
        assert live.beyond(own) == 0.0


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_a_reading_far_outside_is_flagged_and_wide(
    measured: Dataset, fitted: Estimator, factor: float
) -> None:
    """Also where both fit each other: a run a thousand times as long and as dear."""
    tree, usual = measured.trees[0].tree, reading(measured)
    far = {**usual, "gpu_energy": usual["gpu_energy"] * factor, "latency": usual["latency"] * factor}
    near, away = (fitted.predict(tree, live, tier="live")[0] for live in (usual, far))
    assert "extrapolates" in away.flags
    assert away.interval_j[1] / away.interval_j[0] > 10.0 * near.interval_j[1] / near.interval_j[0]


def test_watts_that_were_never_seen_are_flagged(measured: Dataset, fitted: Estimator) -> None:
    """Though the energy alone and the time alone were."""
    trees = measured.trees
    column = RESOURCE_FEATURES.index
    live = reading(
        measured,
        gpu_energy=max(t.resources[0, column("gpu_energy")] for t in trees),
        latency=min(t.resources[0, column("latency")] for t in trees),
    )
    assert "extrapolates" in fitted.predict(trees[0].tree, live, tier="live")[0].flags


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gpu_energy": 1e9}, r"no GPU takes 1e\+09 J \(gpu_energy\) in .* s \(latency\)"),
        ({"latency": 0.0}, "no GPU takes|latency is 0"),
        ({"latency": 0.0, "gpu_energy": 0.0}, "latency is 0, expected the seconds of one run"),
    ],
)
def test_readings_that_cannot_be_are_refused(
    measured: Dataset, fitted: Estimator, changes: dict[str, float], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        fitted.predict(measured.trees[0].tree, reading(measured, **changes))
