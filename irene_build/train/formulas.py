"""FORMAT.md's formulas over rows of features, in numpy: columns, terms, kernels, leaves, alphas.

What a fit evaluates while it searches is the very code that predicts with the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from irene_build.errors import EstimatorError
from irene_runtime.equations import coordinates

TINY = 1e-9


def mapped(x: np.ndarray, kind: str, by: float) -> np.ndarray:
    """A column's map (FORMAT.md, COLUMN)."""
    if kind == "identity":
        return x
    if kind == "log":
        return np.log(np.maximum(x, TINY))
    if kind == "log1p":
        return np.log1p(x)
    if kind == "ceil_div":
        return np.ceil(x / by)
    if kind == "inverse":
        return 1.0 / np.maximum(x, TINY)
    raise EstimatorError(f"unknown map {kind!r} of a column")


class Columns:
    """The columns of a tier over the rows of a feature matrix, made when asked for."""

    def __init__(
        self, columns: Sequence[Mapping[str, Any]], names: Sequence[str], features: np.ndarray
    ) -> None:
        self._columns, self._features = columns, features
        self._names = {name: index for index, name in enumerate(names)}
        self._made: dict[int, np.ndarray] = {}

    @property
    def rows(self) -> int:
        return len(self._features)

    def __getitem__(self, index: int) -> np.ndarray:
        if index not in self._made:
            column = self._columns[index]
            if "of" in column:
                x = np.ones(self.rows)
                for other in column["of"]:
                    x = x * self[other]
            else:
                x = self._features[:, self._names[column["feature"]]]
            self._made[index] = mapped(x, column.get("map", "identity"), float(column.get("by", 1.0)))
        return self._made[index]

    def z(self, data: Mapping[str, Any]) -> np.ndarray:
        """float64[rows, columns]: (column - mean) / scale."""
        columns = [
            (self[c] - m) / s
            for c, m, s in zip(
                data["columns"], data["mean"], data.get("scale") or [1.0] * len(data["mean"]), strict=True
            )
        ]
        return np.column_stack(columns) if columns else np.empty((self.rows, 0))


def linear(terms: Sequence[Mapping[str, Any]], floor: float | None, columns: Columns) -> np.ndarray:
    """Sum of weight * (product - mean) / scale, not below ``floor``; NaN where a feature is not known."""
    total = np.zeros(columns.rows)
    for term in terms:
        product = np.ones(columns.rows)
        for index in term["columns"]:
            product = product * columns[index]
        total = total + term["weight"] * ((product - term.get("mean", 0.0)) / term.get("scale", 1.0))
    return total if floor is None else np.maximum(total, floor)


def monomials(z: np.ndarray, degree: int) -> np.ndarray:
    """float64[rows, monomials] in ``combinations_with_replacement`` order by degree, without the constant."""
    columns = []
    for d in range(1, degree + 1):
        for chosen in combinations_with_replacement(range(z.shape[1]), d):
            product = z[:, chosen[0]]
            for index in chosen[1:]:
                product = product * z[:, index]
            columns.append(product)
    return np.column_stack(columns) if columns else np.empty((len(z), 0))


def kernel(kind: str, z: np.ndarray, centers: np.ndarray, length: np.ndarray) -> np.ndarray:
    """float64[rows, centers]: Matern 3/2 or Gaussian kernel of the scaled distance."""
    difference = z[:, None, :] / length - centers[None, :, :] / length
    square = np.einsum("ijk,ijk->ij", difference, difference)
    if kind == "rbf":
        return np.exp(-0.5 * square)
    r = np.sqrt(3.0) * np.sqrt(square)
    return np.asarray((1.0 + r) * np.exp(-r))


def correction(data: Mapping[str, Any] | None, columns: Columns) -> np.ndarray:
    """The factor exp(limit * tanh(correction / limit)); ones where there is none."""
    if data is None:
        return np.ones(columns.rows)
    z, bias = columns.z(data), data.get("bias", 0.0)
    if data["kernel"] == "poly":
        value = bias + monomials(z, data["degree"]) @ np.asarray(data["weights"], dtype=np.float64)
    else:
        centers = np.asarray(coordinates(data), dtype=np.float64).reshape(z.shape[1], -1).T
        k = kernel(data["kernel"], z, centers, np.asarray(data["length"], dtype=np.float64))
        value = bias + k @ np.asarray(data["weights"], dtype=np.float64)
    return np.asarray(np.exp(data["limit"] * np.tanh(value / data["limit"])))


def leaf(data: Mapping[str, Any], columns: Columns) -> np.ndarray:
    """Equation 1 for one primitive: float64[rows], joules."""
    return linear(data["terms"], data.get("floor"), columns) * correction(data.get("correction"), columns)


def bent(
    tier: Mapping[str, Any], whose: str, learned_j: np.ndarray, law_j: np.ndarray, away: np.ndarray
) -> np.ndarray:
    """``learned_j``, bent back to ``law_j`` (FORMAT.md, BEND). float64[rows] each; ``away``: log units."""
    data = tier.get("bend")
    if data is None:
        return learned_j
    limit = data.get("limits", {}).get(whose, data["limit"])
    with np.errstate(invalid="ignore", divide="ignore"):
        log_ratio = np.clip(np.log(learned_j) - np.log(law_j), -limit, limit)
        bent_j = law_j * np.exp(log_ratio / (1.0 + away / data["reach"]))
    return np.asarray(np.where((learned_j > 0.0) & (law_j > 0.0), bent_j, learned_j))


def alphas(data: Mapping[str, Any] | None, columns: Columns) -> np.ndarray:
    """Equation 3: alpha of every row."""
    if data is None:
        return np.ones(columns.rows)
    z = monomials(columns.z(data), data["degree"])
    return 1.0 + np.tanh(z @ np.asarray(data["weights"], dtype=np.float64) + data["bias"]) / data["tau"]


def is_far(data: Mapping[str, Any], columns: Columns) -> np.ndarray:
    """bool[rows]: modules of no known kind (FORMAT.md, INTERVAL ``kinds``)."""
    own = np.column_stack([columns[c] for c in data["columns"]])
    points = np.asarray(data["points"], dtype=np.float64)
    near = (np.abs(own[:, None, :] - points[None, :, :]) <= data["reach"]).all(axis=2)
    return np.asarray(~near.any(axis=1))
