"""What modules add to their children: kernels of their own that nobody measured alone, and a correction.

Leaves without a label (element-wise work, copies) get their regressors from what the modules around them use
beyond their measured children. What is left after that is a smooth function of the module's composition.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irene_build.train import arithmetic
from irene_build.train.best import leaves, robust, smooth
from irene_build.train.best.columns import Book
from irene_build.train.best.sample import Sample

#: How far a correction reaches from one kind of module to another, in log units of its composition.
KIND_LENGTH = 0.4
#: How strongly an unlabelled primitive is drawn to what all of them cost together.
PRIOR = 0.03
BIASED = ("model",)
ROUNDS = 2


def own_terms(book: Book, primitive: str) -> list[tuple[str, list[int]]]:
    """The terms of a leaf that has no label of its own: launches, bytes, operations.

    Copies also stand for what torch copies and masks inside an attention without showing: as many bytes again
    for every token of the sequence.
    """
    size = book.raw("mem_bytes")
    out = [("launch", [book.raw("kernels")]), ("mem_bytes", [size]),
           ("elementwise_flops", [book.raw("elementwise_flops")])]  # fmt: skip
    if primitive == "Copy":
        out.append(("pairs", [size, book.raw("seq_len")]))
    return out


def balance(
    sample: Sample, energy: np.ndarray, design: np.ndarray
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
    book: Book, sample: Sample, energy: np.ndarray, primitives: list[str], prior: np.ndarray, least: float
) -> dict[str, dict[str, Any]]:
    """LEAFs of the primitives that have no label, from the balance of the modules.

    ``prior``: float64[3], joules of a launch, a MiB and 1e6 operations, where the modules do not tell.
    ``least``: joules of the smallest leaf that was measured: no kernel takes less. Primitives that no
    labelled module uses are left out.
    """
    terms = [(p, term) for p in primitives for term in own_terms(book, p)]
    design = np.zeros((len(sample.energy_j), len(terms)))
    for index, (primitive, term) in enumerate(terms):
        rows = np.flatnonzero(sample.leaf & (sample.primitive == primitive))
        design[rows, index] = leaves.design_of(book, [term], sample.features[rows])[:, 0]
    rows, left, below = balance(sample, energy, design)
    some = below.any(axis=1)
    rows, left, below = rows[some], left[some], below[some]
    kinds = [name for _, (name, _) in terms]
    shared = sorted(set(kinds))
    known = dict(zip(("launch", "mem_bytes", "elementwise_flops"), prior.tolist(), strict=True))
    start = np.array([known.get(name, 0.0) for name in shared])
    weights = np.array([known.get(name, 0.0) for name in kinds])
    if len(rows):
        scale = sample.energy_j[rows]
        weight = np.sqrt(sample.count[rows])
        pool = np.array([[name == kind for name in shared] for kind in kinds], dtype=np.float64)
        together = robust.relative(below @ pool, left, scale, weight, prior=start, strength=1e-5)
        drawn = pool @ np.where(together > 0.0, together, 0.1 * start)
        weights = robust.relative(below, left, scale, weight, prior=drawn, strength=PRIOR)
    seen = {p for (p, _), used in zip(terms, np.any(below, axis=0).tolist(), strict=True) if used}
    return {
        primitive: {
            "terms": leaves.term_data(
                [term for p, term in terms if p == primitive],
                np.array([w for (p, _), w in zip(terms, weights, strict=True) if p == primitive]),
            ),
            "floor": smooth.rounded(least),
            "correction": None,
        }
        for primitive in primitives
        if primitive in seen
    }


def add_up(sample: Sample, leaf_j: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """A(n) of every node: leaves as given, inner nodes the sum of their children times their factor."""
    out = np.where(sample.leaf, leaf_j, 0.0)
    for parent, child, times in sample.steps:
        np.add.at(out, parent, times * out[child])
        inner = np.unique(parent)
        out[inner] *= factor[inner]
    return out


def fit_corrections(
    book: Book, sample: Sample, leaf_j: np.ndarray, rank: dict[str, int], using: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """CORRECTIONs per level, and the factor of every node of the sample.

    A module's children are corrected as well, so the fit is repeated until parents have seen that. ``using``
    remembers the scales of each level's correction.
    """
    factor = np.ones(len(leaf_j))
    found: dict[str, dict[str, Any]] = {}
    for _ in range(ROUNDS):
        for level in ("module", "model"):
            rows = np.flatnonzero(sample.at(level) & sample.labelled & (sample.count > 0.0) & ~sample.leaf)
            if len(rows) < smooth.FEWEST:
                continue
            total = add_up(sample, leaf_j, factor)
            residual = np.log(sample.energy_j[rows] * factor[rows] / total[rows])
            found[level] = _fit_one(book, sample, rows, residual, rank[level], using, level)
            inner = np.flatnonzero(sample.at(level) & ~sample.leaf)
            factor[inner] = arithmetic.correction(found[level], book.over(sample.features[inner]))
    return found, factor


def composition(book: Book) -> tuple[list[int], np.ndarray]:
    """Columns that a module's correction depends on, and how far each reaches, in log units (NaN: to be found).

    The first three say what kind of module it is, whatever the input; the others the input's size.
    """
    token = [book.raw("batch_size", "inverse"), book.raw("seq_len", "inverse")]
    columns = [
        book.raw("num_parameters", "log"),
        book.raw("kernels", "log"),
        book.of([book.raw("elementwise_flops"), *token], "log"),
        book.raw("seq_len", "log"),
        book.raw("batch_size", "log"),
    ]
    return columns, np.array([KIND_LENGTH] * 3 + [np.nan] * 2)


def _fit_one(
    book: Book,
    sample: Sample,
    rows: np.ndarray,
    residual: np.ndarray,
    rank: int,
    using: dict[str, Any],
    level: str,
) -> dict[str, Any]:
    bias = robust.median(residual, np.sqrt(sample.count[rows])) if level in BIASED else 0.0
    columns, reach = composition(book)
    values = book.over(sample.features[rows])
    points = smooth.gather(np.column_stack([values[c] for c in columns]), residual - bias, sample.count[rows])
    if level not in using:
        using[level] = smooth.scales(points, reach)
    data = smooth.fit(points, columns, rank, using[level])
    if data is None:
        data = {"columns": columns[:1], "mean": [0.0], "scale": [1.0], "kernel": "poly", "degree": 1,
                "weights": [0.0], "limit": smooth.LIMIT}  # fmt: skip
    data["bias"] = smooth.rounded(bias)
    return data
