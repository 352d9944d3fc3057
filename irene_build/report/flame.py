"""A prediction in the formats of flame graph viewers: speedscope and Chrome trace (Perfetto).

Their time axis carries joules. A node is as wide as its joules where its children fit into it (see
``predictions.spans``); its exact energy is in its name or arguments.
"""

from __future__ import annotations

import re
from typing import Any

from irene_build.report.predictions import Prediction, is_simulated, node_name, size_label, spans


def _title(prediction: Prediction) -> str:
    text = f"{prediction['model']} {size_label(prediction)}, {prediction['tier']} tier, joules"
    return f"SIMULATED: {text}" if is_simulated(prediction) else text


def _closing_order(prediction: Prediction) -> list[tuple[str, int]]:
    """("O" or "C", node) so that a node closes before its next sibling or its parent's sibling opens."""
    out: list[tuple[str, int]] = []
    stack: list[int] = []
    for index, node in enumerate(prediction["nodes"]):
        while stack and stack[-1] != node["parent"]:
            out.append(("C", stack.pop()))
        out.append(("O", index))
        stack.append(index)
    while stack:
        out.append(("C", stack.pop()))
    return out


def speedscope(prediction: Prediction) -> dict[str, Any]:
    """A speedscope file with two profiles: every call by its scope, and repeated layers under one name
    (numbers in scopes become ``*``), which speedscope's left-heavy and sandwich views then merge.

    Format: https://www.speedscope.app/file-format-schema.json; it knows no joules, so the unit is "none".
    """
    nodes = prediction["nodes"]
    where = spans([n["parent"] for n in nodes], [n["energy_j"] for n in nodes])
    frames: dict[str, int] = {}
    profiles = []
    for title, merge in (("calls", False), ("layers merged", True)):
        names = [node_name(n) for n in nodes]
        if merge:
            names = [re.sub(r"(^|\.)\d+(?=[.:]|$)", r"\1*", n.split("#")[0]) for n in names]
        events = []
        last = 0.0
        for kind, index in _closing_order(prediction):
            start, width = where[index]
            # Rounding must not make a parent end before its last child: time only moves forward.
            last = max(last, start if kind == "O" else start + width)
            events.append({"type": kind, "frame": frames.setdefault(names[index], len(frames)), "at": last})
        profiles.append(
            {
                "type": "evented",
                "name": f"{_title(prediction)} ({title})",
                "unit": "none",
                "startValue": 0,
                "endValue": last,
                "events": events,
            }
        )
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": _title(prediction),
        "exporter": "irene-build",
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": name} for name in frames]},
        "profiles": profiles,
    }


def chrome_trace(prediction: Prediction) -> dict[str, Any]:
    """Chrome's trace event format (chrome://tracing, Perfetto): 1 us on its axis is 1 uJ.

    Energy, interval, share, alpha and flags of each node are in its ``args``.
    """
    nodes = prediction["nodes"]
    where = spans([n["parent"] for n in nodes], [n["energy_j"] for n in nodes])
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 1, "args": {"name": _title(prediction)}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "energy (1 us = 1 uJ)"}},
    ]
    for node, (start, width) in zip(nodes, where, strict=True):
        extra = {
            k: node[k] for k in ("share", "alpha", "tier", "flags", "primitive") if node.get(k) is not None
        }
        events.append(
            {
                "ph": "X",
                "name": node["type"],
                "cat": node["level"],
                "pid": 1,
                "tid": 1,
                "ts": start * 1e6,
                "dur": width * 1e6,
                "args": {
                    "scope": node["scope"],
                    "energy_j": node["energy_j"],
                    "interval_j": node["interval_j"],
                    **extra,
                },
            }
        )
    keys = ("model", "batch_size", "seq_len", "phase", "hardware", "boundary", "provenance", "tier", "digest")
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"unit": "1 us = 1 uJ", **{k: prediction.get(k) for k in keys}},
    }
