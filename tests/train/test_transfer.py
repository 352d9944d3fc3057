"""Few labels: an estimator carried to a PC with another idle draw and another supply."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError
from irene_build.train import arithmetic, best, estimator_file
from irene_build.train.transfer import carry_over
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import LEVELS
from tests.train import synthetic

MODELS = {"a": (1, 64), "b": (2, 128), "c": (3, 96)}
SIZES = [(1, 16), (2, 32), (4, 64)]


@pytest.fixture(scope="module")
def other() -> dict[str, Any]:
    return best.fit(synthetic.dataset(MODELS, SIZES, noise=0.005))


def here(labels: int | None = None, seed: int = 0) -> Dataset:
    """The new PC (100 W idle, a worse supply), with so many labelled measurements, or all."""
    full = synthetic.dataset(MODELS, SIZES, noise=0.005, seed=5, idle_w=100.0)
    full.hardware = "new"
    for tree in full.trees:
        tree.energy_j *= 1.01
    return full if labels is None else few_of(full, labels, seed)


def few_of(full: Dataset, labels: int, seed: int = 0) -> Dataset:
    distinct: dict[int, tuple[int, int]] = {}
    for i, tree in enumerate(full.trees):
        for j, number in enumerate(tree.measurement.tolist()):
            distinct.setdefault(number, (i, j))
    rng = np.random.default_rng(seed)
    places = list(distinct.values())
    chosen = {places[k] for k in rng.permutation(len(places))[:labels].tolist()}
    trees = []
    for i, tree in enumerate(full.trees):
        keep = np.array([(i, j) in chosen for j in range(len(tree.energy_j))])
        label = np.where(keep, tree.energy_j, np.nan)
        trees.append(LabelledTree(tree.tree, label, tree.resources, tree.measurement, tree.energy_std_j))
    return Dataset(full.hardware, "wall", "simulated", "emonpi", trees)


def error(estimator: dict[str, Any], tier: str = "profile") -> dict[str, float]:
    """Percent, per level, on a model that neither PC has measured."""
    test = synthetic.dataset({"z": (2, 160)}, [(2, 48), (4, 96)], noise=0.0, idle_w=100.0)
    out: dict[str, list[float]] = {level: [] for level in LEVELS}
    for tree, p in zip(test.trees, arithmetic.predict(estimator, test.trees, tier), strict=True):
        for node, value in zip(tree.tree.nodes, np.abs(p.energy_j / (1.01 * tree.energy_j) - 1), strict=True):
            out[node.level].append(100.0 * float(value))
    return {level: float(np.mean(values)) for level, values in out.items()}


def test_eight_labels_come_near_a_full_calibration(other: dict[str, Any]) -> None:
    full = error(best.fit(here()))
    few = [error(carry_over(other, here(8, seed))) for seed in range(5)]
    none = error(carry_over(other, here(0)))
    for level in LEVELS:
        assert np.mean([e[level] for e in few]) < full[level] + 0.5
        assert none[level] > 10.0


def laptop(models: dict[str, tuple[int, int]], sizes: list[tuple[int, int]], seed: int) -> Dataset:
    """Another GPU and another supply: products and bytes of another speed, a fifth of the power, loss with load."""
    full = synthetic.dataset(models, sizes, noise=0.004, seed=seed)
    full.hardware = "laptop"
    latency, gpu = RESOURCE_FEATURES.index("latency"), RESOURCE_FEATURES.index("gpu_energy")
    for tree in full.trees:
        products = np.array([n.features.get("matmul_flops", 0.0) for n in tree.tree.nodes])
        flops = np.array([max(n.features.get("flops", 0.0), 1e-9) for n in tree.tree.nodes])
        odd = tree.energy_j / (tree.resources[:, gpu] + 60.0 * tree.resources[:, latency])
        tree.resources[:, latency] *= np.where(products > 0.5 * flops, 2.5, 1.8)
        tree.resources[:, gpu] *= np.where(products > 0.5 * flops, 0.5, 0.4)
        time, energy = tree.resources[:, latency], tree.resources[:, gpu]
        tree.energy_j[:] = (18.0 * time + 1.12 * energy + 2e-4 * energy**2 / time) * odd
    return full


def test_a_pc_of_another_kind_needs_no_more_labels(other: dict[str, Any]) -> None:
    test = laptop({"z": (2, 160)}, [(2, 48), (4, 96)], 9)

    def off(estimator: dict[str, Any]) -> float:
        found = arithmetic.predict(estimator, test.trees, "profile")
        return float(
            np.mean(
                [
                    100.0 * np.abs(p.energy_j / t.energy_j - 1.0).mean()
                    for p, t in zip(found, test.trees, strict=True)
                ]
            )
        )

    measured = laptop(MODELS, SIZES, 5)
    full = off(best.fit(measured))
    few = [off(carry_over(other, few_of(measured, 8, seed))) for seed in range(5)]
    assert off(carry_over(other, few_of(measured, 0))) > 20.0
    assert np.mean(few) < full + 0.5


def test_the_form_that_a_level_has_does_not_matter(other: dict[str, Any]) -> None:
    """Near the usual power a curve can stand in for watts and loss: the same joules there, of numbers far from them."""
    bent = json.loads(json.dumps(other))
    tier = bent["tiers"]["profile"]
    columns = bent["tiers"][tier.get("base", "profile")]["columns"]
    energy, time = (
        next(i for i, c in enumerate(columns) if c == {"feature": f}) for f in ("gpu_energy", "latency")
    )
    full = synthetic.dataset(MODELS, SIZES)
    power = np.median(np.concatenate([t.resources[:, 7] / t.resources[:, 6] for t in full.trees]))
    columns.append({"feature": "latency", "map": "inverse"})
    loss, watts = (
        sum(t["weight"] for t in tier["direct"]["module"]["terms"] if t["columns"] == [c])
        for c in (energy, time)
    )
    curve = 0.4 * loss / power
    for level in ("ml", "model"):
        tier["direct"][level]["terms"] = [
            {"name": "gpu_energy", "columns": [energy], "weight": loss - 2.0 * curve * power},
            {"name": "latency", "columns": [time], "weight": watts + curve * power**2},
            {"name": "gpu_power", "columns": [energy, energy, len(columns) - 1], "weight": curve},
        ]
    plain, odd = (
        np.mean([error(carry_over(one, here(8, seed)))["model"] for seed in range(5)])
        for one in (other, bent)
    )
    assert odd < plain + 0.3


def test_the_result_is_an_estimator_of_the_new_pc_that_says_where_it_comes_from(
    other: dict[str, Any],
) -> None:
    carried = carry_over(other, here(8))
    estimator_file.validate(carried, "test")
    assert carried["hardware"] == "new"
    assert carried["trained_on"]["carried_from"] == "synthetic"
    assert other["hardware"] == "synthetic" and "carried_from" not in other["trained_on"]


def test_without_a_label_the_intervals_say_that_nothing_is_known(other: dict[str, Any]) -> None:
    tiers = carry_over(other, here(0))["tiers"]
    assert tiers["profile"]["interval"]["levels"]["ml"]["q"] == pytest.approx(0.7)
    assert tiers["static"]["interval"]["levels"]["model"]["q"] == pytest.approx(0.7)


def test_leaves_are_scaled_to_the_new_pc(other: dict[str, Any]) -> None:
    assert error(carry_over(other, here(16)), "static")["model"] < 0.5 * error(other, "static")["model"]


def test_a_bad_label_among_many_is_not_followed(other: dict[str, Any]) -> None:
    labels = here(24)
    tree = next(t for t in labels.trees if np.isfinite(t.energy_j).any())
    tree.energy_j[np.flatnonzero(np.isfinite(tree.energy_j))[0]] *= 5.0
    assert error(carry_over(other, labels))["model"] < 3.0


def test_an_estimator_that_reads_nothing_cannot_be_carried_over(other: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="cannot be carried over"):
        carry_over({**other, "tiers": {"static": other["tiers"]["static"]}}, here(8))


def test_labels_without_readings_are_refused(other: dict[str, Any]) -> None:
    labels = here(8)
    for tree in labels.trees:
        tree.resources[:] = np.nan
    with pytest.raises(DatasetError, match="none of the 8 labelled nodes has the readings"):
        carry_over(other, labels)
