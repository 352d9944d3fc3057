"""Trees as the arrays that the ONNX graph takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irene_build.export.law_graph import dtype_number, evaluates_law
from irene_runtime.law import ENERGY, TIME, Law
from irene_runtime.tree import CONDITIONS, LEVELS, ModelTree


def encode(estimator: Mapping[str, Any], trees: Sequence[ModelTree]) -> dict[str, np.ndarray]:
    """A forest in one set of arrays, trees one after the other: features float64 [N, F] (NaN = absent), primitive,
    parent and level int64 [N]; of an estimator with a law also conditions float64 [N, 3].

    With a law a tree gets its Host leaf, and features have what the law says; ``without_law`` leaves that to the graph.
    """
    law = Law(estimator["law"]) if estimator.get("law") else None
    conditions: list[list[float]] = []
    names = list(estimator["features"])
    numbers = {name: index for index, name in enumerate(estimator["primitives"])}
    features: list[list[float]] = []
    primitive: list[int] = []
    parent: list[int] = []
    level: list[int] = []
    for given in trees:
        tree = given if law is None else law.with_host(given)
        said: list[dict[str, float]] = [{}] * len(tree.nodes) if law is None else law.features(tree)
        if law is not None:
            head = [tree.header.get(key) for key in CONDITIONS]
            dtype = float(dtype_number(estimator, str(tree.header["dtype"])))
            own_conditions = [dtype, *(math.nan if value is None else float(value) for value in head)]
            conditions += [own_conditions] * len(tree.nodes)
        start = len(parent)
        batch, length = tree.header["batch_size"], tree.header["seq_len"]
        common: dict[str, float] = {}
        if batch is not None and length is not None:
            common = {
                "batch_size": float(batch),
                "seq_len": float(length),
                "input_size": float(batch) * length,
            }
        for node, more in zip(tree.nodes, said, strict=True):
            own = {**common, **node.features, **more}
            features.append([own.get(name, math.nan) for name in names])
            primitive.append(numbers.get(node.primitive or "", -1))
            parent.append(node.parent + start if node.parent >= 0 else -1)
            level.append(LEVELS.index(node.level))
    out = {
        "features": np.array(features, dtype=np.float64).reshape(len(parent), len(names)),
        "primitive": np.array(primitive, dtype=np.int64),
        "parent": np.array(parent, dtype=np.int64),
        "level": np.array(level, dtype=np.int64),
    }
    if evaluates_law(estimator):
        out["conditions"] = np.array(conditions, dtype=np.float64).reshape(len(parent), 3)
    return out


def without_law(estimator: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays, where the graph evaluates the law itself."""
    if not evaluates_law(estimator):
        return dict(arrays)
    features = arrays["features"].copy()
    features[:, [index for index, name in enumerate(estimator["features"]) if name in (TIME, ENERGY)]] = (
        math.nan
    )
    return {**arrays, "features": features}
