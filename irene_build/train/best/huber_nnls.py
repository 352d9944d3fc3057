"""Non-negative least squares on relative errors, robust against the odd bad label."""

from __future__ import annotations

import numpy as np

#: Residuals larger_sizes this many robust standard deviations count linearly (Huber).
HUBER = 2.0
#: A prior holds terms that hardly matter as if they were this share of the target.
LEAST = 0.003


def nnls(
    design: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    rounds: int = 5,
    prior: np.ndarray | None = None,
    strength: float = 0.0,
) -> np.ndarray:
    """Coefficients >= 0 that minimise the weighted Huber loss of ``design @ b / target - 1``.

    ``design``: float64[n, p]. ``target``: float64[n], positive (or the scale of the error where it is not the
    aim itself, see ``relative``). ``prior``: float64[p], drawn to with ``strength``, in units of itself.
    """
    return relative(design, target, target, weight, rounds, prior, strength)


def relative(
    design: np.ndarray,
    target: np.ndarray,
    scale: np.ndarray,
    weight: np.ndarray,
    rounds: int = 5,
    prior: np.ndarray | None = None,
    strength: float = 0.0,
) -> np.ndarray:
    """The same for ``(design @ b - target) / scale``; targets may be negative."""
    from scipy.optimize import nnls as solve

    size = np.maximum(np.abs(design).max(axis=0, initial=0.0), 1e-300)
    a = design / size / scale[:, None]
    y = target / scale
    extra, aim = np.empty((0, a.shape[1])), np.empty(0)
    if prior is not None and strength > 0.0:
        known = prior * size > 1e-100
        total = float(np.sqrt(strength * weight.sum()))
        typical = np.maximum(np.sqrt(np.mean(a * a, axis=0)) * prior * size, LEAST)
        extra = np.diag(total * typical / np.where(known, prior * size, 1.0))[known]
        aim = (total * typical)[known]
    trust = np.ones(len(y))
    found = np.zeros(a.shape[1])
    for _ in range(rounds):
        root = np.sqrt(weight * trust)
        found, _ = solve(np.vstack([a * root[:, None], extra]), np.concatenate([y * root, aim]))
        error = np.abs(a @ found - y)
        limit = HUBER * 1.4826 * _median(error, weight) + 1e-6
        trust = np.minimum(1.0, limit / np.maximum(error, 1e-300))
    return np.asarray(found / size)


def _median(values: np.ndarray, weight: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def median(values: np.ndarray, weight: np.ndarray) -> float:
    """The weighted median."""
    return _median(values, weight)
