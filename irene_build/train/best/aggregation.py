"""What modules add to their children: kernels of their own that nobody measured alone, and a correction.

Leaves without a label (element-wise work, copies) get their regressors from what the modules around them use
larger_sizes their measured children. What is left after that is a smooth function of the module's composition.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.train import formulas
from irene_build.train.best import gaussian_process, huber_nnls, roofline
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.sample import TrainingSet

#: How many of the columns of a correction say what kind of module it is.
SIGNATURE_COLUMNS = 3
#: Terms that a roofline may do without: matrix products hide their bytes, copies may not grow with the sequence,
#: operations may hide behind bytes. The labels of whole models are explained as well by any of these readings.
OPTIONAL = ("product_bytes", "elementwise_flops")
ROOFLINE_VARIANTS = tuple(
    frozenset(gone) for size in range(len(OPTIONAL) + 1) for gone in itertools.combinations(OPTIONAL, size)
)
#: How strongly what all unlabelled kernels cost together is drawn to what labelled ones cost, and the share of the
#: latter that stands in where modules leave nothing for it.
COMMON, NOUGHT = 1e-5, 0.1
#: Levels with corrections, lower ones first.
ABOVE = ("module", "model")


@dataclass(frozen=True)
class CorrectionSettings:
    """How smooth the correction of a level is. Round numbers (an e-fold, one per cent), the same for every PC.

    ``kind_length``, ``size_length``: how far it reaches, in log units of a module's composition and of the input's
    size. ``ratio``: variance of noise over that of the correction. ``biased``: it has a constant of its own; else it
    goes to 1 far from what was measured.
    """

    kind_length: float = 0.8
    size_length: float = 0.8
    ratio: float = 0.01
    biased: bool = False


@dataclass(frozen=True)
class Settings:
    """What cannot be read off one fit, above the leaves.

    ``prior``: how strongly each unlabelled primitive's costs are drawn to what all of them cost together.
    """

    prior: float = 0.01
    module: CorrectionSettings = CorrectionSettings()
    model: CorrectionSettings = CorrectionSettings()


class ModuleGrid:
    """Where the inner nodes of a level lie, whichever of them have labels: kernels are made once for all fits.

    ``rows``: int64[n], nodes of the sample. ``z``: float64[p, columns], their distinct places. ``of``: int64[n], the
    place of each.
    """

    def __init__(self, sample: TrainingSet, level: str) -> None:
        self.rows = np.flatnonzero(sample.at(level) & ~sample.leaf)
        book = ColumnRegistry(sample.names)
        columns = composition(book)
        values = book.over(sample.features[self.rows])
        z = np.column_stack([values[c] for c in columns])
        self.z, of = np.unique(np.round(z, 9), axis=0, return_inverse=True)
        self.of = of.ravel()
        self._kernels: dict[tuple[float, float, bytes], tuple[np.ndarray, np.ndarray]] = {}

    def kernels(self, using: gaussian_process.Hyperparameters) -> tuple[np.ndarray, np.ndarray]:
        """float64[p, r], float64[r, r]: places against inducing_points, and inducing_points among each other."""
        assert using.inducing_points is not None
        key = (float(using.length[0]), float(using.length[-1]), using.inducing_points.tobytes())
        if key not in self._kernels:
            self._kernels.clear()
            self._kernels[key] = (
                formulas.kernel("matern32", self.z, using.inducing_points, using.length),
                formulas.kernel("matern32", using.inducing_points, using.inducing_points, using.length),
            )
        return self._kernels[key]


def own_terms(
    book: ColumnRegistry, primitive: str, products: bool, modules: bool
) -> list[tuple[str, list[int]]]:
    """The terms of a leaf that has no label of its own: launches, bytes, operations (``products``: matrices).

    Where ``modules`` were measured, copies also stand for what torch copies and masks inside an attention without
    showing: as many bytes again for every token of the sequence. BEND holds them, and whole models cannot tell them.
    """
    size = book.raw("mem_bytes")
    out = [("launch", [book.raw("kernels")]), ("mem_bytes", [size]),
           ("elementwise_flops", [book.raw("elementwise_flops")])]  # fmt: skip
    if primitive == "Copy" and modules:
        out.append(("pairs", [size, book.raw("seq_len")]))
    if products:
        out.append(("matmul_flops", [book.raw("matmul_flops")]))
    return out


def balance(
    sample: TrainingSet, energy: np.ndarray, design: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What labelled inner nodes use beyond what is known below them.

    ``energy``: float64[m], joules that stand for a node where it is a child, NaN where unknown. ``design``:
    float64[m, p], terms of leaves whose weights are sought. Returns rows of the sample, what is left of their
    labels, and the summed design below them.
    """
    known = np.where(np.isnan(energy), 0.0, energy)
    open_ = np.where(np.isnan(energy)[:, None], design, 0.0)
    below = np.zeros_like(known)
    below_design = np.zeros_like(open_)
    for parent, child, times in sample.steps:
        np.add.at(below, parent, times * known[child])
        np.add.at(below_design, parent, times[:, None] * open_[child])
        inner = np.unique(parent)
        unknown = inner[np.isnan(energy[inner])]
        known[unknown], open_[unknown] = below[unknown], below_design[unknown]
    rows = np.flatnonzero(~sample.leaf & sample.labelled & (sample.count > 0.0))
    return rows, sample.energy_j[rows] - below[rows], below_design[rows]


