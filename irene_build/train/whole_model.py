"""Training from whole-model labels alone (``import table``), and how far its nodes are from the truth.

The best method needs no special case: kernels share their cost per launch, byte and operation, and the roots'
labels settle those. Levels without a label get the interval of what was never measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError
from irene_build.train import arithmetic, best
from irene_runtime.tree import LEVELS

TIERS = ("static", "live")


def hide_nodes(dataset: Dataset) -> Dataset:
    """The same trees with labels and readings at the roots alone."""
    return replace(dataset, trees=[_root_only(tree) for tree in dataset.trees])


def _root_only(tree: LabelledTree) -> LabelledTree:
    below = np.arange(len(tree.energy_j)) > 0
    return LabelledTree(
        tree.tree,
        np.where(below, np.nan, tree.energy_j),
        np.where(below[:, None], np.nan, tree.resources),
        np.where(below, -1, tree.measurement),
        np.where(below, np.nan, tree.energy_std_j),
    )


def fit(dataset: Dataset, seed: int = 0) -> dict[str, Any]:
    """An estimator of tiers static and, where roots have readings, live, from the roots' labels.

    Labels below the roots are not looked at. Raises DatasetError where no root has a label.
    """
    rooted = hide_nodes(dataset)
    if not any(np.isfinite(tree.energy_j[0]) for tree in rooted.trees):
        raise DatasetError(f"the dataset of {dataset.hardware} has no tree with a whole-model label")
    return best.fit(rooted, tiers=TIERS, seed=seed)


def evaluate(dataset: Dataset) -> dict[str, dict[str, dict[str, float]]]:
    """Leave-one-model-out with every node label hidden: {tier: {level: {"mape", "p50", "coverage90", "n"}}}.

    Errors in percent, copies counted; nodes below the roots are compared with their hidden labels. Raises
    DatasetError where there is one model alone.
    """
    if len(dataset.models) < 2:
        raise DatasetError(f"leaving a model out needs two models, {dataset.hardware} has one")
    found: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for model in dataset.models:
        estimator = fit(dataset.subset([other for other in dataset.models if other != model]))
        held_out = dataset.subset([model])
        asked = hide_nodes(held_out).trees
        for tier in estimator["tiers"]:
            for tree, p in zip(held_out.trees, arithmetic.predict(estimator, asked, tier), strict=True):
                known = np.isfinite(tree.energy_j)
                label = tree.energy_j[known]
                error = 100.0 * np.abs(p.energy_j[known] / label - 1.0)
                inside = (p.low_j[known] <= label) & (label <= p.high_j[known])
                level = np.array([LEVELS.index(node.level) for node in tree.tree.nodes])[known]
                found.setdefault(tier, []).append((level, error, inside))
    return {tier: _levels(*map(np.concatenate, zip(*parts, strict=True))) for tier, parts in found.items()}


def _levels(level: np.ndarray, error: np.ndarray, inside: np.ndarray) -> dict[str, dict[str, float]]:
    out = {}
    for index, name in enumerate(LEVELS):
        rows = level == index
        if rows.any():
            out[name] = {
                "mape": float(error[rows].mean()),
                "p50": float(np.median(error[rows])),
                "coverage90": float(100.0 * inside[rows].mean()),
                "n": int(rows.sum()),
            }
    return out
