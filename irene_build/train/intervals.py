"""90 % intervals by split-conformal calibration on models that the fit had not seen.

The exchangeable unit is the model, not the node: residuals come from leaving one training model out at a
time, so that the width is that of a model which was never measured. Modules of a kind that no other model has
get a width of their own, from those that were such when their model was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_runtime.tree import LEVELS

COVERAGE = 0.9
#: Half-width where nothing is known, in log units: a factor of two.
UNKNOWN = 0.7
#: No half-width is larger, whatever the residuals: a factor of twenty tells nothing any more.
HOPELESS = 3.0
LEAST = 0.005
#: Fewest nodes that tell a width or a slope of their own.
ENOUGH = 20
#: A node just outside the ranges says of a slope what one a doubling outside does (log units).
NEAR = float(np.log(2.0))
#: Bounds of how much wider a log unit outside makes an interval: larger inputs are never as sure as measured ones.
LEAST_SLOPE, MOST_SLOPE = 0.1, 50.0
#: The same where one model alone, or one size, was measured, so that nothing tells it.
SLOPE = {"ml": 0.6, "module": 0.3, "model": 0.3}
#: How much wider where no training model was of a kind that the others lack, so that this was never seen.
FAR = 2.0


def quantile(residual: np.ndarray, count: np.ndarray, share: float) -> float:
    """The weighted quantile of absolute residuals; 0 where there are none."""
    if not len(residual):
        return 0.0
    size = np.abs(residual)
    order = np.argsort(size)
    reached = np.cumsum(count[order]) / count.sum()
    return float(size[order][min(int(np.searchsorted(reached, share)), len(size) - 1)])


def half_width(residual: np.ndarray, count: np.ndarray, models: int) -> float:
    """Half-width in log units from the residuals of ``models`` left-out models.

    UNKNOWN for none; where there are one or two, twice what they show.
    """
    if models < 1 or not len(residual):
        return UNKNOWN
    q = max(quantile(residual, count, COVERAGE), LEAST)
    return min(q if models > 2 else 2.0 * q, HOPELESS)


@dataclass
class Judgement:
    """What fits that had not seen a node's model said of it, one column a labelled node.

    ``residual``: float64[fits, n], log of predicted over measured, NaN where there is none: of models left out alone,
    then with their whole families. ``far``: bool[fits, n], the fit knew no node of its kind, or its primitive.
    ``beyond``: float64[n], the same of fits to smaller inputs alone, for nodes of larger ones, and ``away`` how far
    outside of their ranges those lie (float64[n], log units). ``count``: float64[n]. ``model``, ``family``: int64[n].
    ``level``, ``primitive``: str[n].
    """

    residual: np.ndarray
    far: np.ndarray
    beyond: np.ndarray
    away: np.ndarray
    count: np.ndarray
    model: np.ndarray
    family: np.ndarray
    level: np.ndarray
    primitive: np.ndarray


def interval(said: Judgement, judged: Sequence[str]) -> dict[str, Any]:
    """``levels`` and ``primitives`` of an INTERVAL.

    Every width is the conformal one of those nodes that would have got it in their fold: known kinds, unknown kinds
    (at the levels ``judged``, where a prediction rests on what a module is made of), primitives without a label.
    Primitives with enough shapes of enough models get a width of their own.
    """
    levels: dict[str, dict[str, float]] = {}
    heard = np.isfinite(said.residual)
    for name in LEVELS:
        here = said.level == name
        apart = name in judged or name == "ml"
        chosen = heard & here & ~said.far if apart and (heard & here & ~said.far).any() else heard & here
        q = _width(said, chosen, len(np.unique(said.model[(heard & here).any(axis=0)])), name in judged)
        levels[name] = {"q": round(q, 5), "slope": slope(said, here, q, _hand_set(name, q))}
        if name in judged:
            levels[name]["far"] = round(_far(said, heard & here & said.far, q), 5)
    unknown = _fallback(said, heard & said.far & (said.level == "ml"), levels["ml"]["q"])
    primitives = {"fallback": {"q": round(unknown, 5), "slope": _hand_set("ml", unknown)}}
    for name in np.unique(said.primitive[said.level == "ml"]).tolist():
        here = said.primitive == name
        chosen = heard & here & ~said.far
        models = len(np.unique(said.model[chosen.any(axis=0)]))
        if models > 2 and chosen.any(axis=0).sum() >= ENOUGH:
            q = _width(said, chosen, models, False)
            primitives[name] = {"q": round(q, 5), "slope": slope(said, here, q, levels["ml"]["slope"])}
    return {"levels": levels, "primitives": primitives, "inherits": True}


def _width(said: Judgement, chosen: np.ndarray, models: int, apart: bool) -> float:
    """Half-width that holds nine in ten of the ``chosen`` (bool[fits, n]), of all folds together.

    ``apart``: known kinds mean less where a whole family was left out; as much is given to these folds as to those
    where a model was, for the next model is as likely a stranger as a relative.
    """
    residual: list[np.ndarray] = []
    weight: list[np.ndarray] = []
    for fits in (slice(0, 1), slice(1, None)) if apart else (slice(None),):
        part = chosen[fits]
        if part.any() and (not residual or part.sum() >= ENOUGH):
            count = np.broadcast_to(said.count, part.shape)[part]
            residual.append(said.residual[fits][part])
            weight.append(count / count.sum())
    if not residual:
        return UNKNOWN
    return half_width(np.concatenate(residual), np.concatenate(weight), models)


def _hand_set(level: str, width: float) -> float:
    """The slope where no smaller inputs tell one; what is wide already does not get wider any faster."""
    return round(SLOPE[level] * min(1.0, UNKNOWN / width), 3)


def slope(said: Judgement, rows: np.ndarray, width: float, otherwise: float) -> float:
    """How much wider a log unit outside makes intervals, so that nine in ten larger inputs lie inside.

    From nodes beyond the sizes of a fit that had neither their size nor their model; ``otherwise`` where there
    are too few.
    """
    rows = rows & np.isfinite(said.beyond) & (said.away > 0.0)
    if rows.sum() < ENOUGH:
        return otherwise
    need = (np.abs(said.beyond[rows]) / width - 1.0) / np.maximum(said.away[rows], NEAR)
    return round(
        min(max(quantile(need.clip(min=0.0), said.count[rows], COVERAGE), LEAST_SLOPE), MOST_SLOPE), 3
    )


def _far(said: Judgement, chosen: np.ndarray, near: float) -> float:
    """Half-width of unknown kinds (``chosen``: bool[fits, n]), never below that of known ones.

    What is exchangeable here are families, and few are there: n of them speak for the next with a margin of 1 / n.
    """
    if not chosen.any():
        return min(FAR * near, HOPELESS)
    families = len(np.unique(said.family[chosen.any(axis=0)]))
    count = np.broadcast_to(said.count, chosen.shape)[chosen]
    q = quantile(said.residual[chosen], count, COVERAGE)
    return min(max((1.0 + 1.0 / families) * q, near), HOPELESS)


def _fallback(said: Judgement, chosen: np.ndarray, near: float) -> float:
    """Half-width of primitives that were never calibrated: UNKNOWN, or what folds missed that lacked some.

    ``chosen``: bool[fits, n], nodes of primitives that a fold had not seen; each of these counts the same.
    """
    _, of, count = np.unique(
        np.broadcast_to(said.primitive, chosen.shape)[chosen], return_inverse=True, return_counts=True
    )
    q = quantile(said.residual[chosen], 1.0 / count[of.ravel()], COVERAGE)
    return min(max(UNKNOWN, q, near), HOPELESS)
