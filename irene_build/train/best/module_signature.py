"""Kinds of modules: what they are made of, whatever the input's size. Unknown kinds get wider intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.sample import TrainingSet

#: Modules closer than this in every log feature are of one kind: equality, but for the rounding of a file.
REACH = 0.0003


def columns(book: ColumnRegistry) -> list[int]:
    """The columns that tell a kind."""
    return [book.raw("num_parameters", "log"), book.raw("kernels", "log")]


def places(sample: TrainingSet, book: ColumnRegistry, rows: np.ndarray) -> np.ndarray:
    """float64[rows, columns]: the kind of each module, the same numbers for all of one kind."""
    values = book.over(sample.features[rows])
    own = np.column_stack([values[c] for c in columns(book)])
    return np.asarray((np.round(own / (0.5 * REACH)) * (0.5 * REACH)).round(6))


def known(sample: TrainingSet, book: ColumnRegistry) -> dict[str, Any] | None:
    """The ``kinds`` of an INTERVAL: those with a label; None without a module."""
    rows = np.flatnonzero(sample.at("module") & sample.labelled & (sample.count > 0.0))
    if not len(rows):
        return None
    points = np.unique(places(sample, book, rows), axis=0)
    return {"columns": columns(book), "points": points.tolist(), "reach": REACH}


def unknown_signature(sample: TrainingSet, rest: TrainingSet) -> np.ndarray:
    """bool[m]: modules of kinds that have no label in ``rest``, and the roots that mostly consist of them.

    Far children hold more than half of what the children of such a root use (by label).
    """
    out = np.zeros(len(sample.energy_j), dtype=bool)
    rows = np.flatnonzero(sample.at("module"))
    if not len(rows):
        return out
    _, kind = np.unique(places(sample, ColumnRegistry(sample.names), rows), axis=0, return_inverse=True)
    kind = kind.ravel()
    seen = np.unique(kind[(rest.labelled & (rest.count > 0.0))[rows]])
    out[rows] = ~np.isin(kind, seen)
    energy = np.where(sample.labelled, sample.energy_j, 0.0)
    total, unknown = np.zeros(len(out)), np.zeros(len(out))
    for parent, child, times in sample.steps:
        np.add.at(total, parent, times * energy[child])
        np.add.at(unknown, parent, times * np.where(out[child], energy[child], 0.0))
    roots = sample.at("model")
    out[roots] = unknown[roots] > 0.5 * total[roots]
    return out
