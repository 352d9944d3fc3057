"""Estimators and trees for these tests: small, and with every form of the format."""

from __future__ import annotations

import json
from typing import Any

from irene_runtime.tree import ModelTree
from tests.strategies import Forms, Shape
from tests.strategies import estimator as random_estimator
from tests.strategies import tree as random_tree

EVERYTHING = Forms(
    seed=7, products=True, maps=True, floor=True, kernels=("poly", "matern32", "rbf"), degree=3,
    level_corrections=True, direct=True, ranges=True, stand_in=True, simulated=False,
    tiers=("static", "live", "profile"), resource_leaves=False,
)  # fmt: skip
PAPER = Forms(
    seed=3, products=False, maps=False, floor=False, kernels=(), degree=3, level_corrections=False, direct=False,
    ranges=True, stand_in=False, simulated=True, tiers=("static", "profile"), resource_leaves=True,
)  # fmt: skip


def estimator(forms: Forms = EVERYTHING) -> dict[str, Any]:
    """An estimator as it comes from its file."""
    data: dict[str, Any] = json.loads(json.dumps(random_estimator(forms)))
    return data


def trees(data: dict[str, Any], count: int = 1) -> dict[str, ModelTree]:
    """Trees that the estimator can predict, by file name."""
    shape = {
        "nodes": 30,
        "resources": "none",
        "unknown_primitives": True,
        "childless_modules": True,
        "outside": 0.3,
    }
    return {
        f"tree-{seed}.json": random_tree(data["features"], data["primitives"], Shape(seed=seed, **shape))  # type: ignore[arg-type]
        for seed in range(count)
    }
