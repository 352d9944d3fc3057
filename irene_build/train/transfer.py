"""Few labels: carries an estimator to a similar PC (``calibrate --from OTHER --labels N``).

Between similar PCs the energy of a run differs by the supply's loss, one factor on everything, and by what the
PC draws whatever it does, watts times the time of the run. So two numbers are fitted to the labels, whatever
the form of D(n) is: D_new(n) = factor * D(n) + watts * latency(n), drawn to 1 and 0. The leaves, known only up
to the new PC's speed, are scaled by one number and get intervals that say how well that fits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import api, arithmetic, formulas, intervals
from irene_build.train.forest import Forest, flatten
from irene_runtime.tree import LEVELS

#: How far the factor is expected from 1, and the watts from 0 (as a share of the mean power of a node).
FACTOR_SPREAD, POWER_SPREAD = 0.015, 0.5
#: Expected error of one reading; labels that miss by more count less and less (Huber).
NOISE = 0.01
ROUNDS = 10
#: Runs shorter than this are mostly launches, which repeat badly (seconds): they count less.
LAUNCH_S = 1e-4


def carry_over(estimator: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """``estimator`` of another PC, made to fit the labelled nodes of ``dataset``.

    Without a label it is carried over as it is, with wide intervals. Raises DatasetError where the estimator
    has no tier that reads a run, or the labelled nodes lack what it reads.
    """
    tiers = {name: arithmetic.tier_of(estimator, name) for name in estimator["tiers"]}
    reading = next((tiers[n] for n in ("profile", "live") if n in tiers and tiers[n].get("direct")), None)
    if reading is None:
        raise DatasetError(
            f"the estimator of {estimator['hardware']} has no tier that reads latency or gpu_energy: "
            "it cannot be carried over; calibrate this PC by itself"
        )
    forest, rows = _labelled(estimator, dataset)
    parts = _parts(reading, forest, rows)
    usable = np.isfinite(parts).all(axis=1)
    if len(rows) and not usable.any():
        raise DatasetError(
            f"none of the {len(rows)} labelled nodes has the readings (latency, gpu_energy, cpu_util) "
            f"that the estimator of {estimator['hardware']} is made of"
        )
    parts, label = parts[usable], forest.energy_j[rows[usable]]
    factor, watts = _solve(parts, label)
    error = np.log(np.maximum(parts @ np.array([factor, watts]) / label, 1e-9))
    out: dict[str, Any] = json.loads(json.dumps(estimator))
    out.update(api.header(dataset, str(estimator["method"]), str(estimator["cost_model"])))
    out["trained_on"]["carried_from"] = str(estimator["hardware"])
    for name, tier in out["tiers"].items():
        for level, direct in tier.get("direct", {}).items():
            direct["terms"] = _carried(direct["terms"], factor, watts, _latency(tiers[name]))
            _widen(tier["interval"]["levels"][level], error)
    _scale_leaves(out, tiers, estimator, dataset)
    return api.compact(out)


def _labelled(estimator: Mapping[str, Any], dataset: Dataset) -> tuple[Forest, np.ndarray]:
    """The dataset as a forest, and one row of every measurement that has a label."""
    forest = flatten(dataset.trees, arithmetic.names_of(estimator))
    rows = np.flatnonzero(np.isfinite(forest.energy_j))
    own = np.where(forest.measurement[rows] >= 0, forest.measurement[rows], -1 - rows)
    _, first = np.unique(own, return_index=True)
    return forest, rows[np.sort(first)]


def _latency(tier: Mapping[str, Any]) -> int | None:
    """The column that is the latency of a run."""
    plain = [
        c.get("feature") == "latency" and c.get("map", "identity") == "identity" for c in tier["columns"]
    ]
    return plain.index(True) if True in plain else None


def _parts(tier: Mapping[str, Any], forest: Forest, rows: np.ndarray) -> np.ndarray:
    """float64[rows, 2]: D(n) as the other PC has it, and the latency (0 where D reads none); NaN where unknown."""
    out = np.full((len(rows), 2), np.nan)
    latency = _latency(tier)
    for level, direct in tier["direct"].items():
        here = np.flatnonzero(forest.level[rows] == LEVELS.index(level))
        columns = formulas.Columns(tier["columns"], forest.names, forest.features[rows[here]])
        out[here, 0] = formulas.linear(direct["terms"], None, columns)
        out[here, 1] = 0.0 if latency is None else columns[latency]
    return out


def _solve(parts: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Factor and watts: Huber loss of relative errors, drawn to 1 and 0."""
    if not len(label):
        return 1.0, 0.0
    design = parts / label[:, None]
    timed = parts[:, 1] > 0.0
    power = float(np.median(parts[timed, 0] / parts[timed, 1])) if timed.any() else 1.0
    prior = np.diag(np.array([FACTOR_SPREAD, POWER_SPREAD * power]) ** -2.0)
    found, trust = np.array([1.0, 0.0]), np.ones(len(label))
    steady = parts[:, 1] / (parts[:, 1] + LAUNCH_S) if timed.all() else np.ones(len(label))
    for _ in range(ROUNDS):
        weight = steady * trust / NOISE**2
        system = design.T @ (design * weight[:, None]) + prior
        found = np.linalg.solve(system, design.T @ weight + prior @ np.array([1.0, 0.0]))
        trust = np.minimum(1.0, 2.0 * NOISE / np.maximum(np.abs(design @ found - 1.0), 1e-12))
    return float(found[0]), float(found[1])


