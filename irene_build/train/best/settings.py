"""Chooses how far corrections reach and how strongly unlabelled kernels are pooled: by models left out, two halves.

Half of the models at a time is left out, so that there are kinds of modules among them which the others lack.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from irene_build.train.best import modules, readings, smooth
from irene_build.train.best.columns import Book
from irene_build.train.best.sample import Sample
from irene_build.train.best.static import Structure, fit_above, fit_leaves

#: Only shorter than usual: of kinds that no training model has, none can say that a correction reaches them.
KIND_LENGTHS = (0.2,)
PRIORS = (0.003, 0.3)
#: A value other than the usual one has to be better by this share, for both halves.
WORTH = 0.03
#: Fewer models than this have no halves that tell anything.
FEWEST = 4


def choose(data: Sample, structure: Structure) -> Structure:
    """``structure`` (of a fit to all of ``data``) with the settings that serve left-out models best."""
    models = np.unique(data.model[data.labelled])
    if len(models) < FEWEST:
        return structure
    usual = (structure.kind_length, structure.prior)
    options = [usual, *((k, usual[1]) for k in KIND_LENGTHS), *((usual[0], p) for p in PRIORS)]
    errors = []
    for half in (models[0::2], models[1::2]):
        gone = np.isin(data.model, half)
        rest, book = data.without(gone), Book(data.names)
        below = fit_leaves(rest, book, structure)
        rows = [np.flatnonzero(gone & data.labelled & data.at(level)) for level in ("module", "model")]
        totals = [fit_above(rest, book, _with(structure, *option), below).total_j for option in options]
        errors.append([sum(readings.error_of(data, total, chosen) for chosen in rows) for total in totals])
    share = np.max([np.array(found) / max(found[0], 1e-12) for found in errors], axis=0)
    share[0] = 1.0 - WORTH
    first_prior = 1 + len(KIND_LENGTHS)
    length = options[min(range(first_prior), key=lambda option: share[option])][0]
    prior = options[min([0, *range(first_prior, len(options))], key=lambda option: share[option])][1]
    return structure if (length, prior) == usual else _with(structure, length, prior)


def _with(structure: Structure, kind_length: float, prior: float) -> Structure:
    """The structure with other settings; corrections keep their centers, and reach as far as that says."""
    scales: dict[str, smooth.Scales | None] = {}
    for name, found in structure.scales.items():
        scales[name] = found
        if found is not None and name.split()[0] in ("module", "model"):
            length = found.length.copy()
            length[: modules.KIND] = kind_length
            scales[name] = replace(found, length=length)
    return replace(structure, scales=scales, kind_length=kind_length, prior=prior)
