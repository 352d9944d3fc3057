"""What fits say of models, families and sizes that they have not seen: settings, pools and intervals rest on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.train.best import calibration_range, folds, module_signature, telemetry
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.sample import TrainingSet
from irene_build.train.best.static import Leaves, Structure, fit_above, fit_leaves


@dataclass
class Part:
    """An inner fold: what it leaves out (bool[m]), the rest, and the leaves of that. ``family``: several models."""

    out: np.ndarray
    rest: TrainingSet
    book: ColumnRegistry
    below: Leaves
    family: bool


@dataclass
class HeldOut:
    """For every node what a fit says that had not seen it. float64[m] each, NaN where there is none.

    Its leaf, the factor of its correction, A and D, and how far it lies outside the ranges of that fit. bool[m]:
    ``far``, a module or root of an unknown kind, or a leaf whose primitive had no label.
    """

    leaf_j: np.ndarray
    factor: np.ndarray
    total_j: np.ndarray
    reading_j: np.ndarray
    away: np.ndarray
    far: np.ndarray


def gone(data: TrainingSet) -> list[tuple[np.ndarray, bool]]:
    """What each inner fold leaves out (bool[m]), and whether that is a family."""
    return [(np.isin(data.model, left), len(left) > 1) for left in folds.left_out(data)]


def parts(data: TrainingSet, structure: Structure, left: Sequence[tuple[np.ndarray, bool]]) -> list[Part]:
    """The inner folds with their leaves fitted; those without a label left have nothing to say."""
    out = []
    for rows, family in left:
        rest = data.without(rows)
        if rest.labelled.any():
            book = ColumnRegistry(data.names)
            out.append(Part(rows, rest, book, fit_leaves(rest, book, structure), family))
    return out


def leave_out(
    data: TrainingSet,
    structure: Structure,
    forms: dict[str, Any],
    book: ColumnRegistry,
    chosen: Sequence[Part],
) -> list[HeldOut]:
    """What the fit of each part says of what it leaves out: one HeldOut over all models, then one a family."""
    single = [part for part in chosen if not part.family]
    if not single:
        return []
    out = [_nothing(data)]
    for part in single:
        _fill(out[0], data, part, structure, forms, book)
    for part in chosen:
        if part.family:
            out.append(_nothing(data))
            _fill(out[-1], data, part, structure, forms, book)
    return out


def leave_sizes_out(
    data: TrainingSet, known: Structure, forms: dict[str, Any], book: ColumnRegistry
) -> HeldOut | None:
    """Every model at its larger inputs by a fit to the others at smaller ones; None where sizes do not differ.

    Larger: more tokens than the median of the labelled nodes. Forms, hyper-parameters and
    inducing_points are found among the smaller ones; of ``known`` only the settings are taken.
    """
    models = np.unique(data.model[data.labelled]).tolist()
    tokens = data.column(calibration_range.TOKENS)
    sized = data.labelled & np.isfinite(tokens)
    if len(models) < 2 or not sized.any():
        return None
    large = sized & (tokens > np.median(tokens[sized]))
    if not large.any():
        return None
    small = data.without(large)
    each = [(data.model == model, False) for model in models]
    structure = Structure(settings=known.settings, grids=known.grids)
    own = ColumnRegistry(data.names)
    fit_above(small, own, structure, fit_leaves(small, own, structure))
    out = _nothing(data)
    for part in parts(small, structure, each):
        _fill(out, data, part, structure, forms, book, part.out & large)
    return out


def _nothing(data: TrainingSet) -> HeldOut:
    size = len(data.energy_j)
    leaf_j, factor, total_j, reading_j, away = (np.full(size, np.nan) for _ in range(5))
    return HeldOut(leaf_j, factor, total_j, reading_j, away, np.zeros(size, dtype=bool))


def _fill(
    out: HeldOut,
    data: TrainingSet,
    part: Part,
    structure: Structure,
    forms: dict[str, Any],
    book: ColumnRegistry,
    rows: np.ndarray | None = None,
) -> None:
    rows = part.out if rows is None else rows
    static = fit_above(part.rest, part.book, structure, part.below)
    _, reading = telemetry.fit_direct(book, part.rest, forms)
    for name in ("leaf_j", "factor", "total_j"):
        getattr(out, name)[rows] = getattr(static, name)[rows]
    out.reading_j[rows] = reading[rows]
    out.away[rows] = calibration_range.range_distance(part.rest, static.tier, part.book)[rows]
    unknown = data.leaf & np.isin(data.primitive, part.below.missing)
    out.far[rows] = (module_signature.unknown_signature(data, part.rest) | unknown)[rows]
