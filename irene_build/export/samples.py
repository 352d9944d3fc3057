"""Trees that exercise an estimator: golden trees made from its own ranges, and example trees of real models.

Golden trees depend on the estimator alone, so that equal estimators give equal bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from irene_build.errors import TreeError
from irene_build.export.arrays import encode
from irene_build.export.builder import TIERS
from irene_build.export.parity import EPS, FACTOR, scales
from irene_build.export.tables import resolved
from irene_runtime.equations import FLAGS
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.model import Estimator
from irene_runtime.tree import LEVELS, ModelTree, Node, from_json

#: Which models and sizes a bundle shows: model, batch size, sequence length.
EXAMPLES = (("bert-base-uncased", 8, 128), ("distilbert-base-uncased", 16, 64), ("gpt2", 8, 128))
_HEADER_FEATURES = ("batch_size", "seq_len", "input_size")
#: How far the second golden tree lies from the middle of the ranges; the third is tried where that overflows.
_STRETCHES = (40.0, 3.0)


def ranges_of(estimator: Mapping[str, Any], kind: str) -> dict[str, tuple[float, float]]:
    """The calibrated ranges of a primitive or level, over all tiers."""
    out: dict[str, tuple[float, float]] = {}
    for name in estimator["tiers"]:
        for feature, (low, high) in (resolved(estimator, name).get("ranges") or {}).get(kind, {}).items():
            out[feature] = (float(low), float(high))
    return out


def middle(ranges: Mapping[str, tuple[float, float]], name: str) -> float:
    """The geometric middle of a range, to four digits; 50 for a feature without one."""
    low, high = ranges.get(name, (50.0, 50.0))
    return float(f"{math.sqrt(max(low, 1e-3) * max(high, 1e-3)):.4g}")


def with_resources(tree: ModelTree, estimator: Mapping[str, Any]) -> ModelTree:
    """The same tree with invented resource features inside the ranges, so that every tier can be evaluated."""
    out = from_json(tree.to_json())
    for node in out.nodes:
        ranges = ranges_of(estimator, node.primitive or node.level)
        for name in RESOURCE_FEATURES:
            if name in estimator["features"]:
                node.features.setdefault(name, middle(ranges, name))
    return out


def used_features(estimator: Mapping[str, Any], kind: str) -> set[str]:
    """The raw features that a primitive or level has a range for, or that any formula about it reads."""
    out = set(ranges_of(estimator, kind))
    for name in estimator["tiers"]:
        tier = resolved(estimator, name)
        forms: list[Any] = [tier.get("aggregation"), (tier.get("correction") or {}).get(kind)]
        level = kind if kind in LEVELS else LEVELS[0]
        forms.append((tier.get("direct") or {}).get(level))
        if kind in LEVELS:
            forms.append(tier["interval"].get("kinds"))
        else:
            forms.append(tier["leaf"].get(kind) or tier["fallback"])
        for form in [*forms, *((form or {}).get("correction") for form in forms)]:
            if form:
                columns = [
                    *form.get("columns", []),
                    *(c for t in form.get("terms", []) for c in t["columns"]),
                ]
                for column in columns:
                    out |= _raw(tier["columns"], column)
    return out


def _raw(columns: Sequence[Mapping[str, Any]], index: int) -> set[str]:
    """The raw features that a column is made of."""
    column = columns[index]
    if "of" not in column:
        return {column["feature"]}
    return {name for other in column["of"] for name in _raw(columns, other)}


def golden_trees(estimator: Mapping[str, Any], stretch: float) -> dict[str, ModelTree]:
    """Two trees: every calibrated primitive once, inside the ranges; and some outside of them, with an unknown one."""
    calibrated = [
        p
        for p in estimator["primitives"]
        if any(p in resolved(estimator, t)["leaf"] for t in estimator["tiers"])
    ]
    sizes = {name: middle(ranges_of(estimator, "model"), name) for name in ("batch_size", "seq_len")}
    header = {
        "batch_size": max(1, round(sizes["batch_size"])), "seq_len": max(1, round(sizes["seq_len"])),
        "cost_model": estimator["cost_model"], "attention": estimator["attention"],
    }  # fmt: skip

    def features(kind: str, factor: float) -> dict[str, float]:
        ranges, used = ranges_of(estimator, kind), used_features(estimator, kind)
        out = {}
        for index, name in enumerate(estimator["features"]):
            if name in _HEADER_FEATURES or name not in used:
                continue
            away = factor if index % 2 else 1.0 / factor
            out[name] = float(f"{middle(ranges, name) * away:.4g}")
        return out

    trees = {}
    for name, factor, chosen in (
        ("inside", 1.0, calibrated),
        ("outside", stretch, [*calibrated[::3], "Custom"]),
    ):
        nodes = [Node("", "Golden", "model", -1, None, 0, features("model", factor))]
        for group, primitives in enumerate((chosen[::2], chosen[1::2])):
            if primitives:
                parent = len(nodes)
                nodes.append(
                    Node(f"block.{group}", "Block", "module", 0, None, 0, features("module", factor))
                )
                nodes += [
                    Node(f"block.{group}.{p.lower()}", p, "ml", parent, p, 0, features(p, factor))
                    for p in primitives
                ]
        trees[name] = ModelTree(nodes, {**header, "model": f"golden-{name}"})
    return trees


def compact(tree: ModelTree) -> dict[str, Any]:
    """The tree file without what a golden tree does not need."""
    data = tree.to_json()
    keep = ("format", "version", "model", "batch_size", "seq_len", "cost_model", "attention")
    nodes = [{k: v for k, v in node.items() if k != "call"} for node in data["nodes"]]
    return {**{k: data[k] for k in keep}, "nodes": nodes}


def golden_cases(estimator: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Golden trees with the runtime's own results per tier (export/FORMAT.md, GOLDEN).

    A tier that cannot predict a tree (values that are not finite) has no case of it; raises TreeError if no tier can.
    """
    runtime = Estimator(estimator)
    bits = {name: bit for bit, name in FLAGS.items()}
    cases: list[dict[str, Any]] = []
    reason: Exception | None = None
    for stretch in _STRETCHES:
        cases = []
        for name, tree in golden_trees(estimator, stretch).items():
            for tier in TIERS:
                if tier not in estimator["tiers"]:
                    continue
                try:
                    p = runtime.predict(tree, tier=tier)
                except TreeError as error:
                    reason = error
                    continue
                if p.tier != tier:
                    continue
                bound = scales(estimator, tier, encode(estimator, [tree])).energy
                cases.append({
                    "name": name, "tier": tier, "tree": compact(tree),
                    "energy_j": [n.energy_j.hex() for n in p.nodes],
                    "low_j": [n.interval_j[0].hex() for n in p.nodes],
                    "high_j": [n.interval_j[1].hex() for n in p.nodes],
                    "flags": [sum(bits[f] for f in n.flags) for n in p.nodes],
                    "tolerance_j": [float(f"{FACTOR * EPS * scale:.2e}") for scale in bound],
                })  # fmt: skip
        if {case["name"] for case in cases} == {"inside", "outside"}:
            return cases
    if not cases:
        raise TreeError(f"no tier of this estimator can predict trees inside its own ranges: {reason}")
    return cases


def example_trees(
    estimator: Mapping[str, Any], examples: Sequence[tuple[str, int, int]] = EXAMPLES
) -> dict[str, ModelTree]:
    """Real models traced as the estimator was calibrated, by file name."""
    from irene_build.trace import trace

    return {
        f"{model}-{batch}x{length}.json": trace(
            model, batch, length, attention=estimator["attention"], cost_model=estimator["cost_model"]
        )
        for model, batch, length in examples
    }
