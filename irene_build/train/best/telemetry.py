"""What a run tells: joules from a node's own gpu_energy and latency.

D(n) = a gpu_energy + b latency and a few small extras; which extras, and whether a level has weights of its
own, is decided by leaving one training model out at a time. All weights are >= 0: D never turns negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irene_build.train.best import huber_nnls, roofline
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.sample import TrainingSet

Terms = list[tuple[str, list[int]]]
LEVELS = ("ml", "module", "model")
#: Share of the labelled nodes with both readings from which on the others are passed over.
BOTH = 0.5
#: A richer form has to be better by this share in the inner cross-validation.
WORTH = 0.01


def _extras(book: ColumnRegistry, with_gpu: bool) -> dict[str, tuple[str, list[int]]]:
    latency = book.raw("latency")
    out = {"launch": ("launch", []), "cpu": ("cpu", [latency, book.raw("cpu_util")])}
    if with_gpu:
        energy = book.raw("gpu_energy")
        out["gpu_power"] = ("gpu_power", [energy, energy, book.raw("latency", "inverse")])
    return out


def candidates(book: ColumnRegistry, sample: TrainingSet, rows: np.ndarray) -> list[Terms]:
    """Forms of D, simplest first; only features that every one of these nodes has."""
    known = {
        name: bool(len(rows)) and bool(np.isfinite(sample.column(name)[rows]).all())
        for name in ("latency", "gpu_energy", "cpu_util")
    }
    base: Terms = []
    if known["gpu_energy"]:
        base.append(("gpu_energy", [book.raw("gpu_energy")]))
    if not known["latency"]:
        return [base] if base else []
    base.append(("latency", [book.raw("latency")]))
    extras = _extras(book, known["gpu_energy"])
    if not known["cpu_util"]:
        del extras["cpu"]
    sets = [[], *([name] for name in extras)]
    if "cpu" in extras and "gpu_power" in extras:
        sets += [["cpu", "gpu_power"], ["cpu", "gpu_power", "launch"]]
    return [base + [extras[name] for name in names] for names in sets]


def solve(book: ColumnRegistry, sample: TrainingSet, rows: np.ndarray, terms: Terms) -> np.ndarray:
    """Weights of a form of D on these nodes."""
    design = roofline.design_of(book, terms, sample.features[rows])
    return huber_nnls.nnls(design, sample.energy_j[rows], np.sqrt(sample.count[rows]))


def value(
    book: ColumnRegistry, sample: TrainingSet, rows: np.ndarray, terms: Terms, weights: np.ndarray
) -> np.ndarray:
    """D of these nodes."""
    return np.asarray(roofline.design_of(book, terms, sample.features[rows]) @ weights)


def choose(book: ColumnRegistry, sample: TrainingSet, level: str) -> tuple[Terms, bool] | None:
    """The form of D for a level, and whether its weights are fitted on that level alone."""
    everywhere = np.flatnonzero(sample.labelled & (sample.count > 0.0) & _read(sample))
    here = everywhere[sample.at(level)[everywhere]]
    forms = candidates(book, sample, everywhere)
    if not forms or not len(here):
        return None
    models = np.unique(sample.model[here])
    options = [(terms, own) for own in (False, True) for terms in forms]
    if len(models) < 2:
        return options[0]
    best, choice = np.inf, options[0]
    for terms, own in options:
        rows = here if own else everywhere
        error = np.zeros(len(here))
        for model in models:
            train, test = rows[sample.model[rows] != model], sample.model[here] == model
            if len(train) < 3 * len(terms):
                error[test] = 1.0
                continue
            weights = solve(book, sample, train, terms)
            error[test] = np.abs(
                value(book, sample, here[test], terms, weights) / sample.energy_j[here[test]] - 1.0
            )
        score = float(np.average(error, weights=sample.count[here]))
        if score < (1.0 - WORTH) * best:
            best, choice = score, (terms, own)
    return choice


def _read(sample: TrainingSet) -> np.ndarray:
    """bool[m]: nodes with a reading of the time and the energy of a run; of one where few labels have both."""
    time, energy = (np.isfinite(sample.column(name)) for name in ("latency", "gpu_energy"))
    some, both = time | energy, time & energy
    labelled = sample.labelled & (sample.count > 0.0)
    return np.asarray(both if (both & labelled).sum() >= BOTH * (some & labelled).sum() else some)


def fit_direct(
    book: ColumnRegistry, sample: TrainingSet, forms: dict[str, tuple[Terms, bool]]
) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """DIRECTs per level (without pool), and D of every node of the sample, NaN where it has none."""
    everywhere = np.flatnonzero(sample.labelled & (sample.count > 0.0) & _read(sample))
    reading = np.full(len(sample.energy_j), np.nan)
    out = {}
    for level, (terms, own) in forms.items():
        rows = everywhere[sample.at(level)[everywhere]] if own else everywhere
        if not len(rows):
            continue
        weights = solve(book, sample, rows, terms)
        data = roofline.term_data(terms, weights)
        if not data:
            continue
        out[level] = {"terms": data, "floor": None}
        here = np.flatnonzero(sample.at(level) & _read(sample))
        reading[here] = value(book, sample, here, terms, np.array(weights))
    return out, reading


def pooled(sample: TrainingSet, leaf_j: np.ndarray, factor: np.ndarray, reading: np.ndarray,
           omega: dict[str, float]) -> np.ndarray:  # fmt: skip
    """P(n) of the profile tier: at every node the tree's A pooled with the node's own reading."""
    out = np.where(sample.leaf, leaf_j, 0.0)
    weight = np.zeros(len(out))
    for level, value_ in omega.items():
        weight[sample.at(level)] = value_
    has = np.isfinite(reading) & (reading > 0.0)

    def pool(rows: np.ndarray) -> None:
        rows = rows[has[rows]]
        out[rows] = np.where(out[rows] > 0.0, np.maximum(out[rows], 1e-300) ** (1.0 - weight[rows])
                             * reading[rows] ** weight[rows], reading[rows])  # fmt: skip

    pool(np.flatnonzero(sample.leaf))
    for parent, child, times in sample.steps:
        np.add.at(out, parent, times * out[child])
        inner = np.unique(parent)
        out[inner] *= factor[inner]
        pool(inner)
    return out


def error_of(sample: TrainingSet, predicted: np.ndarray, rows: np.ndarray) -> float:
    """Mean relative error of labelled nodes, copies counted."""
    rows = rows[sample.labelled[rows]]
    error = np.minimum(np.abs(predicted[rows] / sample.energy_j[rows] - 1.0), 1.0)
    return float(np.average(error, weights=sample.count[rows])) if len(rows) else 0.0
