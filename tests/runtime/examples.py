"""A small estimator and tree whose numbers can be worked out by hand."""

from __future__ import annotations

import copy
from typing import Any

from irene_runtime.tree import ModelTree, Node

LEVELS = ("ml", "module", "model")
_COLUMNS = [
    {"feature": "flops", "map": "identity"},
    {"feature": "mem_bytes", "map": "identity"},
    {"feature": "latency", "map": "identity"},
    {"feature": "gpu_energy", "map": "identity"},
]


def term(
    name: str, columns: list[int], weight: float, mean: float = 0.0, scale: float = 1.0
) -> dict[str, Any]:
    return {"name": name, "columns": columns, "weight": weight, "mean": mean, "scale": scale}


def _leaf(*weights: float) -> dict[str, Any]:
    terms = [term("launch", [], weights[0]), term("flops", [0], weights[1]), term("bytes", [1], weights[2])]
    return {"terms": terms, "floor": 0.0, "correction": None}


def reading(pool: float) -> dict[str, Any]:
    """D = 2 g + 100 W t."""
    return {"terms": [term("gpu", [3], 2.0), term("time", [2], 100.0)], "pool": pool, "floor": 0.0}


def estimator(**changes: Any) -> dict[str, Any]:
    """Linear: 1 J + 0.5 J per 1e6 FLOP + 0.25 J per MiB; Softmax: bytes only; the rest: the fallback."""
    interval = {
        "levels": {level: {"q": 0.1, "slope": 1.0} for level in LEVELS},
        "primitives": {"fallback": {"q": 0.7, "slope": 0.0}},
    }
    static = {
        "columns": _COLUMNS,
        "leaf": {"Linear": _leaf(1.0, 0.5, 0.25), "Softmax": _leaf(0.0, 0.0, 1.0)},
        "fallback": _leaf(0.1, 0.1, 0.1),
        "aggregation": None,
        "direct": {},
        "rescale": {},
        "interval": interval,
        "ranges": {"Linear": {"flops": [1.0, 10.0]}},
    }
    data: dict[str, Any] = {
        "format": "irene-estimator",
        "version": 1,
        "hardware": "pc",
        "method": "best",
        "boundary": "wall",
        "provenance": "measured",
        "label_source": "emonpi",
        "cost_model": "analytic",
        "attention": "eager",
        "created_by": {},
        "fingerprint": {},
        "features": ["flops", "mem_bytes", "latency", "gpu_energy"],
        "primitives": ["Linear", "Softmax"],
        "trained_on": {"models": ["m"], "trees": 1, "nodes": 5, "distinct": 5},
        "tiers": {
            "static": static,
            "live": {
                "base": "static",
                "direct": {"model": reading(1.0)},
                "rescale": {"ml": 0.5, "module": 1.0},
            },
            "profile": {"base": "static", "direct": {level: reading(0.5) for level in LEVELS}},
        },
        "evaluation": {"static": {"model-out": {"model": {"mape": 1.5, "coverage90": 0.9, "n": 5}}}},
    }
    data.update(changes)
    return copy.deepcopy(data)


def tree(**header: Any) -> ModelTree:
    """Root - block - (Linear, Softmax), and a Linear beside the block."""
    nodes = [
        Node("", "Net", "model", -1, features={"flops": 7.0, "mem_bytes": 14.0}),
        Node("block", "Block", "module", 0, features={"flops": 4.0, "mem_bytes": 12.0}),
        Node("block.fc", "Linear", "ml", 1, "Linear", features={"flops": 4.0, "mem_bytes": 4.0}),
        Node("block", "softmax", "ml", 1, "Softmax", features={"flops": 0.0, "mem_bytes": 8.0}),
        Node("head", "Linear", "ml", 0, "Linear", features={"flops": 3.0, "mem_bytes": 2.0}),
    ]
    return ModelTree(nodes, {"model": "net", "batch_size": 8, "seq_len": 128, **header})
