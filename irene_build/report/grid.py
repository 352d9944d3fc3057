"""Trade-off tables over predictions: one model over a grid of sizes, or several models side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from irene_build.report.breakdown import bottlenecks
from irene_build.report.predictions import Prediction
from irene_build.report.tradeoff import best_under, cheapest_above, pareto

#: A pass is marked when its root is flagged, or at least this share of its leaves' energy is in flagged
#: leaves: a warning that hangs on one odd node of hundreds would hang on everything.
MARKED_SHARE = 0.05
_ABOUT = ("hardware", "boundary", "provenance", "digest")


def _row(prediction: Prediction) -> dict[str, Any]:
    """Energy of one pass, per sequence and per token (J), with intervals and flags.

    A decode step makes one token a sequence; every other pass reads ``seq_len`` of them. ``length`` is the
    sequence length, in a decode step that of the cached part.
    """
    batch = prediction["batch_size"]
    tokens = batch * (1 if prediction.get("phase") == "decode" else prediction["seq_len"])
    low, high = prediction["interval_j"]
    energy = prediction["energy_j"]
    outside, unknown = (_flagged_share(prediction, name) for name in ("extrapolates", "uncalibrated"))
    return {
        "model": prediction["model"], "phase": prediction.get("phase") or "forward", "batch_size": batch,
        "seq_len": prediction["seq_len"], "past_len": prediction.get("past_len") or 0,
        "length": prediction.get("past_len") or prediction["seq_len"],
        "tier": prediction["tier"],
        "energy_j": energy, "interval_j": [low, high],
        "energy_per_sequence_j": energy / batch, "interval_per_sequence_j": [low / batch, high / batch],
        "energy_per_token_j": energy / tokens, "interval_per_token_j": [low / tokens, high / tokens],
        "extrapolates": outside >= MARKED_SHARE, "extrapolating_share": outside,
        "uncalibrated": unknown >= MARKED_SHARE, "uncalibrated_share": unknown,
    }  # fmt: skip


def _flagged_share(prediction: Prediction, flag: str) -> float:
    """The share of the leaves' energy that is in leaves with this flag; 1 where the root has it."""
    nodes = prediction["nodes"]
    if flag in (nodes[0].get("flags") or []):
        return 1.0
    leaves = [n for n in nodes if n["level"] == "ml"]
    total = sum(n["energy_j"] for n in leaves)
    return sum(n["energy_j"] for n in leaves if flag in (n.get("flags") or [])) / total if total > 0 else 0.0


def sweep(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """``{"format": "irene-sweep", "model", ..., "cells": [...]}``, one a size, in the order given."""
    first = predictions[0]
    return {
        "format": "irene-sweep", "version": 1, "model": first["model"], **{k: first[k] for k in _ABOUT},
        "coverage": first.get("coverage"), "cells": [_row(p) for p in predictions],
    }  # fmt: skip


def compare(
    predictions: Sequence[Prediction],
    accuracies: Mapping[str, float] | None = None,
    budget_j: float | None = None,
    min_accuracy: float | None = None,
) -> dict[str, Any]:
    """``{"format": "irene-compare", "rows", "bottlenecks", "pareto", "best_under", "cheapest_above", ...}``.

    One row a model and phase, cheapest first within a phase. ``pareto`` lists models, by rising energy, over
    each model's energy summed over its phases; models without an accuracy take no part and are listed in
    ``without_accuracy``.
    """
    known = accuracies or {}
    phases = list(dict.fromkeys(p.get("phase") or "forward" for p in predictions))
    rows = [{**_row(p), "accuracy": known.get(p["model"])} for p in predictions]
    rows.sort(key=lambda r: (phases.index(r["phase"]), r["energy_j"]))
    totals = _totals(rows)
    rated = [t for t in totals if t["accuracy"] is not None]
    front = [rated[i]["model"] for i in pareto([(t["energy_j"], t["accuracy"]) for t in rated])]
    choices: dict[str, Any] = {}
    if budget_j is not None:
        choices["best_under"] = {"budget_j": budget_j, "choice": best_under(totals, budget_j)}
    if min_accuracy is not None:
        choices["cheapest_above"] = {
            "min_accuracy": min_accuracy,
            "choice": cheapest_above(totals, min_accuracy),
        }
    first = predictions[0]
    return {
        "format": "irene-compare", "version": 1, **{k: first[k] for k in _ABOUT},
        "coverage": first.get("coverage"), "phases": phases, "rows": rows, "totals": totals, "pareto": front,
        "without_accuracy": [t["model"] for t in totals if t["accuracy"] is None and accuracies is not None],
        **choices,
        "bottlenecks": {
            p["model"] + (f" ({p.get('phase') or 'forward'})" if len(phases) > 1 else ""): bottlenecks([p])
            for p in predictions
        },
    }  # fmt: skip


def _totals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per model the sum over its phases, cheapest first; interval ends add up (errors fully shared)."""
    out: dict[str, dict[str, Any]] = {}
    for row in rows:
        total = out.setdefault(
            row["model"],
            {"model": row["model"], "energy_j": 0.0, "interval_j": [0.0, 0.0], "accuracy": row["accuracy"]},
        )
        total["energy_j"] += row["energy_j"]
        total["interval_j"] = [a + b for a, b in zip(total["interval_j"], row["interval_j"], strict=True)]
    return sorted(out.values(), key=lambda t: t["energy_j"])
