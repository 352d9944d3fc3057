"""Hosts of one kind: what they share is found, and the next needs few labels or none."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import arithmetic, best, estimator_file, pooling
from irene_build.train.moments import moments
from irene_build.train.transfer import carry_over
from tests.train import synthetic
from tests.train.test_transfer import MODELS, SIZES, few_of

#: Hosts of one kind: idle draw of the rest (W), loss of the supply.
HOSTS = {"a": (60.0, 1.00), "b": (63.0, 1.01), "c": (58.0, 1.015), "d": (61.0, 1.005)}


def host(name: str, models: dict[str, tuple[int, int]] = MODELS, noise: float = 0.005) -> Dataset:
    idle_w, loss = HOSTS[name]
    made = synthetic.dataset(models, SIZES, noise=noise, seed=ord(name), idle_w=idle_w)
    made.hardware = name
    for tree in made.trees:
        tree.energy_j += (loss - 1.0) * tree.resources[:, 7]
    return made


@pytest.fixture(scope="module")
def first() -> dict[str, Any]:
    return best.fit(host("a"))


def off(estimator: dict[str, Any], data: Dataset) -> float:
    found = arithmetic.predict(estimator, data.trees, "profile")
    return float(
        np.mean(
            [
                100.0 * np.abs(p.energy_j / t.energy_j - 1.0).mean()
                for p, t in zip(found, data.trees, strict=True)
            ]
        )
    )


def test_mean_and_deviation_between_hosts_are_those_that_numbers_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.1, 0.4, (400, 1))
    values = 5.0 + rng.normal(scale=0.5, size=(400, 1)) + rng.normal(size=(400, 1)) * errors
    mean, between, unsure = moments(values, errors)
    assert mean[0] == pytest.approx(5.0, abs=0.1) and between[0] == pytest.approx(0.5, abs=0.06)
    assert 0.0 < unsure[0] < 0.05
    same = moments(np.full((3, 1), 2.0), np.full((3, 1), 0.1))
    assert same[0][0] == 2.0 and same[1][0] == 0.0


def test_the_next_host_needs_no_label_or_eight(first: dict[str, Any]) -> None:
    kind = pooling.pooled(first, [host("a"), host("b"), host("c")], "kind")
    estimator_file.validate(kind, "test")
    test = host("d", {"z": (2, 160)}, noise=0.0)
    full, none = off(best.fit(host("d")), test), off(kind, test)
    eight = [off(carry_over(kind, few_of(host("d"), 8, seed)), test) for seed in range(4)]
    assert none < full + 1.5
    assert np.mean(eight) < full + 0.15
    assert kind["hardware"] == "kind" and len(kind["trained_on"]["pool"]["hosts"]) == 3
    assert kind["tiers"]["profile"]["interval"]["levels"]["model"]["q"] < 0.2


def test_it_says_how_hosts_differ(first: dict[str, Any]) -> None:
    hosts = [host(name) for name in HOSTS]
    found = pooling.pool(first, hosts)
    assert [round(f.values[1]) for f in found.hosts] == pytest.approx([60, 63, 58, 61], abs=2)
    assert 0.5 < found.between[1] < 6.0 and found.deviation[1] > found.between[1] / 2
    odd = copy.deepcopy(hosts)
    for tree in odd[3].trees:
        tree.energy_j += 60.0 * tree.resources[:, 6]
    errors = pooling.left_out(first, odd)
    assert max(errors, key=lambda name: errors[name]) == "d" and errors["d"] > 1.5 * errors["a"]


def test_one_host_or_one_without_readings_is_told(first: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="two or more hosts"):
        pooling.pooled(first, [host("a")], "kind")
    blind = host("b")
    for tree in blind.trees:
        tree.resources[:] = np.nan
    with pytest.raises(DatasetError, match="readings"):
        pooling.pooled(first, [host("a"), blind], "kind")
