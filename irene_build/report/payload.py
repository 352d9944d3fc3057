"""The data block behind the tree explorer: many predictions of a few tree shapes, kept small.

Trees of one model at different sizes share their shape, so it is stored once; per tier and size there
are three arrays, with five significant digits. ``templates/report_explorer.js.j2`` reads it:

    {"coverage", "models": [{"name", "shapes": [{"scope", "type", "call", "level", "parent", "primitive",
       "counts": {feature: [...]} where the nodes carry features}],
      "sizes": [{"label", "batch_size", "seq_len", "phase", "shape", "mean_of"}],
      "tiers": {tier: [{"e": [J, ...], "lo", "hi", "flags": {node: [names]}} or null, one per size]}}]}

The tier ``measured`` holds labels; a node without one is null there, never zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from irene_build.report.predictions import TIERS, Prediction, size_label

_SHAPE = ("scope", "type", "call", "level", "parent", "primitive")
#: Features that say why a number is what it is.
_COUNTS = ("flops", "mem_bytes", "kernels", "gemm_batch", "gemm_m", "gemm_n", "gemm_k")


def five_digits(value: float | None) -> float | None:
    """``value`` to five significant digits; None where it is missing or not finite."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _view(prediction: Prediction) -> dict[str, Any]:
    nodes = prediction["nodes"]
    # "simulated" holds for all or none: the page says it once, across itself.
    marks = [[name for name in n.get("flags") or [] if name != "simulated"] for n in nodes]
    flags = {str(i): names for i, names in enumerate(marks) if names}
    return {
        "e": [five_digits(n["energy_j"]) for n in nodes],
        "lo": [five_digits(n["interval_j"][0]) for n in nodes],
        "hi": [five_digits(n["interval_j"][1]) for n in nodes],
        "flags": flags,
    }


def _counts(prediction: Prediction) -> dict[str, list[float | None]]:
    """Per feature of ``_COUNTS`` that any node has: its values, five digits, None where a node lacks it."""
    rows = [node.get("features") or {} for node in prediction["nodes"]]
    columns = {name: [five_digits(row.get(name)) for row in rows] for name in _COUNTS}
    return {name: column for name, column in columns.items() if any(column)}


def _mean(views: list[dict[str, Any]]) -> dict[str, Any]:
    """Node-wise average over sizes, as in Figure 5; a node flagged at any size is flagged."""
    out: dict[str, Any] = {"flags": {}}
    for key in ("e", "lo", "hi"):
        columns = [view[key] for view in views]
        if any(column is None for column in columns):
            out[key] = None
            continue
        rows = zip(*columns, strict=True)
        out[key] = [None if None in row else five_digits(sum(row) / len(row)) for row in rows]
    for view in views:
        for index, names in view["flags"].items():
            out["flags"][index] = sorted({*out["flags"].get(index, []), *names})
    return out


def _model(name: str, items: list[tuple[Prediction, list[float | None] | None]]) -> dict[str, Any]:
    shapes: list[dict[str, Any]] = []
    keys: dict[str, int] = {}
    sizes: dict[tuple[Any, ...], dict[str, Any]] = {}
    views: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
    for prediction, labels in items:
        shape: dict[str, Any] = {key: [node.get(key) for node in prediction["nodes"]] for key in _SHAPE}
        if any("features" in node for node in prediction["nodes"]):
            shape["counts"] = _counts(prediction)
        text = json.dumps(shape)
        if text not in keys:
            keys[text] = len(shapes)
            shapes.append(shape)
        batch, seq = prediction.get("batch_size"), prediction.get("seq_len")
        phase = prediction.get("phase") or "forward"
        size = (phase, batch or 0, seq or 0, prediction.get("past_len") or 0, keys[text])
        sizes[size] = {
            "label": size_label(prediction), "batch_size": batch, "seq_len": seq, "phase": phase,
            "shape": keys[text],
        }  # fmt: skip
        views.setdefault(str(prediction["tier"]), {})[size] = _view(prediction)
        if labels is not None and size not in views.setdefault("measured", {}):
            measured: dict[str, Any] = {
                "e": [five_digits(x) for x in labels],
                "lo": None,
                "hi": None,
                "flags": {},
            }
            views["measured"][size] = measured
    order = sorted(sizes)
    tiers = {t: [views[t].get(s) for s in order] for t in (*TIERS, "measured") if t in views}
    tiers.update({t: [v.get(s) for s in order] for t, v in views.items() if t not in tiers})
    listed = [sizes[s] for s in order]
    for phase, shape in dict.fromkeys((s["phase"], s["shape"]) for s in listed):
        same = [
            i
            for i, s in enumerate(listed)
            if (s["phase"], s["shape"]) == (phase, shape) and "mean_of" not in s
        ]
        if len(same) < 2:
            continue
        suffix = "" if phase == "forward" else f" ({phase})"
        label = f"mean of {len(same)} sizes{suffix}"
        listed.append({"label": label, "phase": phase, "shape": shape, "mean_of": len(same)})
        for tier in tiers.values():
            there = [v for v in (tier[i] for i in same) if v is not None]
            tier.append(_mean(there) if len(there) == len(same) else None)
    return {"name": name, "shapes": shapes, "sizes": listed, "tiers": tiers}


def forest(
    predictions: Sequence[Prediction], labels: Sequence[list[float | None] | None] | None = None
) -> dict[str, Any]:
    """The explorer's data of ``predictions``; ``labels`` are measured joules per node, aligned with them."""
    known = labels if labels is not None else [None] * len(predictions)
    models: dict[str, list[tuple[Prediction, list[float | None] | None]]] = {}
    for prediction, label in zip(predictions, known, strict=True):
        models.setdefault(str(prediction["model"]), []).append((prediction, label))
    coverage = next((p["coverage"] for p in predictions if p.get("coverage")), 0.9)
    return {"coverage": coverage, "models": [_model(name, items) for name, items in models.items()]}
