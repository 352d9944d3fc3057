"""Training from whole-model labels alone (``import table``), and how far its nodes are from the truth.

Kernels share their cost per launch, byte and operation, and the roots' labels settle those, but not which kernel takes
how much of a root: several variants of the roofline (``aggregation.ROOFLINE_VARIANTS``) explain the roots as well
as each other. The estimate is their mean, and how far they are apart is all that tells how wrong a node may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from irene_build.dataset.splits import folds, with_trees
from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError
from irene_build.train import arithmetic, best, estimator_file, intervals
from irene_build.train.best import aggregation
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.sample import TrainingSet, sample
from irene_build.train.best.static import Structure, fit_static
from irene_build.train.law import pooled, whole
from irene_build.train.law.device import UNKNOWN, sheet_of
from irene_build.train.law.fit import fit as fit_law
from irene_build.train.law.fit import labels
from irene_build.train.law.nodes import with_law
from irene_build.train.unmeasured import conditions_of_law
from irene_runtime.features import FEATURES, PRIMITIVES
from irene_runtime.law import ENERGY
from irene_runtime.tree import LEVELS

TIERS = ("static", "live")
#: No label tells whether the readings hold the truth between them: intervals are so many times their spread.
APART = 2.0
#: Mean relative error on left-out models up to which the law is taken to hold.
HOLDS = 0.2
#: Method best is taken for whole models where its error on left-out models is below this share of the law's.
CLEARLY = 0.7


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


def roots_alone(dataset: Dataset) -> bool:
    """Whether whole models are labelled, and nothing else."""
    found = [np.isfinite(tree.energy_j) for tree in dataset.trees]
    return any(one[0] for one in found) and not any(one[1:].any() for one in found)


def fit(dataset: Dataset, tiers: Sequence[str] = TIERS, seed: int = 0) -> dict[str, Any]:
    """An estimator of tiers static and, where roots have readings, live, from the roots' labels.

    By the physical law (``train.law``). Where the device is not known, or leaving models out shows that the law
    does not hold, by method best if it errs clearly less on the models left out. Labels below the roots are not looked
    at, implausible runs are left out; ``trained_on`` says ``"labels": "model"``. Raises DatasetError where no root has
    a label, or none of ``tiers`` can be had.
    """
    wanted = [tier for tier in tiers if tier in TIERS]
    if not wanted:
        raise DatasetError(
            f"{dataset.hardware} has labels of whole models alone, which give the tiers {', '.join(TIERS)}; "
            "profile needs measurements of the nodes (irene-build calibrate)"
        )
    rooted = hide_nodes(plausible(dataset))
    rooted.trees = [tree for tree in rooted.trees if tree.energy_j[0] > 0.0]
    if not rooted.trees:
        raise DatasetError(f"the dataset of {dataset.hardware} has no tree with a whole-model label")
    sheet = sheet_of(rooted)
    data = labels(rooted.trees, pooled.prior_of(rooted, sheet))
    held = whole.leave_models_out(data, sheet)
    wrong = whole.error(data, held.best(data)[1]) if held.law else 0.0
    if (wrong > HOLDS or sheet.name == UNKNOWN.name) and _best_error(rooted) < CLEARLY * wrong:
        return _by_best(rooted, wanted, seed)
    law = fit_law(data, sheet)
    out = {name: tier for name, tier in (
        ("static", whole.static_tier(data, law, held, rooted.trees)),
        ("live", whole.live_tier(rooted, data, law, held) if "live" in wanted else None),
    ) if tier is not None}  # fmt: skip
    if wanted == ["live"]:
        if "live" not in out:
            raise DatasetError(
                f"the dataset of {dataset.hardware} has no latency: only tier static can be trained"
            )
        out = {"live": {**out["static"], **{k: v for k, v in out["live"].items() if k != "base"}}}
    return _estimator(rooted, out, law)


def fit_law_alone(dataset: Dataset) -> Callable[[Sequence[LabelledTree]], list[np.ndarray]]:
    """The law fitted to the roots of ``dataset``; what it gives says the joules of every node of trees."""
    rooted = hide_nodes(plausible(dataset))
    rooted.trees = [tree for tree in rooted.trees if tree.energy_j[0] > 0.0]
    if not rooted.trees:
        raise DatasetError(f"the dataset of {dataset.hardware} has no tree with a whole-model label")
    sheet = sheet_of(rooted)
    law = fit_law(labels(rooted.trees, pooled.prior_of(rooted, sheet)), sheet)

    def joules(trees: Sequence[LabelledTree]) -> list[np.ndarray]:
        seen = with_law(trees, law)
        return [
            np.array([node.features[ENERGY] for node in one.tree.nodes])[: len(tree.tree.nodes)]
            for tree, one in zip(trees, seen, strict=True)
        ]

    return joules


def _estimator(dataset: Dataset, tiers: dict[str, Any], law: dict[str, Any]) -> dict[str, Any]:
    head = estimator_file.header(dataset, "best", str(dataset.trees[0].tree.header["cost_model"]))
    head["trained_on"]["labels"] = "model"
    read = {c["feature"] for tier in tiers.values() for c in tier.get("columns", ()) if "feature" in c}
    read |= {"batch_size", "seq_len", "input_size"}
    return estimator_file.compact({
        **head, "law": law, "tiers": tiers,
        "unmeasured": conditions_of_law(dataset, float(law["device"]["memory_bytes"])),
        "features": [name for name in FEATURES if name in read], "primitives": list(PRIMITIVES),
    })  # fmt: skip


def plausible(dataset: Dataset) -> Dataset:
    """The dataset without the runs that failed (``info["implausible"]``: reason by the root's measurement)."""
    failed = dataset.info.get("implausible") or {}
    return with_trees(
        dataset, [tree for tree in dataset.trees if str(int(tree.measurement[0])) not in failed]
    )


def _best_error(rooted: Dataset) -> float:
    """Mean relative error of method best on models that it was not fitted to; infinite for one model."""
    off: list[float] = []
    for fold in folds(rooted, "model-out") if len(rooted.models) > 1 else ():
        estimator = best.fit(fold.train, tiers=("static",))
        said = arithmetic.predict(estimator, hide_nodes(with_trees(rooted, fold.test)).trees, "static")
        off += [abs(p.energy_j[0] / t.energy_j[0] - 1.0) for p, t in zip(said, fold.test, strict=True)]
    return float(np.mean(off)) if off else float("inf")


def _by_best(rooted: Dataset, wanted: Sequence[str], seed: int) -> dict[str, Any]:
    """Method best on root labels, its nodes as wide as its readings are apart."""
    out = best.fit(rooted, tiers=wanted, seed=seed)
    out["trained_on"]["labels"] = "model"
    widths = apart(rooted)
    for tier in out["tiers"].values():
        _widen(tier["interval"], widths)
    return out


def apart(rooted: Dataset) -> dict[str, float]:
    """How far the readings of the roofline are from their mean, and that mean from those without one of the models.

    By primitive, and for levels ml and module; log units: nine nodes in ten of that kind are within, whichever
    reading is taken and whichever model is left out.
    """
    data = sample(rooted)

    def total(some: TrainingSet, readings: Sequence[frozenset[str]]) -> np.ndarray:
        return fit_static(some, ColumnRegistry(some.names), Structure(readings=readings)).total_j

    others = [total(data, (reading,)) for reading in aggregation.ROOFLINE_VARIANTS]
    models = np.unique(data.model[data.labelled])
    if len(models) > 1:
        others += [
            total(data.without(data.model == model), aggregation.ROOFLINE_VARIANTS) for model in models
        ]
    middle, off = total(data, aggregation.ROOFLINE_VARIANTS), np.zeros(len(data.level))
    for one in others:
        some = (one > 0.0) & (middle > 0.0)
        off[some] = np.maximum(off[some], np.abs(np.log(one[some] / middle[some])))
    kinds = {level: data.at(level) for level in ("ml", "module")}
    kinds |= {name: data.leaf & (data.primitive == name) for name in np.unique(data.primitive[data.leaf])}
    return {
        str(name): intervals.quantile(off[rows], data.count[rows], intervals.COVERAGE)
        for name, rows in kinds.items()
        if rows.any()
    }


def _widen(interval: dict[str, Any], widths: dict[str, float]) -> None:
    """What is below a root is as unsure as the root, and by how far the readings are apart."""
    levels, root = interval["levels"], float(interval["levels"]["model"]["q"])
    q = {name: round(min(root + APART * width, intervals.HOPELESS), 5) for name, width in widths.items()}
    for level in ("ml", "module"):
        if level in q:
            levels[level] = {"q": q[level], "slope": intervals.SLOPE[level]}
    if "module" in q:
        levels["module"]["far"] = min(2.0 * q["module"], intervals.HOPELESS)
    slope = intervals.SLOPE["ml"]
    interval["primitives"] = {
        "fallback": {"q": max(intervals.UNKNOWN, levels["ml"]["q"]), "slope": slope},
        **{name: {"q": width, "slope": slope} for name, width in q.items() if name not in ("ml", "module")},
    }


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
                label, of = tree.energy_j[known], tree.measured_on[known]
                error = 100.0 * np.abs(p.energy_j[of] / label - 1.0)
                inside = (p.low_j[of] <= label) & (label <= p.high_j[of])
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