def _carried(
    terms: list[dict[str, Any]], factor: float, watts: float, latency: int | None
) -> list[dict[str, Any]]:
    """The terms of factor * D + watts * latency."""
    out = [{**term, "weight": term["weight"] * factor} for term in terms]
    mine = next(
        (
            t
            for t in out
            if t["columns"] == [latency] and t.get("mean", 0.0) == 0.0 and t.get("scale", 1.0) == 1.0
        ),
        None,
    )
    if mine is not None:
        mine["weight"] += watts
    elif latency is not None and watts != 0.0:
        out.append({"name": "watts", "columns": [latency], "weight": watts, "mean": 0.0, "scale": 1.0})
    return out


def _widen(entry: dict[str, Any], error: np.ndarray) -> None:
    """An interval that holds what the labels showed; with no label one that says that nothing is known."""
    shown = intervals.UNKNOWN
    if len(error):
        size = intervals.quantile(error, np.ones(len(error)), intervals.COVERAGE)
        shown = size * (1.0 + 1.0 / len(error))
    entry["q"] = round(min(max(float(entry["q"]), shown), intervals.UNKNOWN), 5)


def _scale_leaves(
    out: dict[str, Any], tiers: Mapping[str, Any], estimator: Mapping[str, Any], dataset: Dataset
) -> None:
    """Leaves of every tier times the middle ratio of label and prediction."""
    if "static" not in tiers:
        return
    found = []
    for tree, p in zip(dataset.trees, arithmetic.predict(estimator, dataset.trees, "static"), strict=True):
        known = np.isfinite(tree.energy_j)
        found.append(np.log(tree.energy_j[known] / p.energy_j[known]))
    ratio = np.concatenate(found) if found else np.empty(0)
    middle = float(np.median(ratio)) if len(ratio) else 0.0
    for tier in out["tiers"].values():
        for data in [*tier.get("leaf", {}).values(), *([tier["fallback"]] if "fallback" in tier else [])]:
            for term in data["terms"]:
                term["weight"] *= math.exp(middle)
            if data.get("floor") is not None:
                data["floor"] *= math.exp(middle)
    for name in ("static", "live"):
        for level, entry in out["tiers"].get(name, {}).get("interval", {}).get("levels", {}).items():
            if level not in out["tiers"][name].get("direct", {}):
                _widen(entry, ratio - middle)
