"""Small smooth corrections: a Matern 3/2 Gaussian process on few centers, in the form that FORMAT.md ships.

Length, amplitude and noise are those of the largest marginal likelihood on the training data; the centers are
picked one by one where they explain most. Far from every center the correction goes to its bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irene_build.train.arithmetic import kernel

#: Candidate length scales, in natural-log units of the shape features.
LENGTHS = (0.3, 0.6, 1.2, 2.4)
#: Candidate ratios of noise to signal variance.
RATIOS = np.array([0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
#: Candidate signal variances where the noise is known.
SIGNALS = np.array([0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2]) ** 2
#: No meter repeats better than this (log units).
LEAST_NOISE = 0.003
#: The correction is a factor within exp(-LIMIT) and exp(LIMIT).
LIMIT = 0.7
DIGITS = 7


def rounded(value: float) -> float:
    """``value`` to DIGITS significant digits: what ships is what was evaluated, and short."""
    return float(f"{value:.{DIGITS}g}")


def fit(
    z: np.ndarray,
    residual: np.ndarray,
    weight: np.ndarray,
    columns: list[int],
    rank: int,
    noise: float = 0.0,
    reach: list[float] | None = None,
) -> dict[str, Any] | None:
    """A CORRECTION for log residuals, or None where there is nothing that a smooth function would explain.

    ``z``: float64[n, columns], log shape features. ``residual``: float64[n], log of measured over predicted.
    ``weight``: float64[n], how many independent measurements stand behind each. ``noise``: standard deviation
    of one measurement in log units, a lower bound.
    """
    if len(z) < 4 or not columns:
        return None
    reach = [1.0] * len(columns) if reach is None else reach
    middle = [rounded(v) for v in z.mean(axis=0)]
    length, signal, error = _likeliest(z, residual, float(np.mean(weight)), noise, np.array(reach))
    if signal <= 0.0:
        return None
    k = kernel("matern32", z, z, length)
    variance = error / weight * float(np.mean(weight))
    chosen = _centers(k, residual, variance, signal, rank)
    if not chosen:
        return None
    design = k[:, chosen]
    system = design.T @ (design / variance[:, None]) + k[np.ix_(chosen, chosen)] / signal
    system[np.diag_indices(len(chosen))] *= 1.0 + 1e-9
    solved = np.linalg.solve(system, design.T @ (residual / variance))
    return {
        "columns": columns, "mean": middle, "scale": [1.0] * len(columns), "kernel": "matern32",
        "length": [float(v) for v in length], "bias": 0.0, "limit": LIMIT,
        "centers": [[round(float(c), 5) for c in z[i] - middle] for i in chosen],
        "weights": [rounded(w) for w in solved],
    }  # fmt: skip


def _likeliest(
    z: np.ndarray, y: np.ndarray, count: float, noise: float, reach: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """(length, signal variance, noise variance) of the largest marginal likelihood; signal 0: noise alone.

    Where replicates say what the noise is, it is not a free parameter: cost jumps from shape to shape (tiles,
    kernels of a library), which a likelihood would take for noise.
    """
    best = (reach, 0.0, max(float(np.mean(y * y)), 1e-12))
    known = max(noise, LEAST_NOISE) ** 2 / count if noise > 0.0 else None
    score = np.inf if known else 0.5 * len(y) * (np.log(best[2]) + 1.0) - 1.0
    for candidate in LENGTHS:
        length = np.where(reach == 1.0, candidate, reach)
        values, vectors = np.linalg.eigh(kernel("matern32", z, z, length))
        values = np.maximum(values, 0.0)[:, None]
        square = ((vectors.T @ y) ** 2)[:, None]
        if known:
            signal, error = SIGNALS, np.full(len(SIGNALS), known)
        else:
            signal = np.maximum(np.mean(square / (values + RATIOS), axis=0), 1e-12)
            error = signal * RATIOS
        spread = signal * values + error
        scores = 0.5 * np.sum(np.log(spread) + square / spread, axis=0)
        index = int(np.argmin(scores))
        if scores[index] < score:
            score, best = float(scores[index]), (length, float(signal[index]), float(error[index]))
    return best


def _centers(k: np.ndarray, y: np.ndarray, variance: np.ndarray, signal: float, rank: int) -> list[int]:
    """Forward selection: the center whose kernel explains most of what is left, until noise is all that is."""
    w = 1.0 / np.sqrt(variance)
    design = k * w[:, None]
    left = y * w
    chosen: list[int] = []
    for _ in range(min(rank, len(y))):
        norm = np.einsum("ij,ij->j", design, design)
        gain = (left @ design) ** 2 / (norm + 1.0 / signal)
        gain[chosen] = -1.0
        best = int(np.argmax(gain))
        if gain[best] < 1.0 or norm[best] < 1e-9:
            break
        chosen.append(best)
        q = design[:, best] / np.sqrt(norm[best])
        left = left - q * (q @ left)
        design = design - np.outer(q, q @ design)
    return chosen
