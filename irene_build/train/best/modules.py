"""What modules add to their children: kernels of their own that nobody measured alone, and a correction.

Leaves without a label (element-wise work, copies) get their regressors from what the modules around them use
beyond their measured children. What is left after that is a smooth function of the module's composition.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irene_build.train import formulas
from irene_build.train.best import leaves, robust, smooth
from irene_build.train.best.columns import Book
from irene_build.train.best.sample import Sample

#: How many of the columns of a correction say what kind of module it is.
KIND = 3
#: Levels whose correction has a constant of its own; elsewhere it goes to 1 far from what was measured.
BIASED = ("model",)
#: How often corrections are fitted anew, so that a parent's knows its children's.
ROUNDS = 2


def own_terms(book: Book, primitive: str, products: bool) -> list[tuple[str, list[int]]]:
    """The terms of a leaf that has no label of its own: launches, bytes, operations (``products``: matrices).

    Copies also stand for what torch copies and masks inside an attention without showing: as many bytes again
    for every token of the sequence.
    """
    size = book.raw("mem_bytes")
    out = [("launch", [book.raw("kernels")]), ("mem_bytes", [size]),
           ("elementwise_flops", [book.raw("elementwise_flops")])]  # fmt: skip
    if primitive == "Copy":
        out.append(("pairs", [size, book.raw("seq_len")]))
    if products:
        out.append(("matmul_flops", [book.raw("matmul_flops")]))
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
    book: Book,
    sample: Sample,
    energy: np.ndarray,
    primitives: list[str],
    prior: dict[str, float],
    least: float,
    strength: float,
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """LEAFs of the primitives that have no label, from the balance of the modules, and what terms cost.

    ``prior``: joules of each term (a launch, a MiB, 1e6 operations) where the modules do not tell. ``least``:
    joules of the smallest leaf that was measured: no kernel takes less. Primitives that no labelled
    module uses are left out. ``strength``: how strongly each is drawn to what all of them cost together.
    """
    rows_of = {p: np.flatnonzero(sample.leaf & (sample.primitive == p)) for p in primitives}
    products = {p: bool((sample.column("matmul_flops")[rows] > 0.0).any()) for p, rows in rows_of.items()}
    terms = [(p, term) for p in primitives for term in own_terms(book, p, products[p])]
    design = np.zeros((len(sample.energy_j), len(terms)))
    for index, (primitive, term) in enumerate(terms):
        rows = rows_of[primitive]
        design[rows, index] = leaves.design_of(book, [term], sample.features[rows])[:, 0]
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
    together = robust.relative(below @ pool, left, scale, weight, prior=start, strength=1e-5)
    together = np.where(together > 0.0, together, 0.1 * start)
    weights = robust.relative(below, left, scale, weight, prior=pool @ together, strength=strength)
    seen = {p for (p, _), used in zip(terms, np.any(below, axis=0).tolist(), strict=True) if used}
    found = {}
    for primitive in sorted(seen):
        mine = [index for index, (p, _) in enumerate(terms) if p == primitive]
        data = leaves.term_data([terms[index][1] for index in mine], weights[mine])
        found[primitive] = {"terms": data, "floor": smooth.rounded(least), "correction": None}
    return found, dict(zip(shared, together.tolist(), strict=True))


def add_up(sample: Sample, leaf_j: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """A(n) of every node: leaves as given, inner nodes the sum of their children times their factor."""
    out = np.where(sample.leaf, leaf_j, 0.0)
    for parent, child, times in sample.steps:
        np.add.at(out, parent, times * out[child])
        inner = np.unique(parent)
        out[inner] *= factor[inner]
    return out


def fit_corrections(
    book: Book,
    sample: Sample,
    leaf_j: np.ndarray,
    rank: dict[str, int],
    using: dict[str, Any],
    kind_length: float,
) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """CORRECTIONs per level, and the factor of every node of the sample.

    A module's children are corrected as well, so the fit is repeated until parents have seen that. ``using``
    remembers the scales of each level's correction in each round. ``kind_length``: how far a correction reaches
    from one kind of module to another, in log units of its composition.
    """
    factor = np.ones(len(leaf_j))
    found: dict[str, dict[str, Any]] = {}
    for turn in range(ROUNDS):
        for level in ("module", "model"):
            rows = np.flatnonzero(sample.at(level) & sample.labelled & (sample.count > 0.0) & ~sample.leaf)
            if len(rows) < smooth.FEWEST:
                continue
            total = add_up(sample, leaf_j, factor)
            residual = np.log(sample.energy_j[rows] * factor[rows] / total[rows])
            found[level] = _fit_one(
                book, sample, rows, residual, rank[level], using, f"{level} {turn}", kind_length
            )
            inner = np.flatnonzero(sample.at(level) & ~sample.leaf)
            factor[inner] = formulas.correction(found[level], book.over(sample.features[inner]))
    return found, factor


def composition(book: Book, kind_length: float) -> tuple[list[int], np.ndarray]:
    """Columns that a module's correction depends on, and how far each reaches (log units, NaN: to be found).

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
    return columns, np.array([kind_length] * KIND + [np.nan] * 2)


def _fit_one(
    book: Book,
    sample: Sample,
    rows: np.ndarray,
    residual: np.ndarray,
    rank: int,
    using: dict[str, Any],
    name: str,
    kind_length: float,
) -> dict[str, Any]:
    bias = robust.median(residual, np.sqrt(sample.count[rows])) if name.split()[0] in BIASED else 0.0
    columns, reach = composition(book, kind_length)
    values = book.over(sample.features[rows])
    points = smooth.gather(np.column_stack([values[c] for c in columns]), residual - bias, sample.count[rows])
    if name not in using:
        using[name] = smooth.scales(points, reach)
    data = smooth.fit(points, columns, rank, using[name])
    if data is None:
        data = {"columns": columns[:1], "mean": [0.0], "scale": [1.0], "kernel": "poly", "degree": 1,
                "weights": [0.0], "limit": smooth.LIMIT}  # fmt: skip
    data["bias"] = smooth.rounded(bias)
    return data
