"""Whatever part of a campaign is there: a result that is finite and positive, or an error that says what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irene_build.dataset.splits import PROTOCOLS
from irene_build.dataset.table import Dataset
from irene_build.errors import IreneError
from irene_build.evaluate import run
from irene_build.train import api, arithmetic, estimator_file
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import LEVELS
from tests.train import synthetic

MODELS = {"a": (1, 32), "b": (2, 64), "c": (1, 96), "d": (2, 32)}
SIZES = [(1, 8), (2, 16), (4, 16), (1, 64)]
SOME = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """A few models at a few sizes; labels, readings and primitives go missing, readings are constant or strange."""
    names = draw(st.lists(st.sampled_from(sorted(MODELS)), min_size=1, max_size=4, unique=True))
    sizes = draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=3, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    dataset = synthetic.dataset(
        {name: MODELS[name] for name in names},
        sizes,
        noise=draw(st.sampled_from([0.0, 0.01, 1.0])),
        gpu=draw(st.booleans()),
        hidden=tuple(draw(st.lists(st.sampled_from(["Linear", "GELU", "Copy", "LayerNorm"]), max_size=3))),
        label_source=draw(st.sampled_from(["emonpi", "nvml"])),
    )
    lost = {level: draw(st.sampled_from([0.0, 0.0, 0.5, 1.0])) for level in LEVELS}
    gone = draw(st.sampled_from([0.0, 0.0, 0.3, 1.0]))
    constant = draw(st.lists(st.sampled_from(RESOURCE_FEATURES), max_size=3))
    scale = draw(st.sampled_from([1.0, 1e-9, 1e9]))
    for tree in dataset.trees:
        share = np.array([lost[node.level] for node in tree.tree.nodes])
        tree.energy_j[rng.random(len(share)) < share] = np.nan
        tree.energy_j[:] *= scale
        tree.resources[rng.random(len(share)) < gone] = np.nan
        for name in constant:
            column = tree.resources[:, RESOURCE_FEATURES.index(name)]
            column[~np.isnan(column)] = 42.0
        tree.measurement[np.isnan(tree.energy_j)] = -1
    return dataset


@settings(max_examples=12, **SOME)
@given(datasets(), st.sampled_from(estimator_file.METHODS))
def test_training_gives_an_estimator_or_says_what_is_missing(dataset: Dataset, method: str) -> None:
    try:
        estimator = api.fit(dataset, method)
    except IreneError as error:
        assert len(str(error)) > 20
        return
    estimator_file.validate(estimator, "test")
    estimator_file.dumps(estimator)
    asked = synthetic.dataset({"z": (2, 48)}, [(2, 24)], noise=0.0).trees
    for tier in estimator["tiers"]:
        (found,) = arithmetic.predict(estimator, asked, tier)
        said = ~np.isnan(found.energy_j)
        assert said.all() or tier != "static"
        assert np.isfinite(found.low_j[said]).all() and np.isfinite(found.high_j[said]).all()
        assert (found.low_j[said] <= found.energy_j[said]).all()
        assert (found.energy_j[said] <= found.high_j[said]).all()
        if method == "best":
            assert (found.energy_j[said] > 0.0).all()


@settings(max_examples=12, **SOME)
@given(
    datasets(),
    st.sampled_from(estimator_file.METHODS),
    st.sampled_from(PROTOCOLS),
    st.sampled_from(["all", "model"]),
)
def test_evaluation_gives_numbers_or_says_what_is_missing(
    dataset: Dataset, method: str, protocol: str, labels: str
) -> None:
    try:
        result = run.evaluate(dataset, method, protocol, labels=labels)
    except IreneError as error:
        assert len(str(error)) > 20
        return
    for tier in result["tiers"].values():
        for level in LEVELS:
            found = tier[level]
            numbers = [found[key] for key in ("mape", "p50", "p95", "p99", "max", "coverage90")]
            assert all(number is None or np.isfinite(number) for number in numbers)
            assert found["n"] == 0 or found["mape"] is not None or found["n_unpredicted"] == found["n"]
    for found in result["baselines"].values():
        assert all(found[level] is None or np.isfinite(found[level]) for level in LEVELS)


def test_nothing_labelled_is_refused() -> None:
    dataset = synthetic.dataset({"a": (1, 32)}, [(1, 8)])
    for tree in dataset.trees:
        tree.energy_j[:] = np.nan
    for method in estimator_file.METHODS:
        with pytest.raises(IreneError, match="no label"):
            api.fit(dataset, method)
