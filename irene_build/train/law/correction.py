"""A smooth factor on whole models, learned from what the law leaves: a Gaussian process over the law's own joules.

The factor is a function of the law's energy alone, its logarithm grows slower than the energy falls or rises
(|slope| < 1), and it is 1 away from what was measured: what is larger for the law stays larger.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Standard deviations, natural-log units: what models share, what one has alone, what one run has alone.
SHARED, OWN, NOISE = 0.1, 0.1, 0.03
#: Length over ln(joules).
LENGTH = 0.6
#: The factor lies within 1/2 to 2; its slope within +/- this.
LIMIT, SLOPE = float(np.log(2.0)), 0.9


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64[a, b]: Matern 3/2 of two vectors of ln(joules)."""
    r = np.sqrt(3.0) * np.abs(a[:, None] - b[None]) / LENGTH
    return np.asarray((1.0 + r) * np.exp(-r))


class Correction:
    """The posterior mean: ``points`` float64[p] in ln(joules) of the law, ``weights`` float64[p]."""

    def __init__(self, law_j: np.ndarray, energy_j: np.ndarray, model: np.ndarray) -> None:
        x, residual = np.log(law_j), np.log(energy_j / law_j)
        own = model[:, None] == model[None]
        shape = kernel(x, x)
        covariance = SHARED**2 * shape + own * (OWN**2 + 0.25 * SHARED**2 * shape) + NOISE**2 * np.eye(len(x))
        weights = SHARED**2 * np.linalg.solve(covariance, residual)
        self.points, of = np.unique(np.round(x, 2), return_inverse=True)
        summed: np.ndarray = np.bincount(of, weights)
        grid = np.linspace(self.points[0] - 3.0 * LENGTH, self.points[-1] + 3.0 * LENGTH, 2000)
        steepest = float(np.abs(np.gradient(kernel(grid, self.points) @ summed, grid)).max())
        self.weights = summed * min(1.0, SLOPE / max(steepest, 1e-9))

    def factor(self, law_j: np.ndarray) -> np.ndarray:
        """float64[n]: what the law's joules are multiplied by."""
        f = kernel(np.log(law_j), self.points) @ self.weights
        return np.asarray(np.exp(LIMIT * np.tanh(f / LIMIT)))

    def data(self, column: int) -> dict[str, Any]:
        """CORRECTION of FORMAT.md over the column that is ln(law_energy)."""
        return {
            "columns": [column], "mean": [0.0], "scale": [1.0], "kernel": "matern32", "length": [LENGTH],
            "centers": [[float(x)] for x in self.points], "weights": [float(w) for w in self.weights], "bias": 0.0,
            "limit": LIMIT,
        }  # fmt: skip
