"""90 % intervals by split-conformal calibration on models that the fit had not seen.

The exchangeable unit is the model, not the node: residuals come from leaving one training model out at a
time, so that the width is that of a model which was never measured. Modules of a kind that no other model has
get a width of their own, from those that were such when their model was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

COVERAGE = 0.9
#: Half-width where nothing is known, in log units: a factor of two.
UNKNOWN = 0.7
LEAST = 0.005
#: How much wider an interval gets for every log unit outside the calibrated ranges, per level.
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
    return min(q if models > 2 else 2.0 * q, UNKNOWN)


def interval(
    residual: np.ndarray,
    count: np.ndarray,
    model: np.ndarray,
    level: np.ndarray,
    far: np.ndarray,
    judged: Sequence[str],
) -> dict[str, Any]:
    """``levels`` and ``primitives`` of an INTERVAL from out-of-model log residuals, one a labelled node.

    ``level``: str[n]. ``far``: bool[n], the node was of a kind that no other model had; that matters at the
    levels ``judged``, where a prediction rests on what the kind is made of.
    """
    levels = {}
    for name in ("ml", "module", "model"):
        here = (level == name) & np.isfinite(residual)
        models = len(np.unique(model[here]))
        near = here & ~far if name in judged and (here & ~far).any() else here
        q = half_width(residual[near], count[near], models)
        levels[name] = {"q": round(q, 5), "slope": SLOPE[name]}
        if name in judged:
            levels[name]["far"] = round(_far(residual, count, here & far, q), 5)
    return {"levels": levels, "primitives": {"fallback": {"q": UNKNOWN, "slope": SLOPE["ml"]}}}


def _far(residual: np.ndarray, count: np.ndarray, rows: np.ndarray, near: float) -> float:
    """Half-width of unknown kinds, never below that of known ones."""
    if not rows.any():
        return min(FAR * near, UNKNOWN)
    return min(max(quantile(residual[rows], count[rows], COVERAGE), near), UNKNOWN)
