"""A tier's numbers as stacked arrays: one row a primitive (or level), so that the graph gathers instead of branching.

Rows are padded: a missing factor points to a column of ones, a missing term or centre has weight 0. Padding
therefore adds an exact 0 or multiplies by an exact 1, never changes a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from irene_build.errors import EstimatorError
from irene_build.export.functions import TINY
from irene_runtime.equations import coordinates
from irene_runtime.tree import LEVELS

MAPS = ("identity", "log", "log1p", "inverse", "ceil_div")


def resolved(estimator: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A tier with what it takes from its ``base`` (FORMAT.md, Changes 4)."""
    tier = estimator["tiers"][name]
    return {**estimator["tiers"][tier["base"]], **tier} if "base" in tier else dict(tier)


@dataclass
class ColumnGroup:
    """Columns that are made by one map in one step: ``map(product of sources)``.

    ``wave``: groups of one wave need nothing of each other, only of earlier waves. ``factors``: int64[k, c], per factor
    the sources among the columns made so far. ``by``: float64[c].
    """

    wave: int
    kind: str
    factors: np.ndarray
    by: np.ndarray


def closure(columns: Sequence[Mapping[str, Any]], used: Iterable[int]) -> list[int]:
    """The columns ``used`` and those that they are products of, in ascending order."""
    found: set[int] = set()
    waiting = list(used)
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += columns[index].get("of", [])
    return sorted(found)


def features_of(columns: Sequence[Mapping[str, Any]], used: Iterable[int]) -> set[str]:
    """The raw features that the columns ``used`` are made of."""
    return {columns[i]["feature"] for i in closure(columns, used) if "of" not in columns[i]}


class Columns:
    """The order in which the graph makes those of a tier's columns that are ``used``.

    Position 0..F-1 are the raw features, F is the column of ones; every group appends its columns.
    ``position[i]`` is where column ``i`` of the tier stands.
    """

    def __init__(
        self, columns: Sequence[Mapping[str, Any]], features: Sequence[str], used: Iterable[int]
    ) -> None:
        self.ones = len(features)
        self.groups: list[ColumnGroup] = []
        self.position: dict[int, int] = {}
        feature_at = {name: index for index, name in enumerate(features)}
        size = self.ones + 1
        waiting = closure(columns, used)
        wave = 0
        while waiting:
            ready = [
                i
                for i in waiting
                if "of" not in columns[i] or all(o in self.position for o in columns[i]["of"])
            ]
            if not ready:
                raise EstimatorError(f"columns {waiting}: their products refer to each other")
            placed: dict[int, int] = {}
            for kind in MAPS:
                chosen = [i for i in ready if columns[i].get("map", "identity") == kind]
                sources: list[list[int]] = []
                made: list[int] = []
                for index in chosen:
                    column = columns[index]
                    if "of" in column:
                        source = [self.position[o] for o in column["of"]]
                    else:
                        source = [feature_at[column["feature"]]]
                    if kind == "identity" and len(source) == 1:
                        placed[index] = source[0]
                        continue
                    sources.append(source)
                    made.append(index)
                if made:
                    factors = padded_table(sources, self.ones)
                    by = np.array([float(columns[i].get("by", 1.0)) for i in made])
                    self.groups.append(ColumnGroup(wave, kind, factors, by))
                    for index in made:
                        placed[index] = size
                        size += 1
            unknown = [columns[i].get("map") for i in ready if i not in placed]
            if unknown:
                raise EstimatorError(f"unknown map {unknown[0]!r} of a column; known are {', '.join(MAPS)}")
            self.position.update(placed)
            waiting = [i for i in waiting if i not in placed]
            wave += 1

    def picks(self, columns: Sequence[int]) -> list[int]:
        return [self.position[index] for index in columns]


