"""90 % intervals by split-conformal calibration on models that the fit had not seen.

The exchangeable unit is the model, not the node: residuals come from leaving one training model out at a time,
so that the width is that of a model which was never measured. With few models the quantile is raised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

COVERAGE = 0.9
#: Half-width where nothing is known, in log units: a factor of two.
UNKNOWN = 0.7
LEAST = 0.005
#: How much wider an interval gets for every log unit outside the calibrated ranges.
SLOPE = 1.0


def quantile(residual: np.ndarray, count: np.ndarray, level: float) -> float:
    """The weighted quantile of absolute residuals; 0 where there are none."""
    if not len(residual):
        return 0.0
    size = np.abs(residual)
    order = np.argsort(size)
    share = np.cumsum(count[order]) / count.sum()
    return float(size[order][min(int(np.searchsorted(share, level)), len(size) - 1)])


def half_width(residual: np.ndarray, count: np.ndarray, models: int) -> float:
    """Half-width in log units from residuals of ``models`` left-out models; honest where those are few.

    With m exchangeable models the next one is worse than all of them once in m + 1 times; the quantile moves up
    accordingly, and below three models the width is multiplied.
    """
    if models < 1 or not len(residual):
        return UNKNOWN
    q = max(quantile(residual, count, COVERAGE), LEAST)
    return min(q * (1.0 + 1.0 / models**2), UNKNOWN) if models > 2 else min(2.0 * q, UNKNOWN)


def interval(
    residual: np.ndarray, count: np.ndarray, model: np.ndarray, level: np.ndarray, primitive: np.ndarray,
    fallback: float,
) -> dict[str, Any]:  # fmt: skip
    """An INTERVAL from out-of-model log residuals, one entry a labelled node.

    ``level``: str[n]. ``primitive``: str[n]. ``fallback``: half-width of primitives that were never calibrated.
    """
    levels = {}
    for name in ("ml", "module", "model"):
        rows = (level == name) & np.isfinite(residual)
        q = half_width(residual[rows], count[rows], len(np.unique(model[rows])))
        levels[name] = {"q": round(q, 5), "slope": SLOPE}
    return {"levels": levels, "primitives": {"fallback": {"q": round(fallback, 5), "slope": SLOPE}}}
