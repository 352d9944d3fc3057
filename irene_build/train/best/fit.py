"""Puts the tiers of an estimator together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import intervals
from irene_build.train.best import kinds, readings, smooth
from irene_build.train.best.columns import Book
from irene_build.train.best.sample import Sample, sample
from irene_build.train.best.static import Structure, fit_static, kin
from irene_runtime.features import PRIMITIVES
from irene_runtime.tree import LEVELS

TIERS = ("static", "live", "profile")
#: Features whose range is remembered: outside of it a prediction extrapolates.
RANGED = ("elements", "matmul_flops", "mem_bytes", "gemm_m", "gemm_n", "gemm_k", "rows", "cols")
RANGED_ABOVE = ("flops", "mem_bytes", "num_parameters")
#: Features that a leaf cannot be without (a tree that lacks them is refused).
NEEDED = ("gemm_m", "gemm_n", "gemm_k", "rows", "cols")


@dataclass
class Unseen:
    """What fits that had not seen a node's model say of it: leaves, factors, A and D of every node."""

    leaf_j: np.ndarray
    factor: np.ndarray
    total_j: np.ndarray
    reading_j: np.ndarray


def fit(dataset: Dataset, tiers: Sequence[str] = TIERS, seed: int = 0) -> dict[str, Any]:
    """Train an estimator (FORMAT.md). Deterministic: nothing is drawn, ``seed`` is there for the interface.

    ``tiers``: which to fit; one that the dataset's features do not allow is left out. Raises DatasetError where
    the dataset has no label.
    """
    del seed
    data = sample(dataset)
    if not data.labelled.any():
        raise DatasetError(f"the dataset of {dataset.hardware} has no labelled node to train on")
    book = Book(data.names)
    structure = Structure()
    static = fit_static(data, book, structure)
    forms = {}
    for level in LEVELS if set(tiers) - {"static"} else ():
        chosen = readings.choose(book, data, level)
        if chosen is not None:
            forms[level] = chosen
    direct, _ = readings.fit_direct(book, data, forms)
    unseen = _leave_models_out(data, structure, forms, book)
    out: dict[str, Any] = {}
    if "static" in tiers:
        out["static"] = {
            **static.tier,
            "interval": _interval(data, unseen, unseen.total_j if unseen else None, book, LEVELS[1:]),
            "ranges": _ranges(data, static.tier, book),
        }
    if "live" in tiers and "model" in direct:
        out["live"] = _live(data, unseen, direct, book)
    if "profile" in tiers and direct:
        out["profile"] = _profile(data, unseen, direct, book)
    first = next(iter(out))
    for name, tier in out.items():
        if name == "static":
            tier["columns"] = book.columns
        elif first == "static":
            tier["base"] = "static"
        else:
            tier.update({**static.tier, "ranges": _ranges(data, static.tier, book), "columns": book.columns})
    return _estimator(dataset, data, out, book)


def _leave_models_out(data: Sample, structure: Structure, forms: dict[str, Any], book: Book) -> Unseen | None:
    """Fit without each model in turn; None where there is one model alone."""
    trained = np.unique(data.model[data.labelled]).tolist()
    if len(trained) < 2:
        return None
    size = len(data.energy_j)
    out = Unseen(*(np.full(size, np.nan) for _ in range(4)))
    for model in trained:
        rest = data.without([model])
        local = Book(data.names)
        static = fit_static(rest, local, structure)
        _, reading = readings.fit_direct(book, rest, forms)
        rows = data.model == model
        for name in ("leaf_j", "factor", "total_j"):
            getattr(out, name)[rows] = getattr(static, name)[rows]
        out.reading_j[rows] = reading[rows]
    return out


def _interval(
    data: Sample, unseen: Unseen | None, predicted: np.ndarray | None, book: Book, judged: Sequence[str]
) -> dict[str, Any]:
    """An INTERVAL from what ``predicted`` says of models that it had not seen."""
    residual = np.full(len(data.energy_j), np.nan)
    if unseen is not None and predicted is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            residual = np.log(predicted / data.energy_j)
    rows = np.flatnonzero(data.labelled)
    level = np.array(LEVELS)[data.level[rows]]
    known, far = kinds.known(data, book)
    out = intervals.interval(residual[rows], data.count[rows], data.model[rows], level, far[rows], judged)
    if known is not None and judged:
        out["kinds"] = known
    return out


def _live(data: Sample, unseen: Unseen | None, direct: dict[str, Any], book: Book) -> dict[str, Any]:
    """Root by its reading, pooled with the tree's A; nodes below by their A times a power of root over A."""
    omega, gamma = 1.0, {"ml": 1.0, "module": 1.0}
    predicted = None
    if unseen is not None:
        roots = np.flatnonzero(data.root & data.labelled)
        a, d = unseen.total_j, np.where(unseen.reading_j > 0.0, unseen.reading_j, np.nan)
        omega = _best(
            readings.OMEGAS, lambda w: readings.error_of(data, a ** (1.0 - w) * d**w, roots), default=1.0
        )
        scale = _root_scale(data, a, a ** (1.0 - omega) * d**omega)
        predicted = np.where(data.root, a * scale, a)
        for level in gamma:
            rows = np.flatnonzero(data.at(level) & ~data.root & data.labelled)
            gamma[level] = _best(
                readings.GAMMAS, lambda g, r=rows: readings.error_of(data, a * scale**g, r), default=1.0
            )
            below = data.at(level) & ~data.root
            predicted[below] = (a * scale ** gamma[level])[below]
    return {
        "direct": {"model": {**direct["model"], "pool": round(float(omega), 4)}},
        "rescale": {level: round(float(value), 4) for level, value in gamma.items()},
        "interval": _interval(data, unseen, predicted, book, ("module",)),
    }


