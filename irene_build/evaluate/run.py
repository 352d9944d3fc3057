"""Runs a protocol: fit on what is left, predict what was held out, compare, and set baselines beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from irene_build.dataset.splits import Fold, folds
from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError, InputError
from irene_build.evaluate import metrics
from irene_build.evaluate.methods import (
    Method,
    by_estimator,
    constant,
    law,
    paper_variant,
    stripped,
    strubell,
)
from irene_runtime.tree import LEVELS

TIERS = ("static", "live", "profile")
#: (what was done last, share of the whole) for a progress line.
Report = Callable[[float, str], None]


def evaluate(
    dataset: Dataset,
    method: str = "best",
    protocol: str = "model-out",
    tiers: Sequence[str] = TIERS,
    recipe: str | None = None,
    seed: int = 0,
    constants: Any = None,
    baselines: bool = True,
    report: Report | None = None,
    counts: str | None = None,
    labels: str = "all",
) -> dict[str, Any]:
    """The evaluation, as ``--json`` prints it, with ``pairs`` (single predictions) beside it.

    ``constants``: those of the hardware profile for the Strubell formula (None: that baseline is left out).
    ``counts``: as in ``methods.counts_of``; None goes by the recipe. ``labels``: ``all``, or ``model`` to hide
    those of modules and primitives from every fit (errors are still those of all nodes).
    Raises DatasetError where the protocol needs more models, InputError for unknown names.
    """
    unknown = [tier for tier in tiers if tier not in TIERS]
    if unknown or not tiers:
        raise InputError(f"tier {', '.join(unknown) or '(none)'}: expected some of {', '.join(TIERS)}")
    rivals = baseline_methods(method, constants) if baselines else []
    steps = len(folds(dataset, protocol)) * (1 + len(rivals))
    done = 0

    def tick(name: str) -> None:
        nonlocal done
        done += 1
        if report is not None:
            report(done / steps, name)

    from irene_build.train.whole_model import plausible

    began = time.perf_counter()
    chosen = by_estimator(method, recipe, seed, counts, tiers, labels)
    scores = run(chosen, dataset, protocol, tiers, tick)
    seconds = time.perf_counter() - began
    if not scores:
        raise DatasetError(
            f"method {method} gives none of the tiers {', '.join(tiers)} on {dataset.hardware!r}"
        )
    failed = dataset.info.get("implausible") or {}
    everything, scores = scores, {t: metrics.without(found, failed) for t, found in scores.items()}
    result: dict[str, Any] = {
        "hardware": dataset.hardware, "method": method, "protocol": protocol,
        "provenance": dataset.provenance, "boundary": dataset.boundary, "label_source": dataset.label_source,
        "tiers": {tier: metrics.tier_metrics(found) for tier, found in scores.items()},
        "baselines": {}, "skipped_baselines": {}, "beaten_by": [], "seconds": round(seconds, 2),
        "pairs": {tier: metrics.pairs(found) for tier, found in scores.items()},
    }  # fmt: skip
    copies = {tier: metrics.copies_of_other_shapes(found) for tier, found in scores.items()}
    if any(copies.values()):
        result["copies_of_other_shapes"] = copies
    if failed:
        levels = {tier: metrics.level_metrics(found, "model") for tier, found in everything.items()}
        result["failed_runs"] = {
            "n": len(failed), "runs": list(failed.values()),
            "with_them": {t: {k: found[k] for k in ("mape", "p50", "max", "n")} for t, found in levels.items()},
        }  # fmt: skip
    if labels != "all":
        result["labels"] = labels
    if recipe is not None:
        result["recipe"] = recipe
    began = time.perf_counter()
    kept = plausible(dataset)
    for rival in rivals:
        _add_baseline(result, rival, kept, protocol, tick)
    result["baseline_seconds"] = round(time.perf_counter() - began, 2)
    result["beaten_by"] = beaten_by(result)
    return result


def run(
    method: Method,
    dataset: Dataset,
    protocol: str,
    tiers: Sequence[str] = TIERS,
    tick: Callable[[str], None] | None = None,
) -> dict[str, metrics.Scores]:
    """Scores per tier over all folds of a protocol; a tier that one fold cannot give is left out."""
    from irene_build.train.threads import one_thread

    seen = method.view(dataset)
    parts: dict[str, list[metrics.Scores]] = {tier: [] for tier in tiers}
    every = folds(seen, protocol)
    with one_thread():
        for fold in every:
            for tier, found in _fold_scores(method, fold, tiers, seen.label_source).items():
                parts[tier].append(found)
            if tick is not None:
                tick(f"{method.name}, {fold.held_out} left out")
    return {tier: metrics.join(found) for tier, found in parts.items() if len(found) == len(every)}


def _fold_scores(
    method: Method, fold: Fold, tiers: Sequence[str], label_source: str
) -> dict[str, metrics.Scores]:
    can, predict = method.fit(fold.train)
    out = {}
    for tier in tiers:
        if tier not in can:
            continue
        answers = predict([stripped(tree, tier, label_source) for tree in fold.test], tier)
        out[tier] = metrics.score(
            fold.test, [a.energy_j for a in answers], [a.low_j for a in answers], [a.high_j for a in answers]
        )
    return out


def baseline_methods(method: str, constants: Any = None) -> list[Method]:
    """What is always printed beside a method; ``-static`` variants run nothing."""
    from irene_build.train import paper

    out = [constant("latency"), constant("gpu_energy"), constant("flops")]
    if method != "paper":
        out.append(law())
    for suffix, names in (("", paper.INPUTS), ("-static", paper.MODEL_INPUTS)):
        out.append(paper_variant(f"predicted-sum{suffix}", names, "predicted-sum"))
        if method != "paper":
            out.append(paper_variant(f"paper{suffix}", names))
    if constants is not None:
        values = (
            asdict(constants) if is_dataclass(constants) and not isinstance(constants, type) else constants
        )
        out.append(strubell(values))
    return out


def _add_baseline(
    result: dict[str, Any], rival: Method, dataset: Dataset, protocol: str, tick: Callable[[str], None]
) -> None:
    try:
        scores = run(rival, dataset, protocol, ("static", "profile"), tick)
    except DatasetError as error:
        result["skipped_baselines"][rival.name] = str(error)
        return
    wanted = "static" if rival.name.endswith("-static") or rival.name == "flops" else "profile"
    if wanted not in scores:
        result["skipped_baselines"][rival.name] = "the dataset lacks the resource features that it reads"
        return
    found = scores[wanted]
    result["baselines"][rival.name] = {
        "tier": wanted,
        **{level: metrics.mape(found, found.level == level) for level in LEVELS},
    }


def rivals_of(result: dict[str, Any], tier: str, level: str) -> dict[str, float]:
    """The baselines that know no more than the tier does, with their error at the level.

    Where the root alone is read (live), a constant times its reading is one at the level of the model.
    """
    out = {}
    for name, found in result["baselines"].items():
        single = name in ("latency", "gpu_energy", "strubell") and tier == "live" and level == "model"
        if found[level] is not None and (found["tier"] == "static" or tier == "profile" or single):
            out[name] = found[level]
    return out


def beaten_by(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Where a baseline is better than the method: tier, level, baseline and both errors."""
    out = []
    for tier, levels in result["tiers"].items():
        for level in LEVELS:
            ours = levels[level]["mape"]
            for name, error in rivals_of(result, tier, level).items():
                if ours is not None and round(error, 2) < round(ours, 2):
                    out.append({"tier": tier, "level": level, "baseline": name, "mape": error, "ours": ours})
    return out


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """What an estimator file keeps of its evaluation (FORMAT.md, ``evaluation``)."""
    return {
        tier: {
            result["protocol"]: {
                level: {
                    key: found[level][key] and round(found[level][key], 4)
                    for key in ("mape", "coverage90", "n")
                }
                for level in LEVELS
                if found[level]["n"]
            }
        }
        for tier, found in result["tiers"].items()
    }
