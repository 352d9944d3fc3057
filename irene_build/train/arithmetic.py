"""The trainer's own arithmetic: FORMAT.md's formulas over a whole forest, level by level, in numpy.

The runtime evaluates one tree at a time with the standard library, ONNX one graph; this is the third engine,
the one that training and evaluation use, and the one that the other two are checked against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.dataset.table import LabelledTree
from irene_build.errors import EstimatorError, TreeError
from irene_build.train import widths
from irene_build.train.forest import Forest, flatten
from irene_build.train.formulas import TINY, Columns, alphas, bent, correction, leaf, linear
from irene_build.train.law.nodes import with_law
from irene_runtime.equations import NOTABLE
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import LEVELS, ModelTree

EXTRAPOLATES, UNCALIBRATED, FELL_BACK, SIMULATED = 1, 2, 4, 8
LOWER = {"profile": ("profile", "live", "static"), "live": ("live", "static"), "static": ("static",)}


@dataclass
class Predicted:
    """One tree's prediction, arrays aligned with its nodes.

    ``energy_j``, ``low_j``, ``high_j``: float64[n], joules and the 90 % interval. ``leaf_j``: float64[n],
    what the leaf's own regressor gives, NaN above the leaves. ``alpha``: float64[n], 1 at the root. ``flags``
    int64[n], the bits of FORMAT.md. ``tier``: the tier that was used.
    """

    energy_j: np.ndarray
    low_j: np.ndarray
    high_j: np.ndarray
    flags: np.ndarray
    leaf_j: np.ndarray
    alpha: np.ndarray
    tier: str


def labelled(tree: ModelTree) -> LabelledTree:
    """A tree without labels: resource features are the nodes' own, NaN where they lack them."""
    nodes = tree.nodes
    resources = [[node.features.get(name, math.nan) for name in RESOURCE_FEATURES] for node in nodes]
    return LabelledTree(
        tree, np.full(len(nodes), np.nan), np.array(resources, dtype=np.float64).reshape(len(nodes), -1),
        np.full(len(nodes), -1, dtype=np.int64), np.full(len(nodes), np.nan),
    )  # fmt: skip


