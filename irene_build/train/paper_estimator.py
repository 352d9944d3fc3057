"""The paper's method as an estimator: tier profile with all of Table 1, tier static with the model features.

A live tier does not exist in the paper: its alphas want the resource features of every node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import estimator_file, paper
from irene_build.train.paper_intervals import interval, kind_columns
from irene_build.train.paper_nodes import DEGREE, TAU, Nodes, gather
from irene_runtime.tree import LEVELS

#: A count that is traced may differ from the imported one in its last bits.
_LAST_BITS = 1e-9


def fit(
    dataset: Dataset,
    recipe: str = "converged",
    tiers: Sequence[str] = estimator_file.TIERS,
    seed: int = 0,
    counts: str | None = "irene2021",
) -> dict[str, Any]:
    """The estimator of method paper (FORMAT.md); ``counts`` as in ``paper.train_view``, None: it is such a view.

    Raises DatasetError where no tier can be had.
    """
    paper.check_names(recipe)
    seen, cost_model = paper.train_view(dataset, counts) if counts else (dataset, _cost_model(dataset))
    out = estimator_file.header(dataset, "paper", cost_model)
    every = gather(seen.trees, paper.INPUTS)
    known = paper.usable(seen, every)
    made = {}
    for tier, names in (("static", paper.MODEL_INPUTS), ("profile", paper.INPUTS)):
        if tier not in tiers or (tier == "profile" and not set(known) - set(paper.MODEL_INPUTS)):
            continue
        nodes = every.columns([name for name in known if name in names])
        by_model = paper.leave_out(nodes, nodes.model)
        by_family = paper.leave_out(nodes, nodes.family, known=by_model)
        steps = paper.best_steps(nodes, by_model)
        if recipe == "authors":
            model = paper.fit_authors(seen.trees, nodes, "end2end", seed)
        else:
            model = paper.fit_nodes(nodes, steps)[0]
        made[tier] = _tier(model, nodes, interval(nodes, by_model, by_family, steps // paper.EVERY - 1))
    if not made:
        raise DatasetError(
            f"method paper has no tier {' or '.join(tiers)} on {dataset.hardware!r}: it has static, and "
            "profile where the nodes have resource features"
        )
    used = {c["feature"] for tier in made.values() for c in tier["columns"] if "feature" in c}
    out["features"] = [name for name in paper.INPUTS if name in used]
    out["primitives"] = sorted({name for tier in made.values() for name in tier["leaf"]})
    out["tiers"] = made
    return estimator_file.compact(out)


def _cost_model(dataset: Dataset) -> str:
    return str(dataset.trees[0].tree.header["cost_model"])


def _tier(model: paper.PaperModel, nodes: Nodes, widths: dict[str, Any]) -> dict[str, Any]:
    tier: dict[str, Any] = {
        "columns": [{"feature": name, "map": "identity"} for name in model.names]
        + kind_columns(model.names)[0],
        "leaf": {primitive: _leaf(leaf, model.names) for primitive, leaf in sorted(model.leaves.items())},
        "fallback": _leaf(model.fallback, model.names),
        "aggregation": None,
        "direct": {},
        "rescale": {},
        "interval": widths,
        "ranges": _ranges(nodes),
    }
    if model.aggregation is not None:
        tier["aggregation"] = {
            "columns": list(range(len(model.names))),
            "mean": model.aggregation.mean.tolist(),
            "scale": model.aggregation.scale.tolist(),
            "degree": DEGREE,
            "weights": model.aggregation.weight.tolist(),
            "bias": model.aggregation.bias,
            "tau": TAU,
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


def _ranges(nodes: Nodes) -> dict[str, dict[str, list[float]]]:
    """What was calibrated: least and greatest of each feature, per primitive and per inner level."""
    groups = {
        str(name): nodes.labelled & nodes.leaf & (nodes.primitive == name)
        for name in np.unique(nodes.primitive[nodes.labelled & nodes.leaf])
    }
    groups |= {
        level: nodes.labelled & (nodes.level == LEVELS.index(level)) & ~nodes.leaf
        for level in ("module", "model")
    }
    return {
        group: {
            name: [float(column.min()) * (1.0 - _LAST_BITS), float(column.max()) * (1.0 + _LAST_BITS)]
            for name, column in zip(nodes.names, nodes.features[rows].T, strict=True)
        }
        for group, rows in groups.items()
        if rows.any()
    }
