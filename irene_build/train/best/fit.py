"""Puts an estimator together: fit all, fit again without each model in turn, weigh by what that shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import api
from irene_build.train.best import kinds, readings, smooth
from irene_build.train.best.columns import Book
from irene_build.train.best.sample import Sample, sample
from irene_build.train.best.static import Structure, fit_static, kin
from irene_build.train.best.tiers import Unseen, interval, live, profile
from irene_runtime.features import PRIMITIVES
from irene_runtime.tree import LEVELS

TIERS = ("static", "live", "profile")
#: Features whose range is remembered: outside of it a prediction extrapolates.
RANGED = ("elements", "matmul_flops", "mem_bytes", "gemm_m", "gemm_n", "gemm_k", "rows", "cols")
RANGED_ABOVE = ("flops", "mem_bytes", "num_parameters")
#: Features that a leaf cannot be without (a tree that lacks them is refused).
NEEDED = ("gemm_m", "gemm_n", "gemm_k", "rows", "cols")


def fit(dataset: Dataset, tiers: Sequence[str] = TIERS, seed: int = 0) -> dict[str, Any]:
    """Train an estimator (FORMAT.md). Deterministic: nothing is drawn, ``seed`` is there for the interface.

    ``tiers``: which to fit; one that the dataset's features do not allow is left out. Raises DatasetError
    where the dataset has no label, or none of the tiers can be had.
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
    unseen = leave_models_out(data, structure, forms, book)
    known, far = kinds.known(data, book)
    out: dict[str, dict[str, Any]] = {}
    if "static" in tiers:
        found = interval(data, None if unseen is None else unseen.total_j, far, LEVELS[1:], known)
        out["static"] = {**static.tier, "interval": found}
    if "live" in tiers and "model" in direct:
        out["live"] = live(data, unseen, direct, far, known)
    if "profile" in tiers and ("ml" in direct or "module" in direct):
        out["profile"] = profile(data, unseen, direct, far)
    if not out:
        raise DatasetError(
            f"the dataset of {dataset.hardware} has no latency or gpu_energy: only tier static can be trained"
        )
    shared = {
        **static.tier,
        "columns": book.columns,
        "ranges": ranges(data, static.tier, book),
        "stand_in": _stand_in(static.tier),
    }
    for name, tier in out.items():
        if name == "static" or "static" not in out:
            tier.update({**shared, **tier})
        else:
            tier["base"] = "static"
    used = {c["feature"] for c in book.columns if "feature" in c} | {"batch_size", "seq_len"}
    used |= {name for limits in shared["ranges"].values() for name in limits}
    return api.compact({
        **api.header(dataset, "best", str(dataset.trees[0].tree.header["cost_model"])),
        "features": [name for name in data.names if name in used],
        "primitives": [p for p in PRIMITIVES if p in shared["leaf"] or p in shared["stand_in"]],
        "tiers": out,
    })  # fmt: skip


def leave_models_out(data: Sample, structure: Structure, forms: dict[str, Any], book: Book) -> Unseen | None:
    """What fits without a node's model say of it; None where there is one model alone."""
    trained = np.unique(data.model[data.labelled]).tolist()
    if len(trained) < 2:
        return None
    size = len(data.energy_j)
    out = Unseen(*(np.full(size, np.nan) for _ in range(4)))
    for model in trained:
        rest = data.without([model])
        static = fit_static(rest, Book(data.names), structure)
        _, reading = readings.fit_direct(book, rest, forms)
        rows = data.model == model
        for name in ("leaf_j", "factor", "total_j"):
            getattr(out, name)[rows] = getattr(static, name)[rows]
        out.reading_j[rows] = reading[rows]
    return out


def _stand_in(tier: dict[str, Any]) -> dict[str, str]:
    """Primitives that were not calibrated, and the calibrated ones that are nearest to them."""
    nearest = {p: kin(p, tier["leaf"]) for p in PRIMITIVES if p not in tier["leaf"]}
    return {p: other for p, other in nearest.items() if other is not None}


def ranges(data: Sample, tier: dict[str, Any], book: Book) -> dict[str, dict[str, list[float]]]:
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