def tier_of(estimator: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The tier with what it takes from its ``base``. Raises EstimatorError where there is no such tier."""
    tiers = estimator["tiers"]
    if name not in tiers:
        raise EstimatorError(f"this estimator has no tier {name!r}, it has {', '.join(tiers)}")
    tier = tiers[name]
    return {**tiers[tier["base"]], **tier} if "base" in tier else dict(tier)


def names_of(estimator: Mapping[str, Any]) -> tuple[str, ...]:
    """The raw features that an estimator reads, in its order."""
    return tuple(estimator["features"])


def _leaves(tier: Mapping[str, Any], forest: Forest, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joules of the leaves (NaN elsewhere), and which of them have a primitive that was never calibrated.

    ``away``: float64[n], how far outside the calibrated ranges every node lies.
    """
    out = np.full(len(forest.parent), np.nan)
    unknown = np.zeros(len(forest.parent), dtype=bool)
    bare = forest.childless
    for primitive in np.unique(forest.primitive[bare]):
        rows = np.flatnonzero(bare & (forest.primitive == primitive))
        whose = str(primitive)
        if whose not in tier["leaf"]:
            unknown[rows] = True
            whose = tier.get("stand_in", {}).get(whose, "")
        data = tier["leaf"].get(whose, tier["fallback"])
        columns = Columns(tier["columns"], forest.names, forest.features[rows])
        out[rows] = bent(tier, whose, leaf(data, columns), leaf(tier["fallback"], columns), away[rows])
    return out, unknown


def _reading(tier: Mapping[str, Any], forest: Forest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """D(n), NaN where it does not apply; its weight in the pool; which levels have one."""
    size = len(forest.parent)
    reading, pool, has = np.full(size, np.nan), np.zeros(size), np.zeros(size, dtype=bool)
    for level, data in tier.get("direct", {}).items():
        rows = np.flatnonzero(forest.level == LEVELS.index(level))
        has[rows] = True
        pool[rows] = data["pool"]
        columns = Columns(tier["columns"], forest.names, forest.features[rows])
        reading[rows] = linear(data["terms"], data.get("floor"), columns)
    return reading, pool, has


def _factors(tier: Mapping[str, Any], forest: Forest) -> np.ndarray:
    """The correction of every inner node; 1 at leaves and at levels without one."""
    factor = np.ones(len(forest.parent))
    for level, data in tier.get("correction", {}).items():
        rows = np.flatnonzero((forest.level == LEVELS.index(level)) & ~forest.childless)
        factor[rows] = correction(data, Columns(tier["columns"], forest.names, forest.features[rows]))
    return factor


def _add_up(
    forest: Forest,
    own: np.ndarray,
    alpha: np.ndarray,
    factor: np.ndarray,
    reading: np.ndarray,
    pool: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """A(n) and P(n), from the deepest nodes to the roots; children are added in their order."""
    a = np.where(forest.childless, own, 0.0)
    p = np.empty(len(a))
    reads = ~np.isnan(reading)
    for depth in range(int(forest.depth.max(initial=0)), -1, -1):
        rows = np.flatnonzero(forest.depth == depth)
        a[rows] = a[rows] * factor[rows]
        p[rows] = a[rows]
        read = rows[reads[rows]]
        p[read] = reading[read]
        both = read[(a[read] > 0.0) & (reading[read] > 0.0)]
        p[both] = a[both] ** (1.0 - pool[both]) * reading[both] ** pool[both]
        below = rows[forest.parent[rows] >= 0]
        np.add.at(a, forest.parent[below], alpha[below] * p[below])
    return a, p


def _refuse(tier: Mapping[str, Any], forest: Forest, trees: Sequence[LabelledTree]) -> None:
    """Raise TreeError where a model feature is 0 that never was where the primitive was calibrated."""
    where = {name: index for index, name in enumerate(forest.names)}
    kinds = widths.kinds_of(forest)
    for kind, ranges in tier.get("ranges", {}).items():
        rows = np.flatnonzero(kinds == kind)
        for name, (low, _) in ranges.items():
            if name in RESOURCE_FEATURES or low <= 0.0:
                continue
            wrong = rows[~(forest.features[rows, where[name]] > 0.0)]
            if len(wrong):
                tree = int(forest.tree[wrong[0]])
                node = trees[tree].tree.nodes[int(wrong[0] - forest.starts[tree])]
                raise TreeError(
                    f"{node.name[:80]} lacks the feature {name}, which this estimator needs for {kind}"
                )


def _can(tier: Mapping[str, Any], name: str, forest: Forest, own: np.ndarray, alpha: np.ndarray,
         reading: np.ndarray) -> np.ndarray:  # fmt: skip
    """bool[trees]: which trees know enough for this tier."""
    trees = len(forest.starts) - 1
    lacks = (forest.childless & np.isnan(own)) | ((forest.parent >= 0) & np.isnan(alpha))
    able = np.bincount(forest.tree[lacks], minlength=trees) == 0
    if tier.get("direct") and name != "static":
        counted = ~np.isnan(reading) & ((forest.depth == 0) | (name == "profile"))
        able &= np.bincount(forest.tree[counted], minlength=trees) > 0
    return able


def _evaluate(
    estimator: Mapping[str, Any], trees: Sequence[LabelledTree], name: str
) -> list[Predicted | None]:
    """Predictions of one tier; None for trees that lack what it needs."""
    tier = tier_of(estimator, name)
    forest = flatten(trees, names_of(estimator))
    _refuse(tier, forest, trees)
    away = widths.distance(
        tier.get("ranges", {}), tier.get("stand_in", {}), forest.names, forest.features,
        widths.kinds_of(forest),
    )  # fmt: skip
    own, unknown = _leaves(tier, forest, away)
    root = forest.parent < 0
    alpha = alphas(tier.get("aggregation"), Columns(tier["columns"], forest.names, forest.features))
    alpha[root] = 1.0
    reading, pool, has = _reading(tier, forest)
    able = _can(tier, name, forest, own, alpha, reading)
    with np.errstate(invalid="ignore"):
        factor = _factors(tier, forest)
        a, p = _add_up(forest, own, alpha, factor, reading, pool)
        far = widths.far_nodes(tier, forest, alpha * p)
        if tier.get("rescale"):
            p = _rescaled(tier["rescale"], forest, a, p, ~np.isnan(reading))
    beyond = _beyond(tier, forest, ~np.isnan(reading))
    half, near = widths.half_widths(tier, forest, unknown, away, far)
    q = np.minimum(half + beyond, widths.WIDEST)
    silent = has & np.isnan(reading)
    if silent.any() and "static" in estimator["tiers"]:
        static = tier_of(estimator, "static")
        far = widths.far_nodes(static, forest, alpha * p)
        q = np.where(silent, widths.half_widths(static, forest, unknown, away, far)[0], q)
    unsure = np.zeros(len(own))
    if tier["interval"].get("inherits") and not set(tier.get("direct", ())) - {"model"}:
        doubt = own * np.expm1(np.where(unknown, half, half - near))
        total, _ = _add_up(forest, doubt, alpha, factor, np.full(len(own), np.nan), pool)
        above = ~forest.childless & np.isnan(reading) & (a > 0.0)
        unsure = np.divide(total, a, out=unsure, where=above).clip(min=0.0)
        q = np.where(above, np.minimum(q + np.log1p(unsure), widths.WIDEST), q)
    ends = np.sort([p * np.exp(-q), p * np.exp(q)], axis=0)
    flags = (
        EXTRAPOLATES * ((away + beyond > 0.0) | (unsure > NOTABLE))
        | UNCALIBRATED * unknown
        | FELL_BACK * silent
    )
    flags |= SIMULATED * (estimator["provenance"] == "simulated")
    parts = [slice(start, end) for start, end in zip(forest.starts, forest.starts[1:], strict=False)]
    return [
        Predicted(p[s], ends[0][s], ends[1][s], flags[s].astype(np.int64), own[s], alpha[s], name)
        if ok
        else None
        for s, ok in zip(parts, able, strict=True)
    ]


def _beyond(tier: Mapping[str, Any], forest: Forest, reads: np.ndarray) -> np.ndarray:
    """How far readings lie outside of what was calibrated, in summed natural-log units; 0 where there is none."""
    out = np.zeros(len(reads))
    for level, data in tier.get("direct", {}).items():
        rows = np.flatnonzero(reads & (forest.level == LEVELS.index(level)))
        columns = Columns(tier["columns"], forest.names, forest.features[rows])
        for index, low, high in data.get("within", ()):
            x = np.maximum(columns[index], TINY)
            out[rows] += np.log(x / max(high, TINY)).clip(min=0.0)
            out[rows] += np.log(max(low, TINY) / x).clip(min=0.0)
    return out


def _rescaled(
    gammas: Mapping[str, float], forest: Forest, a: np.ndarray, p: np.ndarray, reads: np.ndarray
) -> np.ndarray:
    """Nodes below a root that was read, times s ** gamma of their level (FORMAT.md, RESCALE)."""
    starts = forest.starts[:-1]
    s = (p[starts] / a[starts])[forest.tree]
    usable = reads[starts][forest.tree] & (s > 0.0) & (forest.parent >= 0)
    out = p.copy()
    for level, gamma in gammas.items():
        rows = usable & (forest.level == LEVELS.index(level))
        out[rows] = a[rows] * s[rows] ** gamma
    return out


def predict(
    estimator: Mapping[str, Any], trees: Sequence[ModelTree | LabelledTree], tier: str
) -> list[Predicted]:
    """Evaluate a tier for many trees at once; where a tree lacks its features, the next lower tier (flag 4).

    Raises EstimatorError where the estimator has no tier that a tree can have.
    """
    todo = [tree if isinstance(tree, LabelledTree) else labelled(tree) for tree in trees]
    if estimator.get("law"):
        todo = with_law(todo, estimator["law"])
    out: list[Predicted | None] = [None] * len(todo)
    if tier not in estimator["tiers"]:
        tier_of(estimator, tier)
    for name in LOWER[tier]:
        missing = [index for index, found in enumerate(out) if found is None]
        if name not in estimator["tiers"] or not missing:
            continue
        for index, found in zip(missing, _evaluate(estimator, [todo[i] for i in missing], name), strict=True):
            if found is not None and name != tier:
                found.flags |= FELL_BACK
            out[index] = found
    for tree, found in zip(todo, out, strict=True):
        if found is None:
            raise EstimatorError(
                f"{tree.model}: no tier of this estimator can be had from the tree's features"
            )
    asked = [len(tree.tree.nodes) if isinstance(tree, LabelledTree) else len(tree.nodes) for tree in trees]
    return [_first(found, size) for found, size in zip(out, asked, strict=True) if found is not None]


def _first(found: Predicted, size: int) -> Predicted:
    """A prediction of the nodes that were asked for: the Host leaf that a law adds is the last one."""
    if len(found.energy_j) == size:
        return found
    return Predicted(
        found.energy_j[:size], found.low_j[:size], found.high_j[:size], found.flags[:size], found.leaf_j[:size],
        found.alpha[:size], found.tier,
    )  # fmt: skip
