"""Trees as the arrays that the ONNX graph takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irene_build.errors import TreeError
from irene_build.export.law_graph import dtype_number, evaluates_law, graph_features
from irene_runtime.expressions import (
    MONOMIALS,
    ExpectedExperts,
    MeanOfBytes,
    PolynomialOfSizes,
    monomials,
)
from irene_runtime.law import ENERGY, TIME, Law
from irene_runtime.symbolic import SymbolicTree
from irene_runtime.tree import CONDITIONS, LEVELS, ModelTree


def encode(estimator: Mapping[str, Any], trees: Sequence[ModelTree]) -> dict[str, np.ndarray]:
    """A forest in one set of arrays, trees one after the other: features float64 [N, F] (NaN = absent), primitive,
    parent and level int64 [N]; of an estimator with a law also conditions float64 [N, 3].

    With a law a tree gets its Host leaf, and features have what the law says; ``without_law`` leaves that to the graph.
    """
    law = Law(estimator["law"]) if estimator.get("law") else None
    conditions: list[list[float]] = []
    names = graph_features(estimator)
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
    features[:, [index for index, name in enumerate(graph_features(estimator)) if name in (TIME, ENERGY)]] = (
        math.nan
    )
    return {**arrays, "features": features}


def encode_symbolic(
    estimator: Mapping[str, Any],
    tree: SymbolicTree,
    sizes: Sequence[tuple[int, int, int]],
    phase: str | None = None,
) -> dict[str, np.ndarray]:
    """A symbolic tree at ``sizes`` (batch, tokens, cached tokens) as the graph's inputs, for one call.

    Adds coefficients float64 [N, F, K] and monomials float64 [S, K] to the arrays of the tree. K: the monomials of
    ``irene_runtime.expressions`` and one for each expression that is none of them (expected experts, a mean of bytes).
    Raises TreeError for sizes that the tree does not hold, or that have not one section.
    """
    full = [tree.size(*size, phase) for size in sizes]
    sections = {id(found): found for found in (tree.section(*size) for size in full)}
    if len(sections) != 1:
        raise TreeError(
            f"these sizes lie in {len(sections)} sections of the tree: one call holds those of one"
        )
    (section,) = sections.values()
    at = [monomials(*size[1:]) for size in full]
    blocks, wanted = tree.used(section.root)
    odd = [i for i in wanted if isinstance(tree.expressions[i], (ExpectedExperts, MeanOfBytes))]
    width = len(MONOMIALS) + len(odd)
    rows = {i: _row(tree.expressions[i], odd.index(i) if i in odd else None, width) for i in wanted}
    raw: Any = {b: {name: rows[i] for name, i in tree.blocks[b].features.items()} for b in blocks}
    folded = tree.assembled(section.root, raw)
    known: list[Any] = [n.features for n in folded.nodes]
    plain = tree.at(*full[0][1:], full[0][0])
    arrays = encode(estimator, [plain])
    names, places = graph_features(estimator), [place.block for place in folded.places]
    coefficients = np.zeros((len(arrays["parent"]), len(names), width))
    for name, vector in _sized(width).items():
        coefficients[:, [index for index, other in enumerate(names) if other == name]] = vector
    for node, block in enumerate(places):
        for column, name in enumerate(names):
            if name in known[block]:
                coefficients[node, column] = known[block][name]
    features = np.where(np.isnan(without_law(estimator, arrays)["features"]), np.nan, 0.0)
    values = [
        [float(m[name]) for name in MONOMIALS] + [float(_value(tree.expressions[i], m)) for i in odd]
        for m in at
    ]
    out = {**arrays, "features": features, "coefficients": coefficients, "monomials": np.array(values)}
    if "conditions" in arrays:
        out["conditions"] = arrays["conditions"][:1]
    return out


def _row(expression: Any, odd: int | None, width: int) -> np.ndarray:
    """What every monomial adds, before units."""
    out = np.zeros(width)
    if odd is not None:
        out[len(MONOMIALS) + odd] = 1.0
    elif isinstance(expression, PolynomialOfSizes):
        for name, factor in expression.terms:
            out[MONOMIALS.index(name)] += factor / expression.denominator
    else:
        out[MONOMIALS.index("1")] = expression
    return out


def _value(expression: Any, at: Mapping[str, int]) -> float:
    value: float = expression(at)
    return value


def _sized(width: int) -> dict[str, np.ndarray]:
    """The features that a size gives to every node."""
    by = {"batch_size": "b", "seq_len": "s", "input_size": "bs"}
    return {name: np.eye(1, width, MONOMIALS.index(monomial))[0] for name, monomial in by.items()}
