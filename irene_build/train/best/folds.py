"""Which models an inner fold leaves out: single models, and whole families of them.

A family is told by what its models are made of, never by a name: modules of the same kind (``kinds``).
"""

from __future__ import annotations

import numpy as np

from irene_build.train.best import module_signature
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.sample import TrainingSet

#: Models are related where more than this share of the modules of each is of kinds that the other has: at first
#: most of them (one architecture in other sizes), then any at all.
RELATED = (0.5, 0.0)


def left_out(data: TrainingSet) -> list[tuple[int, ...]]:
    """Models (indices) that each fold leaves out: every model, then every family that leaves another behind."""
    models: list[int] = np.unique(data.model[data.labelled]).tolist()
    if len(models) < 2:
        return []
    out: list[tuple[int, ...]] = [(model,) for model in models]
    share = _shared(data, models)
    for least in RELATED:
        families = _joined(models, share > least)
        out += [family for family in families if family not in out and len(family) < len(models)]
    return out


def families_of(data: TrainingSet) -> np.ndarray:
    """int64[models]: the family of every model, the first of it; models without a label are their own."""
    models = np.unique(data.model[data.labelled]).tolist()
    out = np.arange(len(data.models))
    for family in _joined(models, _shared(data, models) > RELATED[0]):
        out[list(family)] = family[0]
    return out


def _shared(data: TrainingSet, models: list[int]) -> np.ndarray:
    """float64[models, models]: the share of modules of kinds that both have, the smaller of both shares."""
    rows = np.flatnonzero(data.at("module") & (data.count > 0.0))
    out = np.zeros((len(models), len(models)))
    if not len(rows):
        return out
    _, kind = np.unique(
        module_signature.places(data, ColumnRegistry(data.names), rows), axis=0, return_inverse=True
    )
    has = np.zeros((len(models), int(kind.max()) + 1))
    for index, model in enumerate(models):
        mine = data.model[rows] == model
        has[index] = np.bincount(kind.ravel()[mine], weights=data.count[rows[mine]], minlength=has.shape[1])
    total = np.maximum(has.sum(axis=1), 1e-300)
    for i in range(len(models)):
        for j in range(len(models)):
            out[i, j] = has[i][has[j] > 0.0].sum() / total[i]
    return np.minimum(out, out.T)


def _joined(models: list[int], linked: np.ndarray) -> list[tuple[int, ...]]:
    """Groups of models that are linked, directly or through others."""
    group = np.arange(len(models))
    for i, j in zip(*np.nonzero(linked), strict=True):
        group[group == group[j]] = group[i]
    return [tuple(m for m, g in zip(models, group, strict=True) if g == one) for one in np.unique(group)]
