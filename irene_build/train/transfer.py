"""Few labels: carries an estimator to a similar PC (``calibrate --from OTHER --labels N``).

What a run of a node takes is what its GPU counts, times the supply's loss, and what the rest of the PC draws while it
runs: D(n) = loss gpu_energy + watts latency + curve gpu_energy^2 / latency (a supply loses more under load). These
three are fitted to the labels at all levels together, drawn to those of the other PC. An estimator that does not
read gpu_energy keeps its form: D_new(n) = factor D(n) + watts latency. The leaves, known only up to the new PC's
speed, are scaled by one number and get intervals that say how well that fits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import arithmetic, estimator_file, formulas, intervals
from irene_build.train.forest import Forest, flatten
from irene_runtime.tree import LEVELS

#: How far the loss (or the factor) is expected from the other PC's, the watts from its watts (as a share of the mean
#: power of a node), and the curve from none (1/W).
LOSS_SPREAD, POWER_SPREAD, CURVE_SPREAD = 0.05, 0.5, 3e-4
#: What is fitted: of the joules that the GPU counts, of the rest of the PC (W), of the load (1/W).
NAMES = ("loss", "watts", "curve")
#: Expected error of one reading; labels that miss by more count less and less (Huber).
NOISE = 0.006
ROUNDS = 10
#: Runs shorter than this are mostly launches, which repeat badly (seconds): they count less.
LAUNCH_S = 1e-4


def carry_over(estimator: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """``estimator`` of another PC, made to fit the labelled nodes of ``dataset``.

    Without a label it is carried over as it is, with wide intervals. Raises DatasetError where the estimator
    has no tier that reads a run, or the labelled nodes lack what it reads.
    """
    tiers = {name: arithmetic.tier_of(estimator, name) for name in estimator["tiers"]}
    law, parts, label = readings(estimator, dataset)
    pool = dict(estimator["trained_on"].get("pool") or {})
    found = _solve(parts, label, law, pool) if law is not None and pool else _solve(parts, label, law)
    error = np.log(np.maximum(parts @ found / label, 1e-9))
    out: dict[str, Any] = json.loads(json.dumps(estimator))
    out.update(estimator_file.header(dataset, str(estimator["method"]), str(estimator["cost_model"])))
    out["trained_on"]["carried_from"] = str(estimator["hardware"])
    for name, tier in out["tiers"].items():
        columns = out["tiers"].get(tier.get("base", name), tier)["columns"]
        for level, direct in tier.get("direct", {}).items():
            if len(label) or not pool:
                _widen(tier["interval"]["levels"][level], error)
            if not len(label):
                continue
            if law is None:
                direct["terms"] = _carried(
                    direct["terms"], float(found[0]), float(found[1]), _latency(tiers[name])
                )
            else:
                direct["terms"] = written(columns, found.tolist())
            # Leaves of another PC know less of a node than its own reading does.
            direct["pool"] = 1.0
    ratio = _leaf_ratio(tiers, estimator, dataset)
    if ratio is not None:
        scale_leaves(out, float(np.median(ratio)) if len(ratio) else 0.0, ratio)
    return estimator_file.compact(out)


def readings(
    estimator: Mapping[str, Any], dataset: Dataset
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """The other PC's loss, watts and curve (None: no such law), what is weighed of labels, and these.

    Raises DatasetError as ``carry_over`` does.
    """
    tiers = {name: arithmetic.tier_of(estimator, name) for name in estimator["tiers"]}
    reading = next((tiers[n] for n in ("profile", "live") if n in tiers and tiers[n].get("direct")), None)
    if reading is None:
        raise DatasetError(
            f"the estimator of {estimator['hardware']} has no tier that reads latency or gpu_energy: "
            "it cannot be carried over; calibrate this PC by itself"
        )
    forest, rows = _labelled(estimator, dataset)
    law = _law(reading, forest)
    parts = _parts(reading, law, forest, rows)
    usable = np.isfinite(parts).all(axis=1)
    if len(rows) and not usable.any():
        raise DatasetError(
            f"none of the {len(rows)} labelled nodes has the readings (latency, gpu_energy, cpu_util) "
            f"that the estimator of {estimator['hardware']} is made of"
        )
    parts, label = parts[usable], forest.energy_j[rows[usable]]
    return law, parts, label


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


def _law(tier: Mapping[str, Any], forest: Forest) -> np.ndarray | None:
    """What the other PC has for loss, watts and curve (0); None where its D does not read gpu_energy and latency.

    Of modules and roots first, which say what the whole PC takes; leaves may have small extras of their own. Where
    no level is a straight line, the line that comes closest to one on the readings of this PC's nodes: a curve stands
    in for watts and loss, so that their single numbers say little.
    """
    wanted = [{"feature": name, "map": "identity"} for name in ("gpu_energy", "latency")]
    columns = [{"map": "identity", **column} for column in tier["columns"]]
    if not all(one in columns for one in wanted):
        return None
    places = [[columns.index(one)] for one in wanted]
    levels = [level for level in ("module", "model", "ml") if level in tier["direct"]]
    for level in levels:
        terms = tier["direct"][level]["terms"]
        weight = [sum(t["weight"] for t in terms if t["columns"] == place) for place in places]
        if min(weight) > 0.0 and not any(t["columns"].count(places[0][0]) > 1 for t in terms):
            return np.array([*weight, 0.0])
    said = _source(tier, forest, np.arange(len(forest.level)))
    design = np.column_stack([forest.features[:, forest.names.index(str(one["feature"]))] for one in wanted])
    known = np.isfinite(design).all(axis=1) & (said > 0.0)
    for level in levels:
        here = known & (forest.level == LEVELS.index(level))
        if here.any():
            found, _ = nnls(design[here] / said[here, None], np.ones(int(here.sum())))
            if found.min() > 0.0:
                return np.array([*found, 0.0])
    return None


def _source(tier: Mapping[str, Any], forest: Forest, rows: np.ndarray) -> np.ndarray:
    """D of these nodes as the other PC has it, float64[rows]; NaN where it has none."""
    out = np.full(len(rows), np.nan)
    for level, direct in tier["direct"].items():
        here = np.flatnonzero(forest.level[rows] == LEVELS.index(level))
        columns = formulas.Columns(tier["columns"], forest.names, forest.features[rows[here]])
        out[here] = formulas.linear(direct["terms"], None, columns)
    return out


def _parts(tier: Mapping[str, Any], law: np.ndarray | None, forest: Forest, rows: np.ndarray) -> np.ndarray:
    """What is weighed, float64[rows, 3]: gpu_energy, latency and gpu_energy^2 / latency; NaN where unknown.

    Without a law float64[rows, 2]: D(n) as the other PC has it, and the latency (0 where D reads none).
    """
    if law is not None:
        energy, time = (forest.features[rows, forest.names.index(name)] for name in ("gpu_energy", "latency"))
        return np.column_stack([energy, time, energy**2 / np.maximum(time, formulas.TINY)])
    latency = _latency(tier)
    if latency is None:
        return np.column_stack([_source(tier, forest, rows), np.zeros(len(rows))])
    columns = formulas.Columns(tier["columns"], forest.names, forest.features[rows])
    return np.column_stack([_source(tier, forest, rows), columns[latency]])


def _solve(
    parts: np.ndarray, label: np.ndarray, law: np.ndarray | None, pool: Mapping[str, Any] | None = None
) -> np.ndarray:
    """The weights of ``parts``: Huber loss of relative errors, drawn to the law, or to the factor 1 and 0 W.

    With a law none is negative: no reading takes joules away. ``pool`` (``pooling.Pool``): what hosts of one kind
    share and how far they differ stands in for the law and for the spreads above.
    """
    prior = np.array([1.0, 0.0]) if law is None else law
    if pool:
        prior = np.array([pool["mean"][name] for name in NAMES])
    if not len(label):
        return prior
    spread = usual_spread(parts, label)[: len(prior)]
    if pool:
        spread = np.array([pool["deviation"][name] for name in NAMES])
    chosen = np.ones(len(prior), dtype=bool)
    while True:
        found = np.zeros(len(prior))
        found[chosen] = huber(parts[:, chosen], label, prior[chosen], spread[chosen], parts[:, 1])
        if law is None or (found >= 0.0).all():
            return found
        chosen[int(np.argmin(found / spread))] = False


def usual_spread(parts: np.ndarray, label: np.ndarray) -> np.ndarray:
    """How far loss, watts and curve are expected from those of another PC, float64[3]."""
    timed = parts[:, 1] > 0.0
    power = float(np.median(label[timed] / parts[timed, 1])) if timed.any() else 1.0
    return np.array([LOSS_SPREAD, POWER_SPREAD * power, CURVE_SPREAD])


def huber(
    parts: np.ndarray, label: np.ndarray, prior: np.ndarray, spread: np.ndarray, seconds: np.ndarray
) -> np.ndarray:
    design, pull = parts / label[:, None], np.diag(spread**-2.0)
    steady = seconds / (seconds + LAUNCH_S) if (seconds > 0.0).all() else np.ones(len(label))
    found, trust = prior, np.ones(len(label))
    for _ in range(ROUNDS):
        weight = steady * trust / NOISE**2
        system = design.T @ (design * weight[:, None]) + pull
        found = np.linalg.solve(system, design.T @ weight + pull @ prior)
        trust = np.minimum(1.0, 2.0 * NOISE / np.maximum(np.abs(design @ found - 1.0), 1e-12))
    return found


def written(columns: list[dict[str, Any]], law: Sequence[float]) -> list[dict[str, Any]]:
    """The terms of a law; columns that it reads are put behind the others where they are not there."""

    def place(feature: str, kind: str) -> int:
        for index, column in enumerate(columns):
            if column.get("feature") == feature and column.get("map", "identity") == kind:
                return index
        columns.append({"feature": feature, "map": kind})
        return len(columns) - 1

    energy, time = place("gpu_energy", "identity"), place("latency", "identity")
    terms: list[tuple[str, list[int]]] = [("gpu_energy", [energy]), ("latency", [time])]
    if law[2]:
        terms.append(("gpu_power", [energy, energy, place("latency", "inverse")]))
    return [
        {"name": name, "columns": used, "weight": weight, "mean": 0.0, "scale": 1.0}
        for (name, used), weight in zip(terms, law, strict=False)
    ]


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


def _leaf_ratio(
    tiers: Mapping[str, Any], estimator: Mapping[str, Any], dataset: Dataset
) -> np.ndarray | None:
    """Logarithms of label over static prediction; None where nothing is predicted without readings."""
    if "static" not in tiers:
        return None
    found = []
    for tree, p in zip(dataset.trees, arithmetic.predict(estimator, dataset.trees, "static"), strict=True):
        known = np.isfinite(tree.energy_j)
        found.append(np.log(tree.energy_j[known] / p.energy_j[known]))
    return np.concatenate(found) if found else np.empty(0)


def scale_leaves(out: dict[str, Any], middle: float, ratio: np.ndarray) -> None:
    """Leaves of every tier times e^middle, with intervals that hold the ``ratio`` that was seen."""
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
