"""Kinds of modules: what they are made of, whatever the input's size. Unknown kinds get wider intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from irene_build.train import formulas
from irene_build.train.best.columns import Book
from irene_build.train.best.sample import Sample

#: Modules closer than this in every log feature are of one kind.
REACH = 0.0003


def columns(book: Book) -> list[int]:
    """The columns that tell a kind."""
    return [book.raw("num_parameters", "log"), book.raw("kernels", "log")]


def known(sample: Sample, book: Book) -> tuple[dict[str, Any] | None, np.ndarray]:
    """The ``kinds`` of an INTERVAL, and which nodes would be far without their model: bool[m]."""
    far = np.zeros(len(sample.energy_j), dtype=bool)
    chosen = columns(book)
    rows = np.flatnonzero(sample.at("module") & sample.labelled)
    if not len(rows):
        return None, far
    values = book.over(sample.features[rows])
    own = np.column_stack([values[c] for c in chosen])
    for model in np.unique(sample.model[rows]):
        mine = sample.model[rows] == model
        others = _points(own[~mine])
        if not len(others):
            far[rows[mine]] = True
            continue
        data = {"columns": chosen, "points": others.tolist(), "reach": REACH}
        far[rows[mine]] = formulas.is_far(data, book.over(sample.features[rows[mine]]))
    _roots(sample, far)
    return {"columns": chosen, "points": _points(own).tolist(), "reach": REACH}, far


def _points(own: np.ndarray) -> np.ndarray:
    """Distinct places, one for all that are within half the reach of each other."""
    return np.unique(np.round(own / (0.5 * REACH)) * (0.5 * REACH), axis=0).round(6)


def _roots(sample: Sample, far: np.ndarray) -> None:
    """A root is far where far children hold more than half of what its children use (by label)."""
    energy = np.where(sample.labelled, sample.energy_j, 0.0)
    total, unknown = np.zeros(len(far)), np.zeros(len(far))
    for parent, child, times in sample.steps:
        np.add.at(total, parent, times * energy[child])
        np.add.at(unknown, parent, times * np.where(far[child], energy[child], 0.0))
    roots = sample.at("model")
    far[roots] = unknown[roots] > 0.5 * total[roots]
