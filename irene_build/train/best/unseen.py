"""What fits say of models, and of sizes, that they have not seen: pools and intervals come from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.train.best import limits, readings
from irene_build.train.best.columns import Book
from irene_build.train.best.leaves import WAVES
from irene_build.train.best.sample import Sample
from irene_build.train.best.static import Structure, fit_static


@dataclass
class Unseen:
    """For every node what fits say that had not seen it. float64[m] each, NaN where there is none.

    Its leaf, the factor of its correction, A and D, and how far it lies outside the ranges of that fit.
    """

    leaf_j: np.ndarray
    factor: np.ndarray
    total_j: np.ndarray
    reading_j: np.ndarray
    away: np.ndarray


def leave_models_out(data: Sample, structure: Structure, forms: dict[str, Any], book: Book) -> Unseen | None:
    """Every model by a fit without it; None where there is one model alone."""
    models = np.unique(data.model[data.labelled]).tolist()
    if len(models) < 2:
        return None
    out = _nothing(data)
    for model in models:
        rows = data.model == model
        _fill(out, data.without(rows), rows, structure, forms, book)
    return out


def leave_sizes_out(data: Sample, known: Structure, forms: dict[str, Any], book: Book) -> Unseen | None:
    """Every model at its larger inputs by a fit to the others at smaller ones; None where sizes do not differ.

    Larger: more tokens than the median of the labelled nodes. Waves (of fewer sizes, for time) and scales are
    found among the smaller ones; of ``known`` only the settings are taken.
    """
    models = np.unique(data.model[data.labelled]).tolist()
    tokens = data.column(limits.TOKENS)
    sized = data.labelled & np.isfinite(tokens)
    if len(models) < 2 or not sized.any():
        return None
    large = sized & (tokens > np.median(tokens[sized]))
    if not large.any():
        return None
    small = data.without(large)
    structure = Structure(groups=WAVES[::3], kind_length=known.kind_length, prior=known.prior)
    fit_static(small, Book(data.names), structure)
    out = _nothing(data)
    for model in models:
        mine = data.model == model
        rest = small.without(mine)
        if rest.labelled.any():
            _fill(out, rest, mine & large, structure, forms, book)
    return out


def _nothing(data: Sample) -> Unseen:
    return Unseen(*(np.full(len(data.energy_j), np.nan) for _ in range(5)))


def _fill(
    out: Unseen, rest: Sample, rows: np.ndarray, structure: Structure, forms: dict[str, Any], book: Book
) -> None:
    own = Book(rest.names)
    static = fit_static(rest, own, structure)
    _, reading = readings.fit_direct(book, rest, forms)
    for name in ("leaf_j", "factor", "total_j"):
        getattr(out, name)[rows] = getattr(static, name)[rows]
    out.reading_j[rows] = reading[rows]
    out.away[rows] = limits.away(rest, static.tier, own)[rows]
