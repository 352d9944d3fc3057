"""The static tier: every leaf from its shapes, every module from its children. Nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irene_build.train import formulas
from irene_build.train.best import (
    aggregation,
    calibration_range,
    gaussian_process,
    huber_nnls,
    roofline,
)
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.sample import SHAPE_NAMES, TrainingSet
from irene_build.train.schema import Bend

#: Most inducing points of a correction: what the generated module has room for, not a setting. More are more
#: accurate on anything with as many distinct shapes; a forward selection stops earlier where what is left is noise.
LEAF_RANK, GEMM_RANK = 24, 56
MODULE_RANK = {"module": 120, "model": 8}
#: A learned leaf lies within a factor of 5 of the fallback, which all primitives share (rulings: 1/5 to 5); of 2 where
#: one model alone had the primitive. At fifty times the size in each of the six features that a range has, the factor
#: is its square root: slow enough for joules to go on growing with size (ln 5 x 6 / BEND_REACH < 1).
BEND, BEND_ONCE, BEND_REACH = float(np.log(5.0)), float(np.log(2.0)), 24.0
#: Fewest labelled shapes that make a primitive calibrated.
FEWEST = 2
LEAF_NAMES = tuple(
    name for name in SHAPE_NAMES if name not in ("batch_size", "seq_len", "input_size", "num_parameters")
)
#: Where those are among the columns of a sample.
LEAF_PLACES = [SHAPE_NAMES.index(name) for name in LEAF_NAMES]

#: Terms that any primitive has, and the features that they are.
TYPICAL = {
    "launch": "kernels", "mem_bytes": "mem_bytes", "matmul_flops": "matmul_flops",
    "elementwise_flops": "elementwise_flops",
}  # fmt: skip
#: Where no leaf was measured, a leaf takes at least this share of the mean kernel of the leanest model.
LEAST_SHARE = 0.02


@dataclass
class Structure:
    """What a search found, and a refit on fewer models takes over.

    ``forms``: of each primitive. ``settings``: of all above the leaves. ``scales``: of each leaf's correction;
    ``inducing_points``: of each correction above. ``grids``: see
    ``aggregation.ModuleGrid``. ``readings``: see ``aggregation.fit_own``.
    """

    forms: dict[str, roofline.Form] = field(default_factory=dict)
    settings: aggregation.Settings = field(default_factory=aggregation.Settings)
    scales: dict[str, gaussian_process.Hyperparameters | None] = field(default_factory=dict)
    inducing_points: dict[str, np.ndarray] = field(default_factory=dict)
    grids: dict[str, aggregation.ModuleGrid] = field(default_factory=dict)
    readings: Sequence[frozenset[str]] | None = None

    def grids_of(self, sample: TrainingSet) -> dict[str, aggregation.ModuleGrid]:
        """The grids of a sample, which all samples without some of its labels share."""
        if not self.grids:
            self.grids.update({level: aggregation.ModuleGrid(sample, level) for level in aggregation.ABOVE})
        return self.grids


@dataclass
class Leaves:
    """The leaves of a fit: LEAFs of the labelled primitives, joules of every leaf that has one (NaN elsewhere).

    ``missing``: primitives without. ``cost``, ``least``: what ``typical`` says.
    """

    found: dict[str, dict[str, Any]]
    leaf_j: np.ndarray
    missing: list[str]
    cost: dict[str, float]
    least: float


@dataclass
class Static:
    """A fitted static tier: its keys (without interval and ranges).

    For every node of the sample: what its leaf gives (``leaf_j``), the factor of its correction, and A(n).
    """

    tier: dict[str, Any]
    leaf_j: np.ndarray
    factor: np.ndarray
    total_j: np.ndarray


def fit_static(sample: TrainingSet, book: ColumnRegistry, structure: Structure) -> Static:
    """Fit leaves, own kernels of modules and corrections to the labelled nodes with weight."""
    return fit_above(sample, book, structure, fit_leaves(sample, book, structure))


def fit_leaves(sample: TrainingSet, book: ColumnRegistry, structure: Structure) -> Leaves:
    """Fit every primitive that has labels of its own."""
    used = sample.leaf & sample.hinted & (sample.count > 0.0)
    found: dict[str, dict[str, Any]] = {}
    shapes: dict[str, roofline.Shapes] = {}
    for primitive in np.unique(sample.primitive[used]).tolist():
        rows = used & (sample.primitive == primitive)
        shapes[primitive] = roofline.by_shape(
            sample.features[rows][:, LEAF_PLACES],
            sample.energy_j[rows],
            sample.count[rows],
            sample.copied[rows],
        )
    for primitive, seen in shapes.items():
        if len(seen.count) < FEWEST:
            continue
        if primitive not in structure.forms:
            structure.forms[primitive] = roofline.form_of(LEAF_NAMES, seen)
        form = structure.forms[primitive]
        local = ColumnRegistry(LEAF_NAMES)
        rank = GEMM_RANK if _gemm(seen) else LEAF_RANK
        data = roofline.fit_leaf(local, seen, form, rank, structure.scales, primitive)
        found[primitive] = moved(data, local, book)
    missing = sorted(set(np.unique(sample.primitive[sample.leaf]).tolist()) - set(found))
    leaf_j = np.full(len(sample.energy_j), np.nan)
    _evaluate(leaf_j, sample, book, found)
    return Leaves(found, leaf_j, missing, *typical(sample, shapes))


def fit_own(
    sample: TrainingSet,
    book: ColumnRegistry,
    below: Leaves,
    prior: float,
    readings: Sequence[frozenset[str]] | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """``leaf`` and ``fallback`` of the tier, kernels that no label knows included, and joules of every leaf."""
    found, leaf_j = dict(below.found), below.leaf_j.copy()
    energy = np.where(sample.labelled & (sample.count > 0), sample.energy_j, leaf_j)
    own, together = aggregation.fit_own(
        book, sample, energy, below.missing, below.cost, below.least, prior, readings
    )
    found.update(own)
    fallback = _fallback(book, below.cost or together, roofline.FLOOR * below.least)
    for primitive in np.unique(sample.primitive[sample.leaf & np.isnan(leaf_j)]).tolist():
        rows = np.flatnonzero(sample.leaf & (sample.primitive == primitive))
        data = found.get(primitive) or found.get(roofline.kin(primitive, found) or "", fallback)
        leaf_j[rows] = formulas.leaf(data, book.over(sample.features[rows]))
    tier = {"leaf": found, "fallback": fallback, "aggregation": None, "bend": bend(sample)}
    return tier, _bent(tier, sample, book, leaf_j)


def bend(sample: TrainingSet) -> Bend:
    """The ``bend`` of a tier (FORMAT.md): a primitive of which one model alone is known is trusted less."""
    used = sample.leaf & sample.hinted & (sample.count > 0.0)
    once = {}
    if len(np.unique(sample.model[used])) > 1:
        for primitive in np.unique(sample.primitive[used]).tolist():
            if len(np.unique(sample.model[used & (sample.primitive == primitive)])) == 1:
                once[primitive] = BEND_ONCE
    return {"limit": BEND, "limits": once, "reach": BEND_REACH}


def _bent(tier: dict[str, Any], sample: TrainingSet, book: ColumnRegistry, leaf_j: np.ndarray) -> np.ndarray:
    """float64[m]: the leaves' joules, held near what the fallback says of them."""
    away, out = calibration_range.range_distance(sample, tier, book), leaf_j.copy()
    for primitive in np.unique(sample.primitive[sample.leaf]).tolist():
        rows = np.flatnonzero(sample.leaf & (sample.primitive == primitive))
        whose = primitive if primitive in tier["leaf"] else roofline.kin(primitive, tier["leaf"]) or ""
        law_j = formulas.leaf(tier["fallback"], book.over(sample.features[rows]))
        out[rows] = formulas.bent(tier, whose, leaf_j[rows], law_j, away[rows])
    return out


