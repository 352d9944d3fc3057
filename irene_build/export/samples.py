"""Trees that exercise an estimator: a golden tree made from its own ranges, and example trees of real models.

The golden tree depends on the estimator alone, so that equal estimators give equal bytes on every machine.
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
from irene_runtime.law import ENERGY, TIME
from irene_runtime.main import golden_tree
from irene_runtime.model import Estimator
from irene_runtime.symbolic import SymbolicTree
from irene_runtime.tree import LEVELS, ModelTree, from_json

#: Which models and sizes a bundle shows: model, batch size, sequence length.
EXAMPLES = (("bert-base-uncased", 8, 128), ("distilbert-base-uncased", 16, 64), ("gpt2", 8, 128))
_HEADER_FEATURES = ("batch_size", "seq_len", "input_size")
#: How far outside lies from the middle of the ranges; the second is tried where the first overflows.
_STRETCHES = (40.0, 3.0)
#: Batch, tokens and cached tokens at which a tree of every size is tried, where it holds for them.
_TRIED = (2, 24, 40)
#: The tracer's name for what it does not know.
_UNKNOWN = "Custom"
HOST = "Host"
#: What the law counts of a leaf, beside shapes.
_COUNTED_BY_LAW = (
    "matmul_flops",
    "elementwise_flops",
    "read_bytes",
    "write_bytes",
    "weight_bytes",
    "kernels",
)


def ranges_of(estimator: Mapping[str, Any], kind: str) -> dict[str, tuple[float, float]]:
    """The calibrated ranges of a primitive or level, over all tiers."""
    out: dict[str, tuple[float, float]] = {}
    for name in estimator["tiers"]:
        for feature, (low, high) in (resolved(estimator, name).get("ranges") or {}).get(kind, {}).items():
            out[feature] = (float(low), float(high))
    return out


def middle(ranges: Mapping[str, tuple[float, float]], name: str) -> float:
    """The geometric middle of a range, to three digits; 50 for a feature without one."""
    low, high = ranges.get(name, (50.0, 50.0))
    return float(f"{math.sqrt(max(low, 1e-3) * max(high, 1e-3)):.3g}")


def sized(tree: ModelTree | SymbolicTree) -> dict[str, ModelTree]:
    """What a bundle's tree is tried at: one of one size as it is; one of every size once in each of its sections.

    Keys tell the sizes: empty, or ``-prefill-2x24``.
    """
    if isinstance(tree, ModelTree):
        return {"": tree}
    out: dict[str, ModelTree] = {}
    for section in tree.sections:
        ends = (section.batch_size, section.seq_len, section.past_len)
        batch, length, past = (_within(*pair) for pair in zip(ends, _TRIED, strict=True))
        out[f"-{section.phase}-{batch}x{past or length}"] = tree.at(batch, length, past, section.phase)
    return out


def _within(sizes: Any, wanted: int) -> int:
    return max(int(sizes.low), wanted if sizes.high is None else min(wanted, int(sizes.high)))


def text_of(tree: ModelTree | SymbolicTree) -> str:
    """A tree's file."""
    if isinstance(tree, ModelTree):
        return tree.dumps()
    from irene_build.trace.symbolic import dumps

    return dumps(tree)


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


