"""Energy bottlenecks: the modules right above the ML primitives (section 5.6, Tables 10 and 12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from irene_build.report.predictions import Prediction


def units(prediction: Prediction) -> list[tuple[str, str, int]]:
    """A partition of the tree: (name, kind, node index) of every unit, in the tree's order.

    A unit is a module all of whose children are ML primitives (``BertSelfAttention``); a primitive whose
    parent holds modules as well stands for itself (the ``LayerNorm`` of a GPT-2 block, Table 10b). So
    every leaf is in exactly one unit.
    """
    nodes = prediction["nodes"]
    children: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        if node["parent"] >= 0:
            children[node["parent"]].append(index)

    def only_primitives(index: int) -> bool:
        return bool(children[index]) and all(nodes[c]["level"] == "ml" for c in children[index])

    out = []
    for index, node in enumerate(nodes):
        if only_primitives(index):
            out.append((str(node["type"]), "module", index))
        elif node["level"] == "ml" and (index == 0 or not only_primitives(node["parent"])):
            out.append((str(node.get("primitive") or node["type"]), "ml", index))
        elif not children[index] and node["level"] != "ml":
            out.append((str(node["type"]), "module", index))
    return out


def marked(prediction: Prediction) -> dict[str, int]:
    """How many nodes carry a flag that speaks against their number: ``{"extrapolates": 12, "uncalibrated": 3}``."""
    out = {}
    for flag in ("extrapolates", "uncalibrated"):
        count = sum(flag in (node.get("flags") or []) for node in prediction["nodes"])
        if count:
            out[flag] = count
    return out


#: Kinds of parts, by what their names hold; the first that fits.
KINDS = {
    "attention": ("attention", "attn", "softmax", "matmul"),
    "MLP": (
        "mlp",
        "intermediate",
        "feedforward",
        "ffn",
        "expert",
        "moe",
        "output",
        "linear",
        "conv1d",
        "gelu",
        "silu",
    ),
    "normalisation": ("norm",),
    "embedding": ("embed",),
}


def kind_of(module: str) -> str:
    """``attention``, ``MLP``, ``normalisation``, ``embedding`` or ``other``: what colours mean on bars."""
    name = module.lower()
    if "norm" in name:
        return "normalisation"
    if "selfoutput" in name:
        return "attention"
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")


def bottlenecks(
    predictions: Sequence[Prediction], labels: Sequence[Sequence[float | None]] | None = None
) -> list[dict[str, Any]]:
    """The table of one model: rows by falling energy, averaged over ``predictions`` (its input sizes).

    As in the paper the energies are averaged first, and shares are of the root's average:
    ``{"module", "kind": "module" | "ml", "calls" (of one pass), "energy_j", "interval_j", "share",
    "measured_share"}``. ``labels`` are measured joules per node (None: no label): a part that has them
    in every size and call has a measured share as well, other parts have None.
    Interval ends are summed over a unit's calls, which takes their errors as fully shared (the wide end).
    The last row, "(not in these parts)", is what the root has beyond its units (negative if they exceed it).
    """
    count = len(predictions)
    total: dict[tuple[str, str], list[float]] = {}
    measured: dict[tuple[str, str], float] = {}
    whole = 0.0
    for k, prediction in enumerate(predictions):
        known = labels[k] if labels is not None else [None] * len(prediction["nodes"])
        whole += _joules(known[0])
        for name, kind, index in units(prediction):
            measured[name, kind] = measured.get((name, kind), 0.0) + _joules(known[index])
            node = prediction["nodes"][index]
            row = total.setdefault((name, kind), [0.0, 0.0, 0.0, 0.0])
            for column, value in enumerate((node["energy_j"], *node["interval_j"], 1.0)):
                row[column] += value / count
    root = sum(p["energy_j"] for p in predictions) / count
    rows: list[dict[str, Any]] = [
        {
            "module": name,
            "kind": kind,
            "calls": round(calls, 3),
            "energy_j": energy,
            "interval_j": [low, high],
            "share": energy / root if root else 0.0,
            "measured_share": _finite(measured[name, kind] / whole) if whole else None,
        }
        for (name, kind), (energy, low, high, calls) in total.items()
    ]
    rows.sort(key=lambda row: -row["energy_j"])
    rest = root - sum(row["energy_j"] for row in rows)
    rows.append(
        {
            "module": "(not in these parts)",
            "kind": "rest",
            "calls": None,
            "energy_j": rest,
            "interval_j": None,
            "share": rest / root if root else 0.0,
            "measured_share": None,
        }
    )
    return rows


def _joules(label: float | None) -> float:
    """A label as a number that spoils every sum it is unknown in."""
    return math.nan if label is None else label


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
