"""The trainer's vectorised arithmetic against the runtime's, which evaluates one tree at a time."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.errors import EstimatorError, TreeError
from irene_build.train import arithmetic, best
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.model import Estimator
from irene_runtime.tree import ModelTree, Node
from tests.train import synthetic

EPS = np.finfo(float).eps
MODELS = {"a": (1, 64), "b": (2, 128), "c": (3, 96)}


@pytest.fixture(scope="module")
def estimator() -> dict[str, Any]:
    return best.fit(synthetic.dataset(MODELS, [(1, 16), (2, 32), (4, 64)], hidden=("Copy",)))


def with_readings(made: ModelTree) -> ModelTree:
    """The tree with the readings of a run in its nodes."""
    tree = synthetic.labelled(made, np.random.default_rng(1), 0.01, 0)
    nodes = [
        Node(n.scope, n.type, n.level, n.parent, n.primitive, n.call,
             {**n.features, **{f: float(v) for f, v in zip(RESOURCE_FEATURES, row, strict=True) if v == v}})
        for n, row in zip(made.nodes, tree.resources, strict=True)
    ]  # fmt: skip
    return ModelTree(nodes, made.header)


def agree(estimator: dict[str, Any], tree: ModelTree, tier: str) -> None:
    here = arithmetic.predict(estimator, [tree], tier)[0]
    there = Estimator(estimator).predict(tree, tier=tier)
    for index, node in enumerate(there.nodes):
        assert here.energy_j[index] == pytest.approx(node.energy_j, rel=64 * EPS)
        assert here.low_j[index] == pytest.approx(node.interval_j[0], rel=256 * EPS)
        assert here.high_j[index] == pytest.approx(node.interval_j[1], rel=256 * EPS)
        assert here.alpha[index] == pytest.approx(1.0 if node.alpha is None else node.alpha, rel=16 * EPS)


@pytest.mark.parametrize("tier", ["static", "live", "profile"])
@given(
    layers=st.integers(1, 3), hidden=st.sampled_from([32, 64, 100, 512]), batch=st.integers(1, 16),
    length=st.integers(1, 200),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_it_agrees_with_the_runtime(
    estimator: dict[str, Any], tier: str, layers: int, hidden: int, batch: int, length: int
) -> None:
    agree(estimator, with_readings(synthetic.tree("x", layers, hidden, batch, length)), tier)


def test_alpha_and_polynomials_agree_with_the_runtime(estimator: dict[str, Any]) -> None:
    """The paper's forms: an aggregation, and a polynomial correction of leaves."""
    changed = copy.deepcopy(estimator)
    tier = changed["tiers"]["static"]
    columns = [next(i for i, c in enumerate(tier["columns"]) if c == {"feature": f, "map": "log"})
               for f in ("kernels", "num_parameters")]  # fmt: skip
    tier["aggregation"] = {
        "columns": columns, "mean": [1.0, 5.0], "scale": [2.0, 3.0], "degree": 3, "bias": 0.05, "tau": 2.0,
        "weights": [0.1 * (-1) ** i / (i + 1) for i in range(9)],
    }  # fmt: skip
    tier["leaf"]["Linear"]["correction"] = {
        "columns": columns[:1], "mean": [0.0], "scale": [1.0], "kernel": "poly", "degree": 2, "bias": 0.2,
        "weights": [0.3, -0.1], "limit": 0.5,
    }  # fmt: skip
    for name in ("static", "profile"):
        agree(changed, with_readings(synthetic.tree("x", 2, 128, 2, 40)), name)


def test_a_forest_gives_what_each_tree_gives(estimator: dict[str, Any]) -> None:
    trees = [with_readings(synthetic.tree("x", n, 64, n, 32)) for n in (1, 2, 3)]
    together = arithmetic.predict(estimator, trees, "profile")
    for tree, p in zip(trees, together, strict=True):
        (alone,) = arithmetic.predict(estimator, [tree], "profile")
        assert (alone.energy_j == p.energy_j).all() and (alone.high_j == p.high_j).all()


def test_a_tree_without_readings_falls_back_and_says_so(estimator: dict[str, Any]) -> None:
    with_, without = with_readings(synthetic.tree("x", 1, 64, 2, 32)), synthetic.tree("x", 1, 64, 2, 32)
    full, bare = arithmetic.predict(estimator, [with_, without], "profile")
    assert full.tier == "profile" and not (full.flags & arithmetic.FELL_BACK).any()
    assert bare.tier == "static" and (bare.flags & arithmetic.FELL_BACK).all()


def test_simulated_labels_flag_every_node(estimator: dict[str, Any]) -> None:
    (p,) = arithmetic.predict(estimator, [synthetic.tree("x", 1, 64, 2, 32)], "static")
    assert (p.flags & arithmetic.SIMULATED).all()


def test_outside_the_ranges_intervals_widen_and_a_flag_is_set(estimator: dict[str, Any]) -> None:
    near, far = (synthetic.tree("x", 2, 128, 2, 32), synthetic.tree("x", 2, 2048, 64, 512))
    inside, outside = arithmetic.predict(estimator, [near, far], "static")
    index = next(i for i, n in enumerate(near.nodes) if n.primitive == "Linear")
    assert not inside.flags[index] & arithmetic.EXTRAPOLATES
    assert outside.flags[index] & arithmetic.EXTRAPOLATES
    width = [math.log(p.high_j[index] / p.low_j[index]) for p in (inside, outside)]
    assert width[1] > 1.5 * width[0]


def test_a_leaf_that_lacks_its_shape_is_refused(estimator: dict[str, Any]) -> None:
    tree = synthetic.tree("x", 1, 64, 2, 32)
    index = next(i for i, n in enumerate(tree.nodes) if n.primitive == "Linear")
    del tree.nodes[index].features["gemm_k"]
    reads = copy.deepcopy(estimator)
    reads["features"] = sorted({*reads["features"], "gemm_k"})
    reads["tiers"]["static"]["ranges"]["Linear"]["gemm_k"] = [64.0, 512.0]
    with pytest.raises(TreeError, match="lacks the feature gemm_k"):
        arithmetic.predict(reads, [tree], "static")


def test_a_tier_that_is_not_there_is_an_error(estimator: dict[str, Any]) -> None:
    lacking = {**estimator, "tiers": {"static": estimator["tiers"]["static"]}}
    with pytest.raises(EstimatorError, match="no tier 'live'"):
        arithmetic.predict(lacking, [synthetic.tree("x", 1, 64, 2, 32)], "live")


def test_a_module_of_an_unknown_kind_gets_the_wider_interval(estimator: dict[str, Any]) -> None:
    changed = copy.deepcopy(estimator)
    known = synthetic.tree("a", 1, 64, 2, 32)
    strange = synthetic.tree("x", 1, 72, 2, 32)
    entry = changed["tiers"]["static"]["interval"]["levels"]["module"]
    assert entry["far"] >= entry["q"]
    entry["far"] = 0.5
    for made, q in ((known, entry["q"]), (strange, entry["far"])):
        (p,) = arithmetic.predict(changed, [made], "static")
        index = next(i for i, n in enumerate(made.nodes) if n.type == "Mix")
        assert math.log(p.high_j[index] / p.energy_j[index]) == pytest.approx(q, rel=1e-9)