def fit_above(sample: TrainingSet, book: ColumnRegistry, structure: Structure, below: Leaves) -> Static:
    """Own kernels of modules and corrections on top of fitted leaves."""
    tier, leaf_j = fit_own(sample, book, below, structure.settings.prior, structure.readings)
    corrections, factor = aggregation.fit_corrections(
        sample, leaf_j, structure.grids_of(sample), MODULE_RANK, structure.settings, structure.inducing_points
    )
    tier["correction"] = {level: correction.data(book) for level, correction in corrections.items()}
    return Static(tier, leaf_j, factor, aggregation.add_up(sample, leaf_j, factor))


def _gemm(shapes: roofline.Shapes) -> bool:
    columns = [LEAF_NAMES.index(name) for name in roofline.GEMM]
    return bool((shapes.features[:, columns] > 0.0).all())


def _evaluate(
    leaf_j: np.ndarray, sample: TrainingSet, book: ColumnRegistry, found: dict[str, dict[str, Any]]
) -> None:
    for primitive, data in found.items():
        rows = np.flatnonzero(sample.leaf & (sample.primitive == primitive))
        leaf_j[rows] = formulas.leaf(data, book.over(sample.features[rows]))


def moved(data: dict[str, Any], source: ColumnRegistry, target: ColumnRegistry) -> dict[str, Any]:
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


def typical(sample: TrainingSet, shapes: dict[str, roofline.Shapes]) -> tuple[dict[str, float], float]:
    """What a launch, a MiB and 1e6 operations cost in the leaves that were measured, and the least of those.

    Without a measured leaf: nothing, and a small share of what a kernel of a whole model costs.
    """
    if not shapes:
        rows = sample.root & sample.labelled & (sample.count > 0.0)
        each = sample.energy_j[rows] / np.maximum(sample.column("kernels")[rows], 1.0)
        return {}, float(each.min(initial=1.0)) * LEAST_SHARE
    book = ColumnRegistry(LEAF_NAMES)
    terms = [(name, [book.raw(feature)]) for name, feature in TYPICAL.items()]
    design = np.concatenate([roofline.design_of(book, terms, s.features) for s in shapes.values()])
    energy = np.concatenate([s.energy_j for s in shapes.values()])
    weight = np.concatenate([np.full(len(s.count), 1.0 / len(s.count)) for s in shapes.values()])
    found = dict(zip(TYPICAL, huber_nnls.nnls(design, energy, weight).tolist(), strict=True))
    found["launch"] = max(found["launch"], 0.1 * float(energy.min()) / max(float(design[:, 0].max()), 1.0))
    return found, float(energy.min())


def _fallback(book: ColumnRegistry, cost: dict[str, float], floor: float) -> dict[str, Any]:
    """The LEAF of primitives that nothing is known of."""
    terms = [(name, [book.raw(feature)]) for name, feature in TYPICAL.items()]
    weights = np.array([cost.get(name, 0.0) for name in TYPICAL])
    return {
        "terms": roofline.term_data(terms, weights),
        "floor": gaussian_process.rounded(floor),
        "correction": None,
    }