def _root_scale(data: Sample, a: np.ndarray, root: np.ndarray) -> np.ndarray:
    """P(root) / A(root) of the tree that a node stands in; NaN where it was not read."""
    scale = np.where(data.root, root / a, np.nan)
    for parent, child, _ in reversed(data.steps):
        scale[child] = np.where(np.isnan(scale[child]), scale[parent], scale[child])
    return scale


def _profile(data: Sample, unseen: Unseen | None, direct: dict[str, Any], book: Book) -> dict[str, Any]:
    """Every node by its own reading, pooled with what the tree says of it."""
    omega = {level: 1.0 for level in direct}
    predicted = None
    if unseen is not None:

        def result(level: str, w: float) -> np.ndarray:
            return readings.pooled(data, unseen.leaf_j, unseen.factor, unseen.reading_j, {**omega, level: w})

        for level in omega:
            rows = np.flatnonzero(data.at(level) & data.labelled)
            omega[level] = _best(
                readings.OMEGAS,
                lambda w, n=level, r=rows: readings.error_of(data, result(n, w), r),
                default=1.0,
            )
        predicted = readings.pooled(data, unseen.leaf_j, unseen.factor, unseen.reading_j, omega)
    return {
        "direct": {level: {**item, "pool": round(float(omega[level]), 4)} for level, item in direct.items()},
        "interval": _interval(data, unseen, predicted, book, ()),
    }


def _best(grid: np.ndarray, loss: Callable[[float], float], default: float) -> float:
    """The grid's value of least loss; ``default`` where another is not better by a per mille."""
    losses = [loss(float(value)) for value in grid]
    best = int(np.argmin(losses))
    return float(grid[best]) if losses[best] < 0.999 * loss(default) else default


def _ranges(data: Sample, tier: dict[str, Any], book: Book) -> dict[str, dict[str, list[float]]]:
    """Where every calibrated primitive, and the levels above, were measured."""
    out: dict[str, dict[str, list[float]]] = {}
    for primitive, leaf in sorted(tier["leaf"].items()):
        rows = data.leaf & (data.primitive == primitive) & (data.count > 0.0)
        used = features_of(leaf, book)
        out[primitive] = _limits(data, rows, [name for name in RANGED if name in used])
    for level in LEVELS[1:]:
        rows = data.at(level) & ~data.leaf & (data.count > 0.0)
        if rows.any():
            out[level] = _limits(data, rows, list(RANGED_ABOVE))
    return out


def _limits(data: Sample, rows: np.ndarray, names: list[str]) -> dict[str, list[float]]:
    out = {}
    for name in names:
        x = data.column(name)[rows]
        low = float(x.min()) if name in NEEDED else 0.0
        out[name] = [smooth.rounded(low), smooth.rounded(float(x.max()))]
    return out


def features_of(data: dict[str, Any], book: Book) -> set[str]:
    """The raw features that a LEAF's terms and correction, or a DIRECT, read."""
    todo = [c for term in data["terms"] for c in term["columns"]]
    if data.get("correction") is not None:
        todo += data["correction"]["columns"]
    found = set()
    while todo:
        column = book.columns[todo.pop()]
        if "of" in column:
            todo += column["of"]
        else:
            found.add(column["feature"])
    return found


def _estimator(dataset: Dataset, data: Sample, tiers: dict[str, Any], book: Book) -> dict[str, Any]:
    used = {c["feature"] for c in book.columns if "feature" in c} | {"batch_size", "seq_len"}
    for tier in tiers.values():
        used |= {name for limits in tier.get("ranges", {}).values() for name in limits}
    leaves_ = next(iter(tiers.values()))["leaf"]
    stand_in = {p: k for p in PRIMITIVES if p not in leaves_ and (k := kin(p, leaves_)) is not None}
    for tier in tiers.values():
        if "leaf" in tier:
            tier["stand_in"] = stand_in
    header = dataset.trees[0].tree.header
    return {
        "format": "irene-estimator", "version": 1, "hardware": dataset.hardware, "method": "best",
        "boundary": dataset.boundary, "provenance": dataset.provenance, "label_source": dataset.label_source,
        "cost_model": header["cost_model"], "attention": header["attention"],
        "created_by": _versions(), "fingerprint": dataset.info.get("fingerprint", {}),
        "features": [name for name in data.names if name in used],
        "primitives": [p for p in PRIMITIVES if p in leaves_ or p in stand_in],
        "trained_on": {
            "models": list(data.models), "trees": len(dataset.trees),
            "nodes": int(sum(np.isfinite(tree.energy_j).sum() for tree in dataset.trees)),
            "distinct": len({int(m) for tree in dataset.trees for m in tree.measurement if m >= 0}),
        },
        "tiers": tiers, "evaluation": {},
    }  # fmt: skip


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("irene-build", "numpy", "scipy")}
