"""Small smooth corrections: a Matern 3/2 Gaussian process on few inducing_points, in the form that FORMAT.md ships.

Length, amplitude and noise are those of the largest marginal likelihood on the training data; the inducing_points are
picked one by one where they explain most. Far from every center the correction goes to its bias.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.train.formulas import kernel

#: Candidate length scales, in natural-log units of the shape features: from a tenth to three e-folds.
LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
Length = tuple[float, float]
#: Candidate ratios of noise to signal variance.
RATIOS = 10.0 ** np.arange(-3.0, 1.5, 0.5)
#: Candidate signal variances where the noise is known: standard deviations of 0.1 to 100 per cent.
SIGNALS = 10.0 ** np.arange(-6.0, 0.5, 0.5)
#: No meter repeats better than this (log units): keeps the systems that are solved well-conditioned.
LEAST_NOISE = 0.001
#: The correction is a factor within exp(-LIMIT) and exp(LIMIT): a bound of the last resort.
LIMIT = float(np.log(2.0))
DIGITS = 7
#: Fewer places than this tell nothing about a smooth function.
FEWEST = 4


def rounded(value: float) -> float:
    """``value`` to DIGITS significant digits: what ships is what was evaluated, and short."""
    return float(f"{value:.{DIGITS}g}")


@dataclass
class Hyperparameters:
    """Hyper-parameters of one correction: ``length`` float64[columns], variances of signal and of noise.

    ``inducing_points``: float64[r, columns], once a fit has placed them.
    """

    length: np.ndarray
    signal: float
    noise: float
    inducing_points: np.ndarray | None = None


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


def gather(z: np.ndarray, of: np.ndarray, residual: np.ndarray, nodes: np.ndarray) -> Points:
    """Fold measurements at one place into one, their median; the spread among them is the noise.

    ``z``: float64[n, columns], distinct places; ``of``: int64[measurements], the place of each, none without one.
    """
    count = np.bincount(of, minlength=len(z)).astype(np.float64)
    middle = medians(residual, of, count)
    repeated = count[of] > 1.0
    n = count[of][repeated]
    spread = np.abs(residual - middle[of])[repeated] * np.sqrt(n / (n - 1.0))
    noise = 1.4826 * float(np.median(spread)) if len(spread) else 0.0
    return Points(z, middle, count, noise, np.bincount(of, weights=nodes))


def medians(values: np.ndarray, of: np.ndarray, count: np.ndarray) -> np.ndarray:
    """float64[groups]: the median of each group; ``of`` gives every value's group, none is empty."""
    order = np.lexsort((values, of))
    start = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64)
    low = start + ((count - 1.0) // 2.0).astype(np.int64)
    high = start + (count // 2.0).astype(np.int64)
    return np.asarray(0.5 * (values[order][low] + values[order][high]))


class KernelCache:
    """Kernels among fixed places at every candidate length, made and decomposed once each.

    ``apart``: the first column, which is the input's size, has a length of its own; the others are a layer's sizes.
    """

    def __init__(self, z: np.ndarray, apart: bool = False) -> None:
        self.z, self._apart = z, apart and z.shape[1] > 1
        self._kernels: dict[Length, np.ndarray] = {}
        self._parts: dict[Length, tuple[np.ndarray, np.ndarray]] = {}

    def candidates(self) -> list[Length]:
        """Lengths along the first column and along the others."""
        if self._apart:
            return list(itertools.product(LENGTHS, LENGTHS))
        return [(length, length) for length in LENGTHS]

    def lengths(self, length: Length) -> np.ndarray:
        """float64[columns]."""
        return np.array([length[0]] + [length[1]] * (self.z.shape[1] - 1))

    def kernel(self, length: Length) -> np.ndarray:
        """float64[n, n]: Matern 3/2 between all places."""
        if length not in self._kernels:
            self._kernels[length] = kernel("matern32", self.z, self.z, self.lengths(length))
        return self._kernels[length]

    def parts(self, length: Length) -> tuple[np.ndarray, np.ndarray]:
        """Its eigenvalues (none below 0) and eigenvectors."""
        if length not in self._parts:
            values, vectors = np.linalg.eigh(self.kernel(length))
            self._parts[length] = np.maximum(values, 0.0), vectors
        return self._parts[length]


def scales(points: Points, cache: KernelCache | None = None) -> Hyperparameters | None:
    """The likeliest hyper-parameters; None where noise alone explains the points as well.

    ``cache``: of the same places.
    """
    if len(points.z) < FEWEST or not points.z.shape[1]:
        return None
    found = likeliest(points, cache or KernelCache(points.z))
    return found if found.signal > 0.0 else None


def fit(
    points: Points, columns: list[int], rank: int, using: Hyperparameters | None
) -> dict[str, Any] | None:
    """A CORRECTION of at most ``rank`` inducing_points, or None where there is nothing that one would explain.

    The places of the inducing_points are kept in ``using``: a refit on fewer points solves for their weights alone.
    """
    if using is None or len(points.z) < FEWEST:
        return None
    place(points, rank, using)
    assert using.inducing_points is not None
    if not len(using.inducing_points):
        return None
    design = kernel("matern32", points.z, using.inducing_points, using.length)
    among = kernel("matern32", using.inducing_points, using.inducing_points, using.length)
    solved = solve(design, among, points.residual, variance_of(points, using), using.signal)
    return as_data(columns, using, solved)


def variance_of(points: Points, using: Hyperparameters) -> np.ndarray:
    """float64[n]: the variance of the middle of what was measured at every place."""
    return np.asarray(using.noise / points.count * float(np.mean(points.count)))


def place(points: Points, rank: int, using: Hyperparameters) -> None:
    """Choose the inducing_points among the points, where there are none yet."""
    if using.inducing_points is None:
        k = kernel("matern32", points.z, points.z, using.length)
        worth = np.sqrt(points.nodes / points.nodes.mean())
        chosen = _centers(k, points.residual, variance_of(points, using) / worth, using.signal, rank)
        using.inducing_points = points.z[chosen]


def solve(
    design: np.ndarray, among: np.ndarray, residual: np.ndarray, variance: np.ndarray, signal: float
) -> np.ndarray:
    """float64[r]: weights of inducing_points. ``design``: float64[n, r], ``among``: float64[r, r], kernel values."""
    system = design.T @ (design / variance[:, None]) + among / signal
    system[np.diag_indices(len(system))] *= 1.0 + 1e-9
    return np.asarray(np.linalg.solve(system, design.T @ (residual / variance)))


def as_data(
    columns: list[int], using: Hyperparameters, weights: np.ndarray, bias: float = 0.0
) -> dict[str, Any]:
    """The CORRECTION with these weights of its inducing_points."""
    assert using.inducing_points is not None
    middle = [rounded(v) for v in using.inducing_points.mean(axis=0)]
    return {
        "columns": columns, "mean": middle, "scale": [1.0] * len(columns), "kernel": "matern32",
        "length": [float(v) for v in using.length], "bias": rounded(bias), "limit": LIMIT,
        "centers": [[round(float(c), 4) for c in center - middle] for center in using.inducing_points],
        "weights": [round(float(w), 4) for w in weights],
    }  # fmt: skip


def likeliest(points: Points, cache: KernelCache) -> Hyperparameters:
    """The hyper-parameters of the largest marginal likelihood on the grid (signal 0: noise alone).

    Where replicates say what the noise is, it is not a free parameter: cost jumps from shape to shape (tiles,
    kernels of a library), which a likelihood would take for noise.
    """
    y, count = points.residual, float(np.mean(points.count))
    width = points.z.shape[1]
    best = Hyperparameters(np.full(width, LENGTHS[-1]), 0.0, max(float(np.mean(y * y)), 1e-12))
    known = max(points.noise, LEAST_NOISE) ** 2 / count if points.noise > 0.0 else None
    score = np.inf if known else 0.5 * len(y) * (np.log(best.noise) + 1.0) - 1.0
    for length in cache.candidates():
        values, vectors = cache.parts(length)
        values = values[:, None]
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
            score = float(scores[index])
            best = Hyperparameters(cache.lengths(length), float(signal[index]), float(error[index]))
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
