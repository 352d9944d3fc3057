"""Where a tier was calibrated: ranges of what its formulas read, and stand-ins for what was not measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from irene_build.train import widths
from irene_build.train.best import gaussian_process
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.roofline import kin
from irene_build.train.best.sample import TrainingSet
from irene_runtime.features import PRIMITIVES
from irene_runtime.tree import LEVELS

#: Features whose range is remembered: outside of it a prediction extrapolates.
RANGED = ("elements", "matmul_flops", "mem_bytes", "gemm_m", "gemm_n", "gemm_k", "rows", "cols")
#: Of every primitive, also where its terms read parts of it alone.
ALWAYS = "mem_bytes"
RANGED_ABOVE = ("flops", "mem_bytes", "num_parameters")
#: Everywhere: more tokens than were ever measured make new combinations of sizes that were.
TOKENS = "input_size"
#: Features that a leaf cannot be without (a tree that lacks them is refused).
NEEDED = ("gemm_m", "gemm_n", "gemm_k", "rows", "cols")


def ranges(
    data: TrainingSet, tier: dict[str, Any], book: ColumnRegistry
) -> dict[str, dict[str, list[float]]]:
    """Where every calibrated primitive, and the levels above, were measured."""
    out: dict[str, dict[str, list[float]]] = {}
    for primitive, leaf in sorted(tier["leaf"].items()):
        rows = data.leaf & (data.primitive == primitive) & (data.count > 0.0)
        used = features_of(leaf, book)
        out[primitive] = _limits(
            data, rows, [*(name for name in RANGED if name in used or name == ALWAYS), TOKENS]
        )
    for level in LEVELS[1:]:
        rows = data.at(level) & ~data.leaf & (data.count > 0.0)
        if rows.any():
            out[level] = _limits(data, rows, [*RANGED_ABOVE, TOKENS], needed=level == "model")
    return out


def _limits(
    data: TrainingSet, rows: np.ndarray, names: list[str], needed: bool = False
) -> dict[str, list[float]]:
    out = {}
    for name in names:
        x = data.column(name)[rows]
        low = float(x.min()) if needed or name in NEEDED else 0.0
        out[name] = [gaussian_process.rounded(low), gaussian_process.rounded(float(x.max()))]
    return out


def features_of(data: dict[str, Any], book: ColumnRegistry) -> set[str]:
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


def stand_ins(tier: dict[str, Any]) -> dict[str, str]:
    """Primitives that were not calibrated, and the calibrated ones that are nearest to them."""
    nearest = {p: kin(p, tier["leaf"]) for p in PRIMITIVES if p not in tier["leaf"]}
    return {p: other for p, other in nearest.items() if other is not None}


def range_distance(data: TrainingSet, tier: dict[str, Any], book: ColumnRegistry) -> np.ndarray:
    """How far every node of the sample lies outside the ranges of a fit (``data`` has its weights)."""
    return widths.distance(ranges(data, tier, book), stand_ins(tier), data.names, data.features, data.kind)
