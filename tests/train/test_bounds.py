"""What was learned bends the law, and never breaks it: bounds, growth with size, intervals that hold their number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.train import best
from irene_build.train.formulas import Columns, correction, leaf
from irene_runtime.model import Estimator
from irene_runtime.tree import ModelTree, Node
from tests.train import synthetic

FACTOR = {"leaf": 5.0, "module": 2.0, "one model": 2.0}
#: What a rounding of 1e-9 may move.
SLACK = 1.0 + 1e-9


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    models = {"a": (1, 64), "b": (2, 128), "c": (3, 96)}
    return Estimator(best.fit(synthetic.dataset(models, [(1, 16), (2, 32), (4, 64)], noise=0.02)))


def trees() -> Any:
    return st.builds(
        synthetic.tree, st.just("x"), st.integers(1, 3), st.sampled_from([16, 64, 128, 1024]),
        st.sampled_from([1, 2, 8, 64]), st.sampled_from([4, 32, 256, 4096]),
    )  # fmt: skip


def scaled(tree: ModelTree, factor: float) -> ModelTree:
    """Every feature of every node times a factor, and the sizes of the input."""
    nodes = [
        Node(
            n.scope,
            n.type,
            n.level,
            n.parent,
            n.primitive,
            n.call,
            {k: v * factor for k, v in n.features.items()},
        )
        for n in tree.nodes
    ]
    header = {**tree.header, **{k: tree.header[k] * factor for k in ("batch_size", "seq_len")}}
    return ModelTree(nodes, header)


@given(tree=trees())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_leaf_lies_within_a_factor_of_five_of_the_law(estimator: Estimator, tree: ModelTree) -> None:
    tier, said = estimator.tiers["static"], estimator.predict(tree, tier="static")
    for node, own in zip(said.nodes, estimator.features(tree), strict=True):
        if node.level == "ml":
            ratio = node.energy_j / tier.fallback(own)
            assert 1.0 / FACTOR["leaf"] / SLACK <= ratio <= FACTOR["leaf"] * SLACK


@given(x=st.lists(st.floats(0.0, 1e12), min_size=8, max_size=8))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_correction_lies_within_a_factor_of_two(estimator: Estimator, x: list[float]) -> None:
    tier, names = estimator.data["tiers"]["static"], estimator.data["features"]
    features = np.resize(np.array(x), (1, len(names)))
    columns = Columns(tier["columns"], names, features)
    every = [*tier["correction"].values(), *(entry.get("correction") for entry in tier["leaf"].values())]
    for data in every:
        assert 1.0 / FACTOR["module"] / SLACK <= correction(data, columns)[0] <= FACTOR["module"] * SLACK


def test_far_from_data_a_leaf_goes_to_what_all_primitives_share(estimator: Estimator) -> None:
    tier, seen = estimator.tiers["static"], []
    for elements in (1e12, 1e24, 1e48, 1e96):
        name, features = synthetic.pointwise("GELU", int(elements))
        own = {**features, "batch_size": 8.0, "seq_len": 64.0, "input_size": 512.0}
        tree = ModelTree([Node("", "GELU", "ml", -1, name, 0, features)], {"batch_size": 8, "seq_len": 64})
        seen.append(abs(math.log(estimator.predict(tree, tier="static").energy_j / tier.fallback(own))))
    assert seen[0] > seen[1] > seen[2] > seen[3]


def test_a_primitive_of_one_model_stays_within_a_factor_of_two() -> None:
    dataset = synthetic.dataset({"a": (1, 64), "b": (2, 128), "c": (3, 96)}, [(1, 16), (2, 32), (4, 64)])
    for tree in dataset.trees:
        if tree.model != "a":
            tree.energy_j[[n.primitive == "GELU" for n in tree.tree.nodes]] = np.nan
    tier = best.fit(dataset, tiers=("static",))["tiers"]["static"]
    assert tier["bend"]["limits"] == {"GELU": pytest.approx(math.log(FACTOR["one model"]))}


@given(tree=trees())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_prediction_lies_inside_its_own_interval(estimator: Estimator, tree: ModelTree) -> None:
    for node in estimator.predict(tree, tier="static").nodes:
        assert 0.0 < node.interval_j[0] <= node.energy_j <= node.interval_j[1] < math.inf


@given(
    layers=st.integers(1, 3), hidden=st.sampled_from([16, 64, 128, 1024]), batch=st.sampled_from([1, 2, 8, 64]),
    length=st.sampled_from([4, 32, 256, 4096]), more=st.sampled_from([(2, 1), (1, 2), (4, 4)]),
)  # fmt: skip
@settings(max_examples=40, deadline=None, derandomize=True)
def test_joules_do_not_fall_when_batch_or_sequence_grows(
    estimator: Estimator, layers: int, hidden: int, batch: int, length: int, more: tuple[int, int]
) -> None:
    small = synthetic.tree("x", layers, hidden, batch, length)
    large = synthetic.tree("x", layers, hidden, batch * more[0], length * more[1])
    before, after = (estimator.predict(t, tier="static").energy_j for t in (small, large))
    assert after >= before / SLACK


@given(tree=trees())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_halving_every_feature_never_raises_the_joules(estimator: Estimator, tree: ModelTree) -> None:
    whole = estimator.predict(tree, tier="static").energy_j
    assert estimator.predict(scaled(tree, 0.5), tier="static").energy_j <= whole * SLACK


def test_the_law_of_a_leaf_never_falls(estimator: Estimator) -> None:
    tier = estimator.data["tiers"]["static"]
    assert all(term["weight"] >= 0.0 for term in tier["fallback"]["terms"])
    names = estimator.data["features"]
    rows = np.outer(2.0 ** np.arange(40.0), np.ones(len(names)))
    assert (np.diff(leaf(tier["fallback"], Columns(tier["columns"], names, rows))) >= 0.0).all()
