"""Puts an estimator together: fit all, fit again without each model in turn, weigh by what that shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import estimator_file, unmeasured
from irene_build.train.best import (
    calibration_range,
    cross_validation,
    module_signature,
    telemetry,
)
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.sample import sample
from irene_build.train.best.static import Structure, fit_above, fit_leaves
from irene_build.train.best.tiers import interval, live, profile
from irene_runtime.features import PRIMITIVES
from irene_runtime.tree import LEVELS

TIERS = ("static", "live", "profile")


def fit(dataset: Dataset, tiers: Sequence[str] = TIERS, seed: int = 0) -> dict[str, Any]:
    """Train an estimator (FORMAT.md). Deterministic: nothing is drawn, ``seed`` is there for the interface.

    ``tiers``: which to fit; one that the dataset's features do not allow is left out. Raises DatasetError
    where the dataset has no label, or none of the tiers can be had.
    """
    del seed
    data = sample(dataset)
    if not data.labelled.any():
        raise DatasetError(f"the dataset of {dataset.hardware} has no labelled node to train on")
    book = ColumnRegistry(data.names)
    left, structure = cross_validation.gone(data), Structure()
    below = fit_leaves(data, book, structure)
    parts = cross_validation.parts(data, structure, left)
    static = fit_above(data, book, structure, below)
    forms = {}
    for level in LEVELS if set(tiers) - {"static"} else ():
        chosen = telemetry.choose(book, data, level)
        if chosen is not None:
            forms[level] = chosen
    direct, _ = telemetry.fit_direct(book, data, forms)
    held_out = cross_validation.leave_out(data, structure, forms, book, parts)
    larger_sizes = cross_validation.leave_sizes_out(data, structure, forms, book)
    known = module_signature.known(data, book)
    out: dict[str, dict[str, Any]] = {}
    if "static" in tiers:
        found = interval(data, held_out, larger_sizes, lambda seen: seen.total_j, LEVELS[1:], known)
        out["static"] = {**static.tier, "interval": found}
    if "live" in tiers and "model" in direct:
        out["live"] = live(data, held_out, larger_sizes, direct, known)
    if "profile" in tiers and ("ml" in direct or "module" in direct):
        out["profile"] = profile(data, held_out, larger_sizes, direct)
    if not out:
        raise DatasetError(
            f"the dataset of {dataset.hardware} has no latency or gpu_energy: only tier static can be trained"
        )
    shared = {
        **static.tier,
        "columns": book.columns,
        "ranges": calibration_range.ranges(data, static.tier, book),
        "stand_in": calibration_range.stand_ins(static.tier),
    }
    for name, tier in out.items():
        if name == "static" or "static" not in out:
            tier.update({**shared, **tier})
        else:
            tier["base"] = "static"
    used = {c["feature"] for c in book.columns if "feature" in c} | {"batch_size", "seq_len"}
    used |= {name for ends in shared["ranges"].values() for name in ends}
    return estimator_file.compact({
        **estimator_file.header(dataset, "best", str(dataset.trees[0].tree.header["cost_model"])),
        "unmeasured": unmeasured.conditions(dataset),
        "features": [name for name in data.names if name in used],
        "primitives": [p for p in PRIMITIVES if p in shared["leaf"] or p in shared["stand_in"]],
        "tiers": out,
    })  # fmt: skip
