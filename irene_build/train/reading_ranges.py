"""Where DIRECT was calibrated: ranges of what its terms read, and of the watts that they imply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset
from irene_build.train.formulas import Columns
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import LEVELS


def with_ranges(estimator: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The estimator, whose readings know where they were calibrated; a reading outside is flagged and wider.

    A column that a term reads alone has a range; so has GPU energy over latency, where terms read both.
    """
    levels = np.concatenate([[LEVELS.index(node.level) for node in t.tree.nodes] for t in dataset.trees])
    resources = np.concatenate([tree.resources for tree in dataset.trees])
    tiers = estimator["tiers"]
    for tier in tiers.values():
        columns = tier.get("columns") or tiers[tier["base"]]["columns"]
        for level, direct in (tier.get("direct") or {}).items():
            own = {t["columns"][0] for t in direct["terms"] if len(t["columns"]) == 1}
            chosen = [*sorted(own), *_watts(columns, own)]
            rows = resources[levels == LEVELS.index(level)]
            direct["within"] = _within(columns, chosen, rows)
    return estimator


def _watts(columns: list[dict[str, Any]], own: set[int]) -> list[int]:
    """The column of GPU energy over latency (made where it is not there), where both are read."""
    plain = {columns[i].get("feature"): i for i in own if columns[i].get("map", "identity") == "identity"}
    if not {"gpu_energy", "latency"} <= plain.keys():
        return []
    per_second = _column(columns, {"feature": "latency", "map": "inverse"})
    return [_column(columns, {"of": [plain["gpu_energy"], per_second]})]


def _column(columns: list[dict[str, Any]], wanted: dict[str, Any]) -> int:
    if wanted not in columns:
        columns.append(wanted)
    return columns.index(wanted)


def _within(columns: list[dict[str, Any]], chosen: list[int], rows: np.ndarray) -> list[list[float]]:
    made, out = Columns(columns, RESOURCE_FEATURES, rows), []
    for index in chosen:
        if _reads_resources(columns, columns[index]):
            x = made[index]
            x = x[np.isfinite(x)]
            if len(x):
                out.append(
                    [index, float(f"{x.min() * (1 - 1e-6):.6g}"), float(f"{x.max() * (1 + 1e-5):.6g}")]
                )
    return out


def _reads_resources(columns: list[dict[str, Any]], column: Mapping[str, Any]) -> bool:
    if "of" in column:
        return all(_reads_resources(columns, columns[i]) for i in column["of"])
    return column["feature"] in RESOURCE_FEATURES
