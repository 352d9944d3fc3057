"""The paper's method as an estimator: tier profile with all of Table 1, tier static with the model features.

A live tier does not exist in the paper: its alphas want the resource features of every node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irene_build.dataset.splits import with_trees
from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError
from irene_build.train import api, paper
from irene_build.train.forest import Forest, flatten
from irene_runtime.tree import LEVELS

COVERAGE = 0.9
WIDEST = 16.0
#: Fits of the cross-validation behind the intervals; each leaves out a third of the models.
FOLDS = 3
FOLD_STEPS = 50
#: Outside the calibrated range an interval grows by its own width for each factor of e.
SLOPE = 1.0
#: A count that is traced may differ from the imported one in its last bits.
_LAST_BITS = 1e-9


def fit(
    dataset: Dataset,
    recipe: str = "converged",
    tiers: Sequence[str] = api.TIERS,
    seed: int = 0,
    counts: str = "irene2021",
) -> dict[str, Any]:
    """The estimator of method paper (FORMAT.md); ``counts`` as in ``paper.train_view``.

    Raises DatasetError where no tier can be had.
    """
    seen, cost_model = paper.train_view(dataset, counts)
    out = api.header(dataset, "paper", cost_model)
    made = {}
    for tier, names in (("static", paper.MODEL_INPUTS), ("profile", paper.INPUTS)):
        if tier not in tiers:
            continue
        if tier == "profile" and not set(paper.usable(seen, names)) - set(paper.MODEL_INPUTS):
            continue
        model = paper.fit(seen, names, recipe=recipe, seed=seed)
        made[tier] = _tier(model, seen, _half_widths(seen, names))
    if not made:
        raise DatasetError(
            f"method paper has no tier {' or '.join(tiers)} on {dataset.hardware!r}: it has static, and "
            "profile where the nodes have resource features"
        )
    used = {column["feature"] for tier in made.values() for column in tier["columns"]}
    out["features"] = [name for name in paper.INPUTS if name in used]
    out["primitives"] = sorted({name for tier in made.values() for name in tier["leaf"]})
    out["tiers"] = made
    return api.compact(out)


def _tier(model: paper.PaperModel, dataset: Dataset, half_widths: dict[str, float]) -> dict[str, Any]:
    forest = flatten(dataset.trees, model.names)
    tier: dict[str, Any] = {
        "columns": [{"feature": name, "map": "identity"} for name in model.names],
        "leaf": {primitive: _leaf(leaf, model.names) for primitive, leaf in sorted(model.leaves.items())},
        "fallback": _leaf(model.fallback, model.names),
        "aggregation": None,
        "direct": {},
        "rescale": {},
        "interval": {
            "levels": {level: {"q": q, "slope": SLOPE} for level, q in half_widths.items()},
            "primitives": {},
        },
        "ranges": _ranges(forest),
    }
    if model.aggregation is not None:
        tier["aggregation"] = {
            "columns": list(range(len(model.names))),
            "mean": model.aggregation.mean.tolist(),
            "scale": model.aggregation.scale.tolist(),
            "degree": paper.DEGREE,
            "weights": model.aggregation.weight.tolist(),
            "bias": model.aggregation.bias,
            "tau": paper.TAU,
        }
    return tier


def _leaf(leaf: paper.LinearLeaf, names: Sequence[str]) -> dict[str, Any]:
    parts = zip(names, leaf.weight.tolist(), leaf.mean.tolist(), leaf.scale.tolist(), strict=True)
    terms = [{"name": "bias", "columns": [], "weight": leaf.bias, "mean": 0.0, "scale": 1.0}]
    terms += [
        {"name": name, "columns": [index], "weight": weight, "mean": mean, "scale": scale}
        for index, (name, weight, mean, scale) in enumerate(parts)
    ]
    return {"terms": terms, "floor": None, "correction": None}


def _ranges(forest: Forest) -> dict[str, dict[str, list[float]]]:
    """What was calibrated: least and greatest of each feature, per primitive and per inner level."""
    labelled = ~np.isnan(forest.energy_j)
    groups = {
        str(name): labelled & forest.leaf & (forest.primitive == name)
        for name in np.unique(forest.primitive[labelled & forest.leaf])
    }
    groups |= {
        level: labelled & (forest.level == LEVELS.index(level)) & ~forest.leaf
        for level in ("module", "model")
    }
    return {
        group: {
            name: [float(column.min()) * (1.0 - _LAST_BITS), float(column.max()) * (1.0 + _LAST_BITS)]
            for name, column in zip(forest.names, forest.features[rows].T, strict=True)
        }
        for group, rows in groups.items()
        if rows.any()
    }


def _half_widths(dataset: Dataset, names: Sequence[str]) -> dict[str, float]:
    """Conformal half-widths per level in log units: residuals on models that a fit did not see.

    With one model, on trees that it did not see.
    """
    misses: dict[str, list[np.ndarray]] = {level: [] for level in LEVELS}
    for train, test in _folds(dataset):
        model = paper.fit(with_trees(dataset, train), names, steps=FOLD_STEPS)
        for tree, energy in zip(test, model.predict(test), strict=True):
            levels = np.array([node.level for node in tree.tree.nodes])
            positive = np.where(energy > 0.0, energy, np.exp(-WIDEST) * tree.energy_j)
            miss = np.abs(np.log(tree.energy_j / positive))
            for level in LEVELS:
                misses[level].append(miss[(levels == level) & np.isfinite(miss)])
    out = {}
    for level, parts in misses.items():
        values = np.sort(np.concatenate(parts)) if parts else np.empty(0)
        rank = int(np.ceil((len(values) + 1) * COVERAGE))
        # Too few residuals for the level asked for: the widest interval, never a narrow guess.
        out[level] = float(min(values[rank - 1], WIDEST)) if 0 < rank <= len(values) else WIDEST
    return out


def _folds(dataset: Dataset) -> list[tuple[list[LabelledTree], list[LabelledTree]]]:
    models = dataset.models
    if len(models) > 1:
        fold = {model: number % min(FOLDS, len(models)) for number, model in enumerate(models)}
        number = [fold[tree.model] for tree in dataset.trees]
    else:
        number = [index % 2 for index in range(len(dataset.trees))]
    parts = [
        ([t for t, n in zip(dataset.trees, number, strict=True) if n != out],
         [t for t, n in zip(dataset.trees, number, strict=True) if n == out])
        for out in sorted(set(number))
    ]  # fmt: skip
    return [(train, test) for train, test in parts if train and test]
