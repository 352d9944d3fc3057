"""How wide the interval of every node of a forest is (FORMAT.md, INTERVAL): its width, distance and kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irene_build.train.forest import Forest
from irene_build.train.formulas import TINY, Columns, is_far
from irene_runtime.tree import LEVELS

WIDEST = 16.0


def kinds_of(forest: Forest) -> np.ndarray:
    """str[n]: what a node's ranges are found by, its primitive or, above the leaves, its level."""
    return np.where(forest.childless, forest.primitive, np.array(LEVELS)[forest.level])


def distance(
    ranges: Mapping[str, Any],
    stand_in: Mapping[str, str],
    names: Sequence[str],
    features: np.ndarray,
    kinds: np.ndarray,
) -> np.ndarray:
    """How far every row of features lies outside the calibrated ranges, in summed natural-log units."""
    total = np.zeros(len(features))
    where = {name: index for index, name in enumerate(names)}
    for kind in np.unique(kinds):
        chosen = ranges.get(str(kind))
        if chosen is None:
            chosen = ranges.get(stand_in.get(str(kind), ""), {})
        rows = np.flatnonzero(kinds == kind)
        for name, (low, high) in chosen.items():
            x = np.maximum(features[rows, where[name]], TINY)
            with np.errstate(invalid="ignore"):
                away = np.log(x / max(high, TINY)).clip(min=0.0) + np.log(max(low, TINY) / x).clip(min=0.0)
            total[rows] += np.where(np.isnan(away), 0.0, away)
    return total


def far_nodes(tier: Mapping[str, Any], forest: Forest, share: np.ndarray) -> np.ndarray:
    """Modules of unknown kinds, and the roots that consist of them. ``share``: alpha(c) P(c) of every node."""
    out = np.zeros(len(forest.parent), dtype=bool)
    data = tier["interval"].get("kinds")
    if data is None:
        return out
    rows = np.flatnonzero(forest.level == LEVELS.index("module"))
    if len(rows):
        out[rows] = is_far(data, Columns(tier["columns"], forest.names, forest.features[rows]))
    total, far = np.zeros(len(out)), np.zeros(len(out))
    below = np.flatnonzero(forest.parent >= 0)
    np.add.at(total, forest.parent[below], share[below])
    np.add.at(far, forest.parent[below], np.where(out, share, 0.0)[below])
    roots = forest.level == LEVELS.index("model")
    out[roots] = far[roots] > 0.5 * total[roots]
    return out


def half_widths(
    tier: Mapping[str, Any], forest: Forest, unknown: np.ndarray, away: np.ndarray, far: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Half-widths in log units, and what they are inside the ranges: float64[n] each."""
    interval = tier["interval"]
    out, near = np.empty(len(forest.parent)), np.empty(len(forest.parent))
    kinds = forest.primitive
    for level_index, level in enumerate(LEVELS):
        at_level = forest.level == level_index
        for kind in np.unique(kinds[at_level]):
            for uncalibrated in (False, True):
                rows = at_level & (kinds == kind) & (unknown == uncalibrated)
                name = "fallback" if uncalibrated else str(kind)
                entry = interval.get("primitives", {}).get(name, interval["levels"][level])
                q = np.where(far[rows], entry.get("far", entry["q"]), entry["q"])
                near[rows] = q
                out[rows] = np.minimum(q * (1.0 + entry.get("slope", 0.0) * away[rows]), WIDEST)
    return out, near