def fit_own(
    book: ColumnRegistry,
    sample: TrainingSet,
    energy: np.ndarray,
    primitives: list[str],
    prior: dict[str, float],
    least: float,
    strength: float,
    readings: Sequence[frozenset[str]] | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """LEAFs of the primitives that have no label, from the balance of the modules, and what terms cost.

    ``prior``: joules of each term (a launch, a MiB, 1e6 operations) where the modules do not tell. ``least``:
    joules of the smallest leaf that was measured: no kernel takes less. Primitives that no labelled
    module uses are left out. ``strength``: how strongly each is drawn to what all of them cost together.
    ``readings``: which terms are left out of each fit; the mean of the fits is taken. Usually nothing is left
    out; where whole models alone are labelled, all of ROOFLINE_VARIANTS are tried.
    """
    rows_of = {p: np.flatnonzero(sample.leaf & (sample.primitive == p)) for p in primitives}
    products = {p: bool((sample.column("matmul_flops")[rows] > 0.0).any()) for p, rows in rows_of.items()}
    terms = [(p, term) for p in primitives for term in own_terms(book, p, products[p], bool(prior))]
    design = np.zeros((len(sample.energy_j), len(terms)))
    for index, (primitive, term) in enumerate(terms):
        rows = rows_of[primitive]
        design[rows, index] = roofline.design_of(book, [term], sample.features[rows])[:, 0]
    rows, left, below = balance(sample, energy, design)
    some = below.any(axis=1)
    rows, left, below = rows[some], left[some], below[some]
    if not len(rows):
        return {}, prior
    kinds = [name for _, (name, _) in terms]
    shared = sorted(set(kinds))
    start = np.array([prior.get(name, 0.0) for name in shared])
    scale, weight = sample.energy_j[rows], np.sqrt(sample.count[rows])
    pool = np.array([[name == kind for name in shared] for kind in kinds], dtype=np.float64)
    option = [
        "product_bytes" if kind == "mem_bytes" and products[p] else kind
        for (p, _), kind in zip(terms, kinds, strict=True)
    ]
    if readings is None:
        readings = ROOFLINE_VARIANTS if sample.root[rows].all() and not prior else (frozenset(),)
    weights, cost = np.zeros(len(terms)), np.zeros(len(shared))
    for gone in readings:
        kept = np.array([name not in gone for name in option])
        some = below[:, kept]
        together = huber_nnls.relative(some @ pool[kept], left, scale, weight, prior=start, strength=COMMON)
        together = np.where(together > 0.0, together, NOUGHT * start)
        drawn = pool[kept] @ together
        weights[kept] += huber_nnls.relative(some, left, scale, weight, prior=drawn, strength=strength)
        cost += together
    weights, cost = weights / len(readings), cost / len(readings)
    seen = {p for (p, _), used in zip(terms, np.any(below, axis=0).tolist(), strict=True) if used}
    found = {}
    for primitive in sorted(seen):
        mine = [index for index, (p, _) in enumerate(terms) if p == primitive]
        data = roofline.term_data([terms[index][1] for index in mine], weights[mine])
        found[primitive] = {"terms": data, "floor": gaussian_process.rounded(least), "correction": None}
    return found, dict(zip(shared, cost.tolist(), strict=True))


def add_up(sample: TrainingSet, leaf_j: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """A(n) of every node: leaves as given, inner nodes the sum of their children times their factor."""
    out = np.where(sample.leaf, leaf_j, 0.0)
    for parent, child, times in sample.steps:
        np.add.at(out, parent, times * out[child] * factor[parent])
    return out


@dataclass
class Correction:
    """A fitted correction of a level: its scales with inducing_points, their weights, its constant."""

    using: gaussian_process.Hyperparameters
    weights: np.ndarray
    bias: float

    def data(self, book: ColumnRegistry) -> dict[str, Any]:
        """The CORRECTION that ships."""
        if not len(self.weights):
            columns = composition(book)[:1]
            return {
                "columns": columns, "mean": [0.0], "scale": [1.0], "kernel": "poly", "degree": 1, "weights": [0.0],
                "limit": gaussian_process.LIMIT, "bias": gaussian_process.rounded(self.bias),
            }  # fmt: skip
        return gaussian_process.as_data(composition(book), self.using, self.weights, self.bias)


def composition(book: ColumnRegistry) -> list[int]:
    """Columns of a module's correction: SIGNATURE_COLUMNS that say what kind it is, then the input's size."""
    token = [book.raw("batch_size", "inverse"), book.raw("seq_len", "inverse")]
    return [
        book.raw("num_parameters", "log"),
        book.raw("kernels", "log"),
        book.of([book.raw("elementwise_flops"), *token], "log"),
        book.raw("seq_len", "log"),
        book.raw("batch_size", "log"),
    ]


#: (grid, its labelled places, what is left there, how smooth) -> the correction's value at all places.
Solver = Callable[[ModuleGrid, np.ndarray, gaussian_process.Points, CorrectionSettings], np.ndarray]


def factors(
    sample: TrainingSet,
    leaf_j: np.ndarray,
    grid: ModuleGrid,
    reach: CorrectionSettings,
    rounds: int,
    solve: Solver,
    factor: np.ndarray,
    used: np.ndarray,
) -> tuple[np.ndarray, float]:
    """The factor of every node once the correction of one level is fitted (``solve``), and the constant of that.

    ``factor``: float64[m], of the levels below. ``used``: bool[m], labelled nodes to learn from. A module's children
    are corrected as well, so the fit is repeated until parents have seen that.
    """
    factor, bias = factor.copy(), 0.0
    known = used[grid.rows]
    if known.sum() < gaussian_process.FEWEST:
        return factor, bias
    rows = grid.rows[known]
    seen, of = np.unique(grid.of[known], return_inverse=True)
    for _ in range(rounds):
        total = add_up(sample, leaf_j, factor)
        residual = np.log(sample.energy_j[rows] * factor[rows] / total[rows])
        if reach.biased:
            bias = huber_nnls.median(residual, np.sqrt(sample.count[rows]))
        points = gaussian_process.gather(grid.z[seen], of, residual - bias, sample.count[rows])
        value = bias + solve(grid, seen, points, reach)
        factor[grid.rows] = np.exp(gaussian_process.LIMIT * np.tanh(value[grid.of] / gaussian_process.LIMIT))
    return factor, bias


def rounds(sample: TrainingSet, level: str) -> int:
    """How often a level is fitted until every parent's correction knows its children's: as deep as they lie."""
    inside = sample.at(level)
    return max(1, sum(bool(inside[parent].any()) for parent, _, _ in sample.steps))


def scales(points: gaussian_process.Points, reach: CorrectionSettings) -> gaussian_process.Hyperparameters:
    """The scales of a correction; noise is the spread of replicates."""
    length = np.array(
        [reach.kind_length] * SIGNATURE_COLUMNS
        + [reach.size_length] * (points.z.shape[1] - SIGNATURE_COLUMNS)
    )
    noise = max(points.noise, gaussian_process.LEAST_NOISE) ** 2 / float(np.mean(points.count))
    return gaussian_process.Hyperparameters(length, noise / reach.ratio, noise)


def fit_corrections(
    sample: TrainingSet,
    leaf_j: np.ndarray,
    grids: dict[str, ModuleGrid],
    rank: dict[str, int],
    settings: Settings,
    inducing_points: dict[str, np.ndarray],
) -> tuple[dict[str, Correction], np.ndarray]:
    """Corrections per level, and the factor of every node of the sample.

    ``inducing_points`` remembers those of each level.
    """
    factor = np.ones(len(leaf_j))
    found: dict[str, Correction] = {}
    used = sample.labelled & (sample.count > 0.0)
    for level in ABOVE:

        def solve(grid: ModuleGrid, seen: np.ndarray, points: gaussian_process.Points, reach: CorrectionSettings,
                  level: str = level) -> np.ndarray:  # fmt: skip
            using = scales(points, reach)
            using.inducing_points = inducing_points.get(level)
            if len(seen) >= gaussian_process.FEWEST:
                gaussian_process.place(points, rank[level], using)
            if using.inducing_points is None or not len(using.inducing_points):
                found[level] = Correction(using, np.empty(0), 0.0)
                return np.zeros(len(grid.z))
            inducing_points[level] = using.inducing_points
            all_, among = grid.kernels(using)
            variance = gaussian_process.variance_of(points, using)
            weights = gaussian_process.solve(all_[seen], among, points.residual, variance, using.signal)
            found[level] = Correction(using, weights, 0.0)
            return np.asarray(all_ @ weights)

        reach: CorrectionSettings = getattr(settings, level)
        factor, bias = factors(
            sample, leaf_j, grids[level], reach, rounds(sample, level), solve, factor, used
        )
        if level in found:
            found[level].bias = bias
    return found, factor
