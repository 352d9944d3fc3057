"""Small smooth corrections: a Matern 3/2 Gaussian process on few centers, in the form that FORMAT.md ships.

Length, amplitude and noise are those of the largest marginal likelihood on the training data; the centers are
picked one by one where they explain most. Far from every center the correction goes to its bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.train.formulas import kernel

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
#: Fewer places than this tell nothing about a smooth function.
FEWEST = 4


def rounded(value: float) -> float:
    """``value`` to DIGITS significant digits: what ships is what was evaluated, and short."""
    return float(f"{value:.{DIGITS}g}")


@dataclass
class Scales:
    """Hyper-parameters of one correction: ``length`` float64[columns], variances of signal and of noise.

    ``centers``: float64[r, columns], once a fit has placed them.
    """

    length: np.ndarray
    signal: float
    noise: float
    centers: np.ndarray | None = None


@dataclass
class Points:
    """What a correction is fitted to, one row a distinct place.

    ``z``: float64[n, columns], log features. ``residual``: float64[n], log of measured over predicted.
    ``count``: float64[n], independent measurements behind each. ``noise``: standard deviation of
    one measurement in log
    units, 0 where there are no replicates. ``nodes``: float64[n], how many nodes are there: what a center is
    worth.
    """

    z: np.ndarray
    residual: np.ndarray
    count: np.ndarray
    noise: float
    nodes: np.ndarray


def gather(z: np.ndarray, residual: np.ndarray, nodes: np.ndarray) -> Points:
    """Fold measurements at equal places into one, their median; the spread among them is the noise."""
    distinct, of = np.unique(np.round(z, 9), axis=0, return_inverse=True)
    of = of.ravel()
    count = np.bincount(of, minlength=len(distinct)).astype(np.float64)
    middle = medians(residual, of, count)
    repeated = count[of] > 1.0
    n = count[of][repeated]
    spread = np.abs(residual - middle[of])[repeated] * np.sqrt(n / (n - 1.0))
    noise = 1.4826 * float(np.median(spread)) if len(spread) else 0.0
    return Points(distinct, middle, count, noise, np.bincount(of, weights=nodes))


def medians(values: np.ndarray, of: np.ndarray, count: np.ndarray) -> np.ndarray:
    """float64[groups]: the median of each group; ``of`` gives every value's group, none is empty."""
    order = np.lexsort((values, of))
    start = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64)
    low = start + ((count - 1.0) // 2.0).astype(np.int64)
    high = start + (count // 2.0).astype(np.int64)
    return np.asarray(0.5 * (values[order][low] + values[order][high]))


def scales(points: Points, reach: np.ndarray | None = None) -> Scales | None:
    """The likeliest hyper-parameters; None where noise alone explains the points as well.

    ``reach``: float64[columns], fixed lengths; NaN where one length is to be found for all of those.
    """
    if len(points.z) < FEWEST or not points.z.shape[1]:
        return None
    found = _likeliest(points, np.full(points.z.shape[1], np.nan) if reach is None else reach)
    return found if found.signal > 0.0 else None


def fit(points: Points, columns: list[int], rank: int, using: Scales | None) -> dict[str, Any] | None:
    """A CORRECTION of at most ``rank`` centers, or None where there is nothing that one would explain.

    The places of the centers are kept in ``using``: a refit on fewer points solves for their weights alone.
    """
    if using is None or len(points.z) < FEWEST:
        return None
    variance = using.noise / points.count * float(np.mean(points.count))
    if using.centers is None:
        k = kernel("matern32", points.z, points.z, using.length)
        worth = np.sqrt(points.nodes / points.nodes.mean())
        using.centers = points.z[_centers(k, points.residual, variance / worth, using.signal, rank)]
    if not len(using.centers):
        return None
    middle = [rounded(v) for v in using.centers.mean(axis=0)]
    design = kernel("matern32", points.z, using.centers, using.length)
    among = kernel("matern32", using.centers, using.centers, using.length)
    system = design.T @ (design / variance[:, None]) + among / using.signal
    system[np.diag_indices(len(system))] *= 1.0 + 1e-9
    solved = np.linalg.solve(system, design.T @ (points.residual / variance))
    return {
        "columns": columns, "mean": middle, "scale": [1.0] * len(columns), "kernel": "matern32",
        "length": [float(v) for v in using.length], "bias": 0.0, "limit": LIMIT,
        "centers": [[round(float(c), 5) for c in center - middle] for center in using.centers],
        "weights": [round(float(w), 5) for w in solved],
    }  # fmt: skip


def _likeliest(points: Points, reach: np.ndarray) -> Scales:
    """The largest marginal likelihood on the grid; signal 0: noise alone.

    Where replicates say what the noise is, it is not a free parameter: cost jumps from shape to shape (tiles,
    kernels of a library), which a likelihood would take for noise.
    """
    y, count = points.residual, float(np.mean(points.count))
    best = Scales(reach, 0.0, max(float(np.mean(y * y)), 1e-12))
    known = max(points.noise, LEAST_NOISE) ** 2 / count if points.noise > 0.0 else None
    score = np.inf if known else 0.5 * len(y) * (np.log(best.noise) + 1.0) - 1.0
    for candidate in LENGTHS:
        length = np.where(np.isnan(reach), candidate, reach)
        values, vectors = np.linalg.eigh(kernel("matern32", points.z, points.z, length))
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
            score, best = float(scores[index]), Scales(length, float(signal[index]), float(error[index]))
    return best


def _centers(k: np.ndarray, y: np.ndarray, variance: np.ndarray, signal: float, rank: int) -> list[int]:
    """Forward selection: the center that explains most of what is left, until that is noise."""
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