def golden_nodes(estimator: Mapping[str, Any], runtime: Estimator) -> list[dict[str, Any]]:
    """Nodes as ``irene_runtime.main.golden_tree`` reads them, in the middle of what was calibrated.

    Every calibrated primitive once, one that another stands in for, and one that is unknown. Leaves are children of
    two modules. The unknown leaf and the second module lack readings, where the estimator can do without.
    """
    stand_in = {
        k: v for t in estimator["tiers"] for k, v in resolved(estimator, t).get("stand_in", {}).items()
    }
    leaves = {p: p for t in estimator["tiers"] for p in resolved(estimator, t)["leaf"]}
    leaves.update(sorted(stand_in.items())[:1])
    leaves[_UNKNOWN] = _UNKNOWN
    nodes: list[dict[str, Any]] = []

    def add(parent: int, level: str, primitive: str | None = None, reads: bool = True) -> None:
        kind = level if primitive is None else leaves[primitive]
        ranges, used = ranges_of(estimator, kind), used_features(estimator, kind) - set(_HEADER_FEATURES)
        if not reads:
            needed = (t.needs(level, primitive, primitive is not None, False) for t in runtime.tiers.values())
            used -= set(RESOURCE_FEATURES).difference(*needed)
        node: dict[str, Any] = {"parent": parent, "level": level}
        if primitive is not None:
            node["primitive"] = primitive
        for name in estimator["features"]:
            if name in used - {TIME, ENERGY}:
                node[name] = middle(ranges, name) if name in ranges else 20.0 + len(nodes)
        if estimator.get("law") and primitive not in (None, HOST):
            node.update((name, node.get(name, 20.0 + len(nodes))) for name in _COUNTED_BY_LAW)
        nodes.append(node)

    add(-1, "model")
    for first in (True, False):
        module = len(nodes)
        add(0, "module", reads=first)
        for primitive in [name for name in leaves if name != HOST][0 if first else 1 :: 2]:
            add(module, LEVELS[0], primitive, primitive != _UNKNOWN)
    if estimator.get("law"):
        leaves.setdefault(HOST, HOST)
        add(0, LEVELS[0], HOST)  # where the law puts it
    return nodes


def golden(estimator: Mapping[str, Any]) -> dict[str, Any]:
    """GOLDEN of export/FORMAT.md: a tree, and the runtime's own results for it, per tier.

    Each tier inside of what was calibrated; those with formulas of their own also outside. A tier that cannot predict
    the tree (values that are not finite) has no case. Raises TreeError if no tier can.
    """
    runtime = Estimator(estimator)
    model = ranges_of(estimator, "model")
    header: dict[str, Any] = {k: max(1, round(middle(model, k))) for k in ("batch_size", "seq_len")}
    header.update(cost_model=estimator["cost_model"], attention=estimator["attention"])
    out: dict[str, Any] = {"header": header, "nodes": golden_nodes(estimator, runtime), "cases": []}
    reason: Exception | None = None
    for tier in TIERS:
        own = "base" not in estimator["tiers"].get(tier, {"base": ""})
        for name, stretches in (("inside", (1.0,)), ("outside", _STRETCHES if own else ())):
            for times in stretches if tier in estimator["tiers"] else ():
                try:
                    found = _case(estimator, runtime, tier, golden_tree(out, times))
                except TreeError as error:
                    reason = error
                    continue
                if found:
                    out["cases"].append({"name": name, "tier": tier, "times": times, **found})
                    break
    if not out["cases"]:
        raise TreeError(f"no tier of this estimator can predict trees inside its own ranges: {reason}")
    return out


def _case(estimator: Mapping[str, Any], runtime: Estimator, tier: str, tree: ModelTree) -> dict[str, str]:
    """What is known of one prediction; nothing where it falls to a lower tier."""
    p = runtime.predict(tree, tier=tier)
    if p.tier != tier:
        return {}
    bits = {name: bit for bit, name in FLAGS.items()}
    bound = scales(estimator, tier, encode(estimator, [tree])).energy
    low = high = 0.0
    for node in p:
        low, high = low + node.interval_j[0], high + node.interval_j[1]
    return {
        "energy_j": " ".join(node.energy_j.hex() for node in p),
        "tolerance_j": " ".join(f"{FACTOR * EPS * scale:.1e}" for scale in bound),
        "sum_low_j": low.hex(),
        "sum_high_j": high.hex(),
        "flags": "".join(f"{sum(bits[flag] for flag in node.flags):x}" for node in p),
    }


def attention_of(calibrated: str) -> str:
    """The attention to trace a model with, from that of an estimator: sdpa, the usual one, where both were measured."""
    return calibrated if calibrated in ("eager", "sdpa") else "sdpa"


def example_trees(
    estimator: Mapping[str, Any], examples: Sequence[tuple[str, int, int]] = EXAMPLES
) -> dict[str, ModelTree]:
    """Real models traced as the estimator was calibrated, by file name."""
    from irene_build.trace import trace

    attention = attention_of(str(estimator["attention"]))
    return {
        f"{model}-{batch}x{length}.json": trace(
            model, batch, length, attention=attention, cost_model=estimator["cost_model"]
        )
        for model, batch, length in examples
    }