def padded_table(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    """int64[k, n]: the k-th entry of every row, ``fill`` where a row is shorter; k is at least 1."""
    width = max([len(row) for row in rows] + [1])
    return np.array(
        [[row[k] if k < len(row) else fill for row in rows] for k in range(width)], dtype=np.int64
    )


@dataclass
class LinearTable:
    """Rows of ``sum weight * (product - mean) / scale``.

    ``factors``: list of int64[rows, terms], one table per factor of a product. The rest: float64[rows, terms],
    ``floor`` float64[rows], minus infinity where there is none.
    """

    factors: list[np.ndarray]
    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    floor: np.ndarray


def linear_table(rows: Sequence[Mapping[str, Any] | None], columns: Columns) -> LinearTable:
    """Stack linear forms; None is a row that gives 0."""
    width = max([len(row["terms"]) for row in rows if row is not None] + [1])
    order = max([len(t["columns"]) for row in rows if row is not None for t in row["terms"]] + [1])
    shape = (len(rows), width)
    factors = [np.full(shape, columns.ones, dtype=np.int64) for _ in range(order)]
    mean, scale, weight = np.zeros(shape), np.ones(shape), np.zeros(shape)
    floor = np.full(len(rows), -np.inf)
    for r, row in enumerate(rows):
        if row is None:
            continue
        if row.get("floor") is not None:
            floor[r] = row["floor"]
        for t, term in enumerate(row["terms"]):
            for k, position in enumerate(columns.picks(term["columns"])):
                factors[k][r, t] = position
            mean[r, t], scale[r, t] = term.get("mean", 0.0), term.get("scale", 1.0)
            weight[r, t] = term["weight"]
    return LinearTable(factors, mean, scale, weight, floor)


@dataclass
class KernelTable:
    """Corrections of one kernel. ``rows``: which rows have it (bool). ``picks``: int64[rows, dims].

    ``mean``, ``scale``: float64[rows, dims] (scale holds the kernel's length as well for matern32 and rbf).
    ``centres``: float64[rows, dims, centres], over length; None for poly. ``factors``: for poly, per factor int64[rows,
    monomials] into the dimensions (dims = the ones). ``weight``: float64[rows, m]; ``bias``, ``limit``: float64[rows].
    """

    kernel: str
    rows: np.ndarray
    picks: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    centres: np.ndarray | None
    factors: list[np.ndarray]
    weight: np.ndarray
    bias: np.ndarray
    limit: np.ndarray


def kernel_tables(corrections: Sequence[Mapping[str, Any] | None], columns: Columns) -> list[KernelTable]:
    """One table per kind of kernel that occurs."""
    out = []
    for kernel in ("poly", "matern32", "rbf"):
        has = np.array([c is not None and c["kernel"] == kernel for c in corrections], dtype=bool)
        if has.any():
            out.append(_kernel_table(kernel, has, corrections, columns))
    unknown = [
        c["kernel"] for c in corrections if c is not None and c["kernel"] not in ("poly", "matern32", "rbf")
    ]
    if unknown:
        raise EstimatorError(f"unknown kernel {unknown[0]!r} of a correction; known are poly, matern32, rbf")
    return out


def _kernel_table(
    kernel: str, has: np.ndarray, corrections: Sequence[Mapping[str, Any] | None], columns: Columns
) -> KernelTable:
    chosen = [(r, c) for r, c in enumerate(corrections) if c is not None and has[r]]
    count = len(corrections)
    dims = max([len(c["columns"]) for _, c in chosen] + [1])
    width = max([len(c["weights"]) for _, c in chosen] + [1])
    picks = np.full((count, dims), columns.ones, dtype=np.int64)
    mean, scale = np.ones((count, dims)), np.ones((count, dims))
    weight, bias, limit = np.zeros((count, width)), np.zeros(count), np.ones(count)
    centres = np.zeros((count, dims, width)) if kernel != "poly" else None
    order = max([int(c["degree"]) for _, c in chosen]) if kernel == "poly" else 0
    factors = [np.full((count, width), dims, dtype=np.int64) for _ in range(order)]
    for r, c in chosen:
        n = len(c["columns"])
        picks[r, :n] = columns.picks(c["columns"])
        mean[r, :n], scale[r, :n] = c["mean"], c.get("scale") or 1.0
        weight[r, : len(c["weights"])] = c["weights"]
        bias[r], limit[r] = c.get("bias", 0.0), c["limit"]
        if centres is None:
            monomials = exponents(n, int(c["degree"]))
            if len(monomials) != len(c["weights"]):
                raise EstimatorError(
                    f"a polynomial of {n} columns needs {len(monomials)} weights, not {len(c['weights'])}"
                )
            for m, chosen_columns in enumerate(monomials):
                for k, index in enumerate(chosen_columns):
                    factors[k][r, m] = index
        else:
            scale[r, :n] *= c["length"]
            for d, values in enumerate(coordinates(c)):
                centres[r, d, : len(values)] = np.array(values) / c["length"][d]
    return KernelTable(kernel, has, picks, mean, scale, centres, factors, weight, bias, limit)


def centre_lines(centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres float64[dims, m] by the distinct coordinates that they have: these, one dimension after the other, of
    which dimension each is, and int64[dims, m]: which of them each centre has."""
    lines: list[np.ndarray] = []
    at = np.empty(centres.shape, dtype=np.int64)
    for d, row in enumerate(centres):
        found, place = np.unique(row, return_inverse=True)
        at[d] = place + sum(map(len, lines))
        lines.append(found)
    dim = np.repeat(np.arange(len(lines)), list(map(len, lines)))
    return np.concatenate(lines), dim, at


def exponents(columns: int, degree: int) -> list[tuple[int, ...]]:
    """The monomials of FORMAT.md: by degree, in ``combinations_with_replacement`` order, without the constant."""
    return [c for d in range(1, degree + 1) for c in combinations_with_replacement(range(columns), d)]


@dataclass
class Polynomial:
    """A polynomial as ``sum_k z_k (sum_m weight[k, m] * monomial_m)``, z with a last entry of 1.

    ``steps``: one pair of int64 arrays a degree from 2 to degree - 1: which monomials so far and which z make the next
    ones. ``weight``: float64[columns + 1, monomials] (one monomial, the constant 1, at degree 1).
    """

    steps: list[tuple[np.ndarray, np.ndarray]]
    weight: np.ndarray


def polynomial(weights: Sequence[float], bias: float, columns: int, degree: int) -> Polynomial:
    """Weights in the order of FORMAT.md, arranged so that degree - 1 factors are shared by one matrix product."""
    monomials = exponents(columns, degree)
    if len(monomials) != len(weights):
        raise EstimatorError(
            f"a polynomial of {columns} columns needs {len(monomials)} weights, not {len(weights)}"
        )
    ones = columns
    longest: list[tuple[int, ...]] = [(k,) for k in range(columns + 1)] if degree > 1 else [()]
    steps = []
    for _ in range(degree - 2):
        where = {monomial: index for index, monomial in enumerate(longest)}
        longest = [(*m, k) for m in longest for k in range(m[-1], columns + 1)]
        steps.append((np.array([where[m[:-1]] for m in longest]), np.array([m[-1] for m in longest])))
    where = {monomial: index for index, monomial in enumerate(longest)}
    weight = np.zeros((columns + 1, len(longest)))
    for monomial, value in [*zip(monomials, weights, strict=True), ((), bias)]:
        full = (*monomial, *[ones] * (degree - len(monomial)))
        weight[full[-1], where[full[:-1]]] = value
    return Polynomial(steps, weight)


@dataclass
class Kinds:
    """What a tier holds for every kind of node, one row each: unknown primitive, the primitives, unknown primitive,
    module, model, module and model without children.

    ``leaves``: the leaf that the kind takes, None for nodes with children. ``flag``: int64[kinds], 2 where it was
    never calibrated. ``names``: the raw features that have a range anywhere. ``low``, ``high``: float64[kinds,
    names], 0 and infinity where there is none. ``whose``: the primitive whose leaf that is, empty for none.
    """

    leaves: list[Mapping[str, Any] | None]
    flag: np.ndarray
    names: list[str]
    low: np.ndarray
    high: np.ndarray
    whose: list[str]
    _levels: list[str]
    _keys: list[str | None]

    def forms(self) -> tuple[list[Mapping[str, Any]], np.ndarray]:
        """The distinct leaves, and int64[kinds]: which of them a kind takes (any, where a kind has children)."""
        distinct: list[Mapping[str, Any]] = []
        form_of = np.zeros(len(self.leaves), dtype=np.int64)
        for kind, leaf in enumerate(self.leaves):
            if leaf is None:
                continue
            found = [index for index, other in enumerate(distinct) if other is leaf]
            if not found:
                distinct.append(leaf)
            form_of[kind] = found[0] if found else len(distinct) - 1
        return distinct, form_of

    def widths(self, interval: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """q, what takes its place at nodes of unknown kinds, and slope; float64[kinds] each."""
        own = interval.get("primitives", {})
        entries = [
            own.get(k, interval["levels"][level]) for k, level in zip(self._keys, self._levels, strict=True)
        ]
        return (
            np.array([float(e["q"]) for e in entries]),
            np.array([float(e.get("far", e["q"])) for e in entries]),
            np.array([float(e.get("slope", 0.0)) for e in entries]),
        )


def kinds(estimator: Mapping[str, Any], tier: Mapping[str, Any]) -> Kinds:
    """Stack what a (resolved) tier says about primitives and levels."""
    primitives, features = list(estimator["primitives"]), list(estimator["features"])
    leaf, stand_in = tier["leaf"], tier.get("stand_in", {})
    ranges = tier.get("ranges", {})
    names: list[str | None] = [None, *primitives, None, "module", "model", "module", "model"]
    levels = [LEVELS[0]] * (len(primitives) + 2) + ["module", "model"] * 2
    leaves: list[Mapping[str, Any] | None] = []
    whose: list[str] = []
    keys: list[str | None] = []
    named = sorted({f for r in ranges.values() for f in r}, key=features.index)
    low, high = np.zeros((len(names), len(named))), np.full((len(names), len(named)), np.inf)
    for row, (name, level) in enumerate(zip(names, levels, strict=True)):
        inner = len(primitives) + 2 <= row < len(primitives) + 4
        calibrated = level == LEVELS[0] and name in leaf
        leaves.append(None if inner else leaf.get(name) or leaf.get(stand_in.get(name)) or tier["fallback"])
        whose.append(str(name) if name in leaf else stand_in.get(name, ""))
        keys.append(None if inner else name if calibrated else "fallback")
        chosen = ranges.get(name) if inner or calibrated else ranges.get(stand_in.get(name))
        for feature, (bottom, top) in (chosen or {}).items():
            low[row, named.index(feature)], high[row, named.index(feature)] = (
                max(bottom, TINY),
                max(top, TINY),
            )
    flag = np.array([2 if key == "fallback" else 0 for key in keys], dtype=np.int64)
    return Kinds(leaves, flag, named, low, high, whose, levels, keys)
