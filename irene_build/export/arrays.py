"""Trees as the arrays that the ONNX graph takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irene_runtime.tree import LEVELS, ModelTree


def encode(estimator: Mapping[str, Any], trees: Sequence[ModelTree]) -> dict[str, np.ndarray]:
    """A forest in one set of arrays, trees one after the other: features float64 [N, F] (NaN = absent), primitive,
    parent and level int64 [N]."""
    names = list(estimator["features"])
    numbers = {name: index for index, name in enumerate(estimator["primitives"])}
    features: list[list[float]] = []
    primitive: list[int] = []
    parent: list[int] = []
    level: list[int] = []
    for tree in trees:
        start = len(parent)
        batch, length = tree.header["batch_size"], tree.header["seq_len"]
        common: dict[str, float] = {}
        if batch is not None and length is not None:
            common = {
                "batch_size": float(batch),
                "seq_len": float(length),
                "input_size": float(batch) * length,
            }
        for node in tree.nodes:
            own = {**common, **node.features}
            features.append([own.get(name, math.nan) for name in names])
            primitive.append(numbers.get(node.primitive or "", -1))
            parent.append(node.parent + start if node.parent >= 0 else -1)
            level.append(LEVELS.index(node.level))
    return {
        "features": np.array(features, dtype=np.float64).reshape(len(parent), len(names)),
        "primitive": np.array(primitive, dtype=np.int64),
        "parent": np.array(parent, dtype=np.int64),
        "level": np.array(level, dtype=np.int64),
    }
