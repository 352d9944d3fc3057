"""Intervals of the paper's method, from training models and families that fits had not seen (FORMAT.md, INTERVAL).

Modules are of a known kind where another model has one of as many parameters that moves as many bytes a token: the
features of the paper tell no more. Known kinds get the width that left-out models showed, unknown ones that of
left-out families. Where what was left out is few (roots: one shape a model; families), conformal calibration asks for
a quantile beyond all of them, so the widest of them counts, and twice that where they are fewer than three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irene_build.train import formulas
from irene_build.train.intervals import COVERAGE, HOPELESS, LEAST, UNKNOWN, quantile
from irene_build.train.paper_nodes import Nodes
from irene_runtime.tree import LEVELS

#: Modules whose log features differ by less are of one kind.
REACH = 0.05
#: Fewest left-out groups whose widest is taken as it is.
ENOUGH_GROUPS = 3
#: Outside the calibrated range an interval grows by its own width for each factor of e.
SLOPE = 1.0
_KIND = ("num_parameters", "input_size", "mem_bytes")


def kind_columns(names: Sequence[str]) -> tuple[list[dict[str, Any]], list[int]]:
    """COLUMNs to put behind those of ``names``, and the indices of those that tell a kind; none where unknown."""
    if not all(name in names for name in _KIND):
        return [], []
    first = len(names)
    extra: list[dict[str, Any]] = [
        {"feature": "num_parameters", "map": "log"},
        {"feature": "input_size", "map": "inverse"},
        {"of": [list(names).index("mem_bytes"), first + 1], "map": "log"},
    ]
    return extra, [first, first + 2]


def interval(nodes: Nodes, model_out: Any, family_out: Any, at: int) -> dict[str, Any]:
    """INTERVAL; ``model_out``, ``family_out``: ``paper.Unseen``, of which the checkpoint ``at`` counts."""
    places = _places(nodes)
    far_model, far_family = (
        np.zeros(len(nodes.level), dtype=bool) if places is None else _far(nodes, places, group)
        for group in (nodes.model, nodes.family)
    )
    by_model, by_family = (_miss(nodes, unseen.energy_j[at]) for unseen in (model_out, family_out))
    levels: dict[str, dict[str, float]] = {}
    for index, name in enumerate(LEVELS):
        here = nodes.level == index
        near = here & ~far_model & np.isfinite(by_model)
        if not near.any():
            near = here & np.isfinite(by_model)
        q = _widest(by_model, nodes, near) if name == "model" else _pooled(by_model, nodes, near)
        levels[name] = {"q": round(q, 5), "slope": SLOPE}
        if name != "ml" and places is not None:
            unknown = here & far_family & np.isfinite(by_family)
            far = _widest(by_family, nodes, unknown) if unknown.any() else 2.0 * q
            levels[name]["far"] = round(min(max(far, q), HOPELESS), 5)
    strange = family_out.uncalibrated & np.isfinite(by_family)
    fallback = _widest(by_family, nodes, strange) if strange.any() else UNKNOWN
    out: dict[str, Any] = {
        "levels": levels,
        "primitives": {"fallback": {"q": round(max(fallback, levels["ml"]["q"]), 5), "slope": SLOPE}},
    }
    if places is not None:
        rows = (nodes.level == LEVELS.index("module")) & nodes.labelled
        if rows.any():
            columns = kind_columns(nodes.names)[1]
            out["kinds"] = {"columns": columns, "points": _points(places[rows]).tolist(), "reach": REACH}
    return out


def _miss(nodes: Nodes, energy_j: np.ndarray) -> np.ndarray:
    """float64[m]: |log of predicted over measured|, NaN where one is unknown."""
    with np.errstate(invalid="ignore"):
        positive = np.where(energy_j > 0.0, energy_j, np.exp(-HOPELESS) * nodes.energy_j)
        return np.asarray(np.abs(np.log(np.where(np.isnan(energy_j), np.nan, positive) / nodes.energy_j)))


def _pooled(miss: np.ndarray, nodes: Nodes, rows: np.ndarray) -> float:
    """The quantile over all of ``rows``, every model weighing the same."""
    if not rows.any():
        return UNKNOWN
    models, count = nodes.model[rows], nodes.count[rows]
    weight = count / np.bincount(models, count)[models]
    q = quantile(miss[rows], weight, COVERAGE)
    return _bounded(q if len(np.unique(models)) >= ENOUGH_GROUPS else 2.0 * q)


def _widest(miss: np.ndarray, nodes: Nodes, rows: np.ndarray) -> float:
    """The largest of the families' own quantiles."""
    if not rows.any():
        return UNKNOWN
    families = np.unique(nodes.family[rows]).tolist()
    q = max(
        quantile(miss[mine], nodes.count[mine], COVERAGE)
        for mine in (rows & (nodes.family == one) for one in families)
    )
    return _bounded(q if len(families) >= ENOUGH_GROUPS else 2.0 * q)


def _bounded(q: float) -> float:
    return min(max(q, LEAST), HOPELESS)


def _places(nodes: Nodes) -> np.ndarray | None:
    extra, chosen = kind_columns(nodes.names)
    if not chosen:
        return None
    plain: list[dict[str, Any]] = [{"feature": name} for name in nodes.names]
    columns = formulas.Columns([*plain, *extra], nodes.names, nodes.features)
    return np.column_stack([columns[c] for c in chosen])


def _points(places: np.ndarray) -> np.ndarray:
    """Distinct places, one for all that are within half the reach of each other."""
    return np.unique(np.round(places / (0.5 * REACH)) * (0.5 * REACH), axis=0).round(6)


def _far(nodes: Nodes, places: np.ndarray, group: np.ndarray) -> np.ndarray:
    """bool[m]: modules of kinds, and roots made of such, that no other group has."""
    far = np.zeros(len(group), dtype=bool)
    modules = (nodes.level == LEVELS.index("module")) & nodes.labelled
    for one in np.unique(group).tolist():
        mine, others = modules & (group == one), modules & (group != one)
        if others.any():
            points = _points(places[others])
            off = np.abs(places[mine][:, None, :] - points[None, :, :])
            far[mine] = ~(off <= REACH).all(axis=2).any(axis=1)
        else:
            far[mine] = True
    energy = np.where(nodes.labelled, nodes.energy_j, 0.0)
    total = np.bincount(nodes.parent, nodes.times * energy[nodes.child], len(group))
    strange = np.bincount(nodes.parent, nodes.times * (energy * far)[nodes.child], len(group))
    roots = nodes.level == LEVELS.index("model")
    far[roots] = strange[roots] > 0.5 * total[roots]
    return far
