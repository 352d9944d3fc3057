"""Errors of predictions against labels, per level; copies count, as in the paper."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.dataset.table import LabelledTree
from irene_runtime.tree import LEVELS


@dataclass
class Scores:
    """One entry a labelled node: its model, level, primitive, measurement, label and prediction in joules.

    ``predicted_j`` is NaN where a method says nothing, ``low_j`` and ``high_j`` where it gives no interval.
    ``own_j``: what is said of the node itself, which is another one where its label was measured on another shape.
    """

    model: np.ndarray
    level: np.ndarray
    primitive: np.ndarray
    measurement: np.ndarray
    energy_j: np.ndarray
    predicted_j: np.ndarray
    low_j: np.ndarray
    high_j: np.ndarray
    own_j: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """100 |P - G| / G, percent (section 5.2)."""
        return np.asarray(100.0 * np.abs(self.predicted_j - self.energy_j) / self.energy_j)


def score(
    trees: Sequence[LabelledTree],
    predicted: Sequence[np.ndarray],
    low: Sequence[np.ndarray] | None = None,
    high: Sequence[np.ndarray] | None = None,
) -> Scores:
    """Compare predictions (float64[nodes] a tree) with the labels of the same trees.

    A label that was copied from another node is compared with what is said of the node that it was measured on.
    """
    nodes = [node for tree in trees for node in tree.tree.nodes]
    energy = np.concatenate([tree.energy_j for tree in trees])
    known = np.isfinite(energy)
    unknown = [np.full(len(tree.energy_j), np.nan) for tree in trees]

    def said(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([v[tree.measured_on] for tree, v in zip(trees, values, strict=True)])[known]

    return Scores(
        np.repeat([tree.model for tree in trees], [len(tree.energy_j) for tree in trees])[known],
        np.array([node.level for node in nodes])[known],
        np.array([node.primitive or "" for node in nodes])[known],
        np.concatenate([tree.measurement for tree in trees])[known],
        energy[known],
        said(predicted),
        said(low or unknown),
        said(high or unknown),
        np.concatenate(list(predicted))[known],
    )


def join(parts: Sequence[Scores]) -> Scores:
    """The scores of all folds as one."""
    fields = Scores.__dataclass_fields__
    return Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def without(scores: Scores, failed: Collection[str]) -> Scores:
    """The scores without the measurements that ``failed`` names."""
    kept = ~np.isin(scores.measurement, [int(one) for one in failed])
    return Scores(*(getattr(scores, name)[kept] for name in Scores.__dataclass_fields__))


def level_metrics(scores: Scores, level: str) -> dict[str, Any]:
    """``mape, p50, p95, p99, max, coverage90`` in percent (None where unknown), ``n``, ``n_distinct``.

    ``n_unpredicted`` is there where the method said nothing of labelled nodes: they are not in the errors.
    """
    chosen = scores.level == level
    error = scores.error[chosen]
    said = np.isfinite(error)
    out: dict[str, Any] = {
        "mape": None, "p50": None, "p95": None, "p99": None, "max": None,
        "n": int(chosen.sum()), "n_distinct": len(np.unique(scores.measurement[chosen])), "coverage90": None,
    }  # fmt: skip
    if said.any():
        found = error[said]
        out.update(mape=float(found.mean()), max=float(found.max()))
        out.update({f"p{q}": float(np.percentile(found, q)) for q in (50, 95, 99)})
        low, high, energy = (x[chosen][said] for x in (scores.low_j, scores.high_j, scores.energy_j))
        if np.isfinite(low).all():
            out["coverage90"] = float(100.0 * ((low <= energy) & (energy <= high)).mean())
    if not said.all():
        out["n_unpredicted"] = int((~said).sum())
    return out


def copies_of_other_shapes(scores: Scores) -> dict[str, Any] | None:
    """Labels that were measured on another shape, and the mean error in percent at level ml without that care.

    ``n`` labels; ``mape_own``: every node's label against what is said of its own shape. None without such labels.
    """
    leaves = (scores.level == LEVELS[0]) & np.isfinite(scores.own_j)
    other = leaves & (scores.own_j != scores.predicted_j)
    if not other.any():
        return None
    own = 100.0 * np.abs(scores.own_j[leaves] / scores.energy_j[leaves] - 1.0)
    return {"n": int(other.sum()), "mape_own": float(own.mean())}


def tier_metrics(scores: Scores) -> dict[str, Any]:
    """Metrics per level, and the mean error of each model per level."""
    out: dict[str, Any] = {level: level_metrics(scores, level) for level in LEVELS}
    out["per_model"] = {
        str(model): {
            level: mape(scores, (scores.model == model) & (scores.level == level)) for level in LEVELS
        }
        for model in dict.fromkeys(scores.model.tolist())
    }
    return out


def mape(scores: Scores, chosen: np.ndarray) -> float | None:
    """Mean error in percent of the chosen nodes that the method spoke of, None where there are none."""
    error = scores.error[chosen]
    error = error[np.isfinite(error)]
    return float(error.mean()) if len(error) else None


def pairs(scores: Scores) -> dict[str, dict[str, list[Any]]]:
    """Per level one entry a measurement: measured and predicted joules, interval, number of copies."""
    out = {}
    for level in LEVELS:
        rows = np.flatnonzero((scores.level == level) & np.isfinite(scores.predicted_j))
        # Copies of one measurement are predicted alike, unless an estimator sees more than the profiler did.
        key = np.column_stack([scores.measurement[rows].astype(float), scores.predicted_j[rows]])
        _, first, count = np.unique(key, axis=0, return_index=True, return_counts=True)
        picked = rows[first]
        entry: dict[str, list[Any]] = {
            "model": scores.model[picked].tolist(),
            "measured_j": _short(scores.energy_j[picked]),
            "predicted_j": _short(scores.predicted_j[picked]),
            "copies": count.tolist(),
        }
        if np.isfinite(scores.low_j[picked]).all():
            entry.update(low_j=_short(scores.low_j[picked]), high_j=_short(scores.high_j[picked]))
        out[level] = entry
    return out


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
