"""What two bundles say differently: header fields, and joules on the trees of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irene_build.errors import TreeError
from irene_build.export.samples import sized, with_resources
from irene_build.export.verify import open_bundle
from irene_runtime.main import golden_tree
from irene_runtime.model import Estimator
from irene_runtime.symbolic import load_any
from irene_runtime.tree import ModelTree

_HEADER = (
    "hardware", "boundary", "provenance", "label_source", "method", "cost_model", "attention", "tiers", "primitives",
    "irene_build", "fingerprint",
)  # fmt: skip


def compare_bundles(old: Path, new: Path) -> dict[str, Any]:
    """Differences of two bundles, as ``diff --json`` prints them; changes are new minus old, joules.

    Trees are the golden and example trees of both; where a tree has no resource features, tiers that need them get
    values from the middle of the old bundle's ranges (``readings``: "made up"): such joules show a change,
    and mean nothing alone. ``not_compared``: why trees could not be predicted by both, and which.
    Raises EstimatorError where a folder is no sound bundle.
    """
    (one, constants, _), (other, other_constants, _) = open_bundle(old), open_bundle(new)
    changed = {key: (one[key], other[key]) for key in _HEADER if one[key] != other[key]}
    result: dict[str, Any] = {
        "format": "irene-diff", "version": 1, "digest": [one["digest"], other["digest"]],
        "same_estimator": one["digest"] == other["digest"], "changed": changed, "trees": [], "not_compared": {},
    }  # fmt: skip
    if "cost_model" in changed:
        models = " and ".join(changed["cost_model"])
        reason = f"no tree fits both: their features are counted by different cost models ({models})"
        return {**result, "not_compared": {reason: []}}
    trees: dict[str, ModelTree] = {}
    for folder, golden in ((old, constants["GOLDEN"]), (new, other_constants["GOLDEN"])):
        for case in golden["cases"]:
            trees.setdefault(f"golden-{case['name']}", golden_tree(golden, case["times"]))
        for path in sorted((folder / "trees").glob("*.json")):
            for size, tree in sized(load_any(str(path))).items():
                trees.setdefault(path.stem + size, tree)
    shared = [tier for tier in one["tiers"] if tier in other["tiers"]]
    both = Estimator(constants["ESTIMATOR"]), Estimator(other_constants["ESTIMATOR"])
    for name, tree in trees.items():
        full = with_resources(tree, constants["ESTIMATOR"])
        for tier in shared:
            case = _case(name, tier, tree if tier == "static" else full, both)
            if isinstance(case, str):
                result["not_compared"].setdefault(case, []).append(f"{name}, tier {tier}")
            else:
                result["trees"].append(case)
    return result


def _case(name: str, tier: str, tree: ModelTree, both: tuple[Estimator, Estimator]) -> dict[str, Any] | str:
    """What the two say about a tree, or why one of them says nothing."""
    try:
        predictions = [estimator.predict(tree, tier=tier) for estimator in both]
    except TreeError as error:
        return str(error)
    for p in predictions:
        if p.tier != tier:
            return "; ".join(p.notes)
    nodes = [
        {
            "index": i, "name": node.name, "energy_j": [before.energy_j, after.energy_j],
            "change": percent(before.energy_j, after.energy_j),
        }
        for i, (node, before, after) in enumerate(zip(predictions[0].tree.nodes, *predictions, strict=False))
    ]  # fmt: skip  # a law's Host leaf, the last one, may be there in one of them only
    root = nodes[0]["energy_j"]
    nodes.sort(key=lambda n: (-abs(n["energy_j"][1] - n["energy_j"][0]), n["index"]))
    made_up = tier != "static"
    return {
        "tree": name, "tier": tier, "readings": "made up" if made_up else None, "energy_j": root,
        "change": percent(*root), "nodes": nodes,
    }  # fmt: skip


def percent(before: float, after: float) -> str:
    """``+1.2 %``; ``=`` where nothing changed, ``new`` where there was nothing."""
    if before == after:
        return "="
    return f"{100.0 * (after - before) / abs(before):+.3g} %" if before else "new"
