"""The same pass on meta, fake and real CPU tensors, node for node: what differs, and why."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import replace
from typing import Any

RUNGS = ("meta", "fake", "cpu")
#: Real weights of more bytes than this are not made.
MAX_BYTES = 6 * 2**30


def trace_on(rung: str, spec: Any, run: Any, variant: int) -> Any:
    """The tree of one pass on one back end. Raises ModelError."""
    import torch

    from irene_build.errors import ModelError
    from irene_build.models.build import instantiate
    from irene_build.trace import fallbacks, tracer

    trial = replace(run, variant=variant)
    if rung == "fake":
        return fallbacks.on_fake(spec, spec.name, trial)
    torch.manual_seed(0)
    module = instantiate(spec, run.dtype, run.attention, rung)
    try:
        return tracer.record(module, spec.name, replace(trial, tensors=rung))[0]
    except ModelError:
        if rung == "cpu":
            raise
    return fallbacks.with_buffers(spec, spec.name, trial)


def first_tree(spec: Any, run: Any) -> tuple[int, str, Any]:
    """The first way to call the model that runs, on the first back end where one does: (variant, rung, tree)."""
    from irene_build.errors import ModelError
    from irene_build.models.build import instantiate
    from irene_build.trace import tracer

    errors: list[str] = []
    module = instantiate(spec, run.dtype, run.attention, "meta")
    for rung in RUNGS:
        for variant in range(tracer.variants(module, run)):
            try:
                return variant, rung, trace_on(rung, spec, run, variant)
            except ModelError as error:  # noqa: PERF203
                errors.append(str(error))
    raise ModelError(errors[0] if errors else f"{spec.name}: no inputs are known")


def differences(a: Any, b: Any) -> tuple[int, str]:
    """How many nodes differ in anything (scope, type, level, kind, shapes, features), and the first leaf that does."""
    left, right = ([node.to_json() for node in tree.nodes] for tree in (a, b))
    unequal = [(x, y) for x, y in zip(left, right, strict=False) if x != y]
    count = len(unequal) + abs(len(left) - len(right))
    if not count:
        return 0, ""
    leaves = [(x, y) for x, y in unequal if "ml" in (x["level"], y["level"])]
    if not leaves:
        return count, f"{len(left)} and {len(right)} nodes"
    x, y = leaves[0]
    what = [
        f"{k}: {_apart(x.get(k), y.get(k))}"
        for k in dict.fromkeys([*x, *y])
        if x.get(k) != y.get(k) and k != "parent"
    ]
    return count, f"{x['scope']}:{x['type']} {'; '.join(what)}"[:900]


def _apart(x: Any, y: Any) -> str:
    """What two values do not share: entries of dicts, members of lists."""
    if isinstance(x, dict) and isinstance(y, dict):
        return ", ".join(
            f"{k} {_apart(x.get(k), y.get(k))}" for k in dict.fromkeys([*x, *y]) if x.get(k) != y.get(k)
        )
    if isinstance(x, list) and isinstance(y, list):
        ours, theirs = Counter(map(str, x)), Counter(map(str, y))
        return f"[{', '.join((ours - theirs).elements())} | {', '.join((theirs - ours).elements())}]"
    return f"{x} | {y}"


def reason(result: dict[str, Any]) -> str:
    """Why a type's trees are not all there, or not identical, in one of a few classes."""
    errors = result["errors"]
    steered = (
        "item()",
        "_local_scalar_dense",
        "nonzero",
        "unallocated storage",
        "data-dependent",
        "DataDependent",
    )
    if any(count for count, _ in result["pairs"].values()):
        return "node for node different"
    cpu = errors.get("cpu", "")
    if "too large" in cpu:
        return "too large for real weights here"
    if "out of range in self" in cpu:
        return "default configuration has token ids beyond its vocabulary, which real tensors refuse"
    if cpu:
        return "a CPU kernel refuses the shapes of the small configuration"
    if any(word in errors.get("meta", "") + errors.get("fake", "") for word in steered):
        return "values that hang on weights steer it: real tensors only"
    return f"no tree on {' and '.join(errors)}"


def rung_check(spec: Any, run: Any) -> dict[str, Any]:
    """Traces ``spec`` on the three back ends and compares each two. Raises ModelError where none gives a tree."""
    from irene_build.errors import ModelError
    from irene_build.models.build import instantiate

    variant, first, tree = first_tree(spec, run)
    parameters = instantiate(spec, run.dtype, run.attention, "meta").parameters()
    size = sum(p.numel() * p.element_size() for p in parameters)
    trees = {first: tree}
    errors: dict[str, str] = {}
    for rung in RUNGS:
        if rung in trees:
            continue
        if rung == "cpu" and size > MAX_BYTES:
            errors[rung] = f"{size / 2**30:.1f} GiB of weights: too large for this benchmark"
            continue
        try:
            trees[rung] = trace_on(rung, spec, run, variant)
        except ModelError as error:
            errors[rung] = str(error)[:400]
        gc.collect()
    found: dict[str, Any] = {
        "nodes": {r: len(t.nodes) for r, t in trees.items()},
        "errors": errors,
        "pairs": {},
    }
    for a, b in (("meta", "fake"), ("meta", "cpu"), ("fake", "cpu")):
        if a in trees and b in trees:
            count, first = differences(trees[a], trees[b])
            found["pairs"][f"{a}-{b}"] = [count, first]
    found["identical"] = len(trees) == len(RUNGS) and not any(n for n, _ in found["pairs"].values())
    return found
