"""The static tier: every leaf from its shapes, every module from its children. Nothing is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irene_build.train import arithmetic
from irene_build.train.best import leaves, modules, robust, smooth
from irene_build.train.best.columns import Book
from irene_build.train.best.sample import SHAPE_NAMES, Sample

LEAF_RANK, GEMM_RANK = 24, 56
MODULE_RANK = {"module": 120, "model": 8}
#: Fewest labelled shapes that make a primitive calibrated.
FEWEST = 2
_LEAF_NAMES = tuple(
    name for name in SHAPE_NAMES if name not in ("batch_size", "seq_len", "input_size", "num_parameters")
)


@dataclass
class Structure:
    """What a search found, and a refit on fewer models takes over.

    ``waves``: tile and wave of each primitive. ``scales``: lengths and variances of each correction.
    """

    waves: dict[str, tuple[int, int, int] | None] = field(default_factory=dict)
    scales: dict[str, smooth.Scales | None] = field(default_factory=dict)


@dataclass
class Static:
    """A fitted static tier: its keys (without interval and ranges).

    For every node of the sample: what its leaf gives (``leaf_j``), the factor of its correction, and A(n).
    """

    tier: dict[str, Any]
    leaf_j: np.ndarray
    factor: np.ndarray
    total_j: np.ndarray


def fit_static(sample: Sample, book: Book, structure: Structure) -> Static:
    """Fit leaves, own kernels of modules and corrections to the labelled nodes with weight."""
    used = sample.leaf & sample.labelled & (sample.count > 0.0)
    found: dict[str, dict[str, Any]] = {}
    shapes = {}
    places = [sample.names.index(name) for name in _LEAF_NAMES]
    for primitive in np.unique(sample.primitive[used]).tolist():
        rows = used & (sample.primitive == primitive)
        shapes[primitive] = leaves.by_shape(
            sample.features[rows][:, places], sample.energy_j[rows], sample.count[rows]
        )
        if len(shapes[primitive].count) < FEWEST:
            continue
        if primitive not in structure.waves:
            structure.waves[primitive] = leaves.fit_wave(_LEAF_NAMES, shapes[primitive])
        rank = GEMM_RANK if _gemm(shapes[primitive]) else LEAF_RANK
        local = Book(_LEAF_NAMES)
        data = leaves.fit_leaf(
            local, shapes[primitive], structure.waves[primitive], rank, structure.scales, primitive
        )
        found[primitive] = moved(data, local, book)
    fallback, prior = fit_fallback(book, shapes)
    missing = sorted(set(np.unique(sample.primitive[sample.leaf]).tolist()) - set(found))
    leaf_j = np.full(len(sample.energy_j), np.nan)
    _evaluate(leaf_j, sample, book, found)
    energy = np.where(sample.labelled & (sample.count > 0), sample.energy_j, leaf_j)
    least = min((float(s.energy_j.min()) for s in shapes.values()), default=0.0)
    own = modules.fit_own(book, sample, energy, missing, prior, least)
    found.update(own)
    tier = {"leaf": found, "fallback": fallback, "aggregation": None}
    for primitive in np.unique(sample.primitive[sample.leaf & np.isnan(leaf_j)]).tolist():
        rows = np.flatnonzero(sample.leaf & (sample.primitive == primitive))
        data = found.get(primitive) or found.get(kin(primitive, found) or "", fallback)
        leaf_j[rows] = arithmetic.leaf(data, book.over(sample.features[rows]))
    tier["correction"], factor = modules.fit_corrections(book, sample, leaf_j, MODULE_RANK, structure.scales)
    return Static(tier, leaf_j, factor, modules.add_up(sample, leaf_j, factor))


def _gemm(shapes: leaves.Shapes) -> bool:
    columns = [_LEAF_NAMES.index(name) for name in leaves.GEMM]
    return bool((shapes.features[:, columns] > 0.0).all())


def kin(primitive: str, found: dict[str, dict[str, Any]]) -> str | None:
    """A calibrated primitive that can stand in for one that is not."""
    for group in leaves.KIN:
        if primitive in group:
            for other in group:
                if other != primitive and other in found:
                    return other
    return None


def _evaluate(leaf_j: np.ndarray, sample: Sample, book: Book, found: dict[str, dict[str, Any]]) -> None:
    for primitive, data in found.items():
        rows = np.flatnonzero(sample.leaf & (sample.primitive == primitive))
        leaf_j[rows] = arithmetic.leaf(data, book.over(sample.features[rows]))


def moved(data: dict[str, Any], source: Book, target: Book) -> dict[str, Any]:
    """A LEAF with its column indices changed from one book to another."""
    index: dict[int, int] = {}

    def move(column: int) -> int:
        if column not in index:
            raw = dict(source.columns[column])
            by = raw.get("by")
            if "of" in raw:
                index[column] = target.of([move(c) for c in raw["of"]], raw["map"], by)
            else:
                index[column] = target.raw(raw["feature"], raw["map"], by)
        return index[column]

    for term in data["terms"]:
        term["columns"] = [move(c) for c in term["columns"]]
    if data["correction"] is not None:
        data["correction"]["columns"] = [move(c) for c in data["correction"]["columns"]]
    return data


def fit_fallback(book: Book, shapes: dict[str, leaves.Shapes]) -> tuple[dict[str, Any], np.ndarray]:
    """The LEAF of primitives that nothing is known of, from all that were measured.

    Also what a launch, a MiB and 1e6 operations cost there: float64[3].
    """
    kinds = {"launch": "kernels"} | {n: n for n in ("mem_bytes", "matmul_flops", "elementwise_flops")}
    terms = [(name, [book.raw(feature)]) for name, feature in kinds.items()]
    if not shapes:
        return {"terms": [], "floor": 1e-6, "correction": None}, np.array([1e-3, 1e-3, 1e-5])
    local = Book(_LEAF_NAMES)
    local_terms = [(name, [local.raw(feature)]) for name, feature in kinds.items()]
    design = np.concatenate([leaves.design_of(local, local_terms, s.features) for s in shapes.values()])
    energy = np.concatenate([s.energy_j for s in shapes.values()])
    weight = np.concatenate([np.full(len(s.count), 1.0 / len(s.count)) for s in shapes.values()])
    weights = robust.nnls(design, energy, weight)
    floor = 0.5 * float(min(s.energy_j.min() for s in shapes.values()))
    least = float(energy.min()) / max(float(design[:, 0].max()), 1.0)
    prior = np.array([max(weights[0], 0.1 * least), max(weights[1], 1e-12), max(weights[3], 1e-12)])
    return {"terms": leaves.term_data(terms, weights), "floor": floor, "correction": None}, prior
