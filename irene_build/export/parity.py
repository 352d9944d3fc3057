"""When two engines agree: |difference| <= 16 eps * (sum of |terms|) at every node, and NaN in the same places.

``scales`` adds the absolute values of the terms, with the runtime's own formulas. Rounding in any order of summation,
and a libm that is off by an ulp, stay within a few eps of that sum; a wrong constant does not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from irene_build.export.law_graph import graph_features
from irene_build.export.tables import exponents
from irene_runtime.equations import (
    Aggregation,
    Column,
    Correction,
    Kernel,
    Leaf,
    Linear,
    Polynomial,
    Tier,
    distance,
    identity,
    pooled,
)
from irene_runtime.law import ENERGY, TIME
from irene_runtime.tree import LEVELS

EPS = float(np.finfo(np.float64).eps)
FACTOR = 16.0
ROOT_RELATIVE = 1e-12
#: How much what rounds inside the law counts in its seconds and joules: the host's gap L^4 / ((w + b)(w^2 + b^2)) has a
#: condition number of 4 in launching L and of 3 in the busy time b, and both are rounded sums over all leaves.
LAW_CONDITION = 8.0


@dataclass
class Scales:
    """float64 [N] each: the sum of |terms| of energy and leaf_energy in joules, of alpha, and of an interval's end
    relative to that end."""

    energy: np.ndarray
    ends: np.ndarray
    leaf_energy: np.ndarray
    alpha: np.ndarray

    def tolerance(self, output: str, values: np.ndarray) -> np.ndarray:
        """How far two engines' ``values`` of an output may be apart."""
        scale = self.ends * np.abs(values) if output in ("low", "high") else getattr(self, output)
        return FACTOR * EPS * np.asarray(scale)


@dataclass
class Deviation:
    """The largest difference between two engines. ``share``: of the tolerance that it used up (above 1: they disagree).

    ``absolute_j`` and ``relative`` are those of the same entry; ``root_relative`` is the largest at a root.
    """

    share: float = 0.0
    absolute: float = 0.0
    relative: float = 0.0
    root_relative: float = 0.0
    where: str = ""

    def worst(self, other: Deviation) -> Deviation:
        chosen = other if other.share > self.share else self
        return Deviation(
            chosen.share,
            chosen.absolute,
            chosen.relative,
            max(self.root_relative, other.root_relative),
            chosen.where,
        )

    @property
    def agrees(self) -> bool:
        return self.share <= 1.0


def compare(
    one: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    scales: Scales,
    parent: np.ndarray,
    where: str = "",
) -> Deviation:
    """Compare the outputs that both engines give; NaN in different places, or different flags, share = infinity.

    At a root the relative difference counts as well (1e-12), unless its terms cancel so far that no engine could.
    """
    worst = Deviation()
    for name in ("energy", "low", "high", "alpha", "leaf_energy"):
        if name not in one or name not in other:
            continue
        a, b = np.asarray(one[name], dtype=np.float64), np.asarray(other[name], dtype=np.float64)
        tolerance = scales.tolerance(name, b)
        both_nan = np.isnan(a) & np.isnan(b)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = np.where(both_nan | (a == b), 0.0, np.abs(a - b))
            share = np.where(difference == 0.0, 0.0, difference / tolerance)
            relative = np.where(difference == 0.0, 0.0, difference / np.abs(b))
        share = np.where(np.isnan(share), np.inf, share)
        root_relative = 0.0
        if name == "energy":
            roots = (parent < 0) & ~both_nan & (tolerance < ROOT_RELATIVE * np.abs(b))
            share = np.where(roots, np.maximum(share, relative / ROOT_RELATIVE), share)
            root_relative = float(np.max(relative[roots], initial=0.0))
        if not len(share):
            continue
        at = int(np.argmax(share))
        text = f"{where}{' ' if where else ''}{name} at node {at}"
        worst = worst.worst(
            Deviation(float(share[at]), float(difference[at]), float(relative[at]), root_relative, text)
        )
    if "flags" in one and "flags" in other:
        wrong = np.flatnonzero(np.asarray(one["flags"]) != np.asarray(other["flags"]))
        if len(wrong):
            worst = worst.worst(
                Deviation(np.inf, np.inf, np.inf, 0.0, f"{where} flags at node {int(wrong[0])}".strip())
            )
    return worst


class _Terms:
    """Sums of |terms| of a compiled tier's formulas, at the features of one node.

    A column counts by its magnitude: rounding moves a logarithm by eps even where it is 0. Sums and products of a few
    factors stay within the bound's 16 eps of these sums in any order; of a smooth function the argument's magnitude
    counts as well.
    """

    def __init__(self, own: Mapping[str, float]) -> None:
        self.own = own

    def column(self, column: Column) -> float:
        magnitude = abs(column(self.own)) + (0.0 if column.map is identity else 1.0)
        return magnitude * (LAW_CONDITION if column.uses & {TIME, ENERGY} else 1.0)

    def linear(self, linear: Linear) -> float:
        total = 0.0
        for _, (weight, mean, scale), columns in linear.terms:
            product = math.prod(self.column(column) for column in columns)
            total += abs(weight / scale) * (product + abs(mean))
        return total

    def smooth(self, function: Polynomial | Kernel) -> float:
        z = [(self.column(column) + abs(mean)) / abs(scale) for column, mean, scale in function.columns]
        if isinstance(function, Polynomial):
            monomials = exponents(len(z), len(function.degrees))
            parts = [math.prod(z[i] for i in monomial) for monomial in monomials]
            return abs(function.bias) + sum(abs(w) * x for w, x in zip(function.weights, parts, strict=True))
        absolute = copy.copy(function)
        absolute.weights, absolute.bias = [abs(w) for w in function.weights], abs(function.bias)
        away = sum(
            x / length + max(map(abs, centers), default=0.0)
            for x, length, centers in zip(z, function.lengths, function.centers, strict=True)
        )
        return absolute(self.own) * (1.0 + 2.0 * away if function.matern else (1.0 + away) ** 2)

    def factor(self, correction: Correction | None) -> tuple[float, float]:
        """A correction's factor, and its sum of |terms|."""
        if correction is None:
            return 1.0, 0.0
        factor = correction(self.own)
        return factor, factor * (1.0 + abs(correction.limit) + self.smooth(correction.function))

    def leaf(self, leaf: Leaf) -> tuple[float, float]:
        factor, noise = self.factor(leaf.correction)
        return leaf(self.own), self.linear(leaf.linear) * (factor + noise)

    def bent(self, tier: Tier, whose: str, leaf: tuple[float, float]) -> tuple[float, float]:
        """A leaf that is held near the law: as unsure as both, and its logarithms."""
        assert tier.bend is not None
        law = tier.fallback(self.own)
        if not (leaf[0] > 0.0 and law > 0.0):
            return leaf
        value = tier.bend(whose, leaf[0], law, distance(self.own, tier.ranges.get(whose, {})))
        shares = leaf[1] / leaf[0] + 2.0 * self.linear(tier.fallback.linear) / law
        logs = abs(math.log(leaf[0])) + abs(math.log(law))
        return value, value * (shares + 2.0 * logs + 20.0 + len(tier.ranges.get(whose, {})))

    def alpha(self, aggregation: Aggregation | None) -> tuple[float, float]:
        if aggregation is None:
            return 1.0, 0.0
        return aggregation(self.own), 1.0 + (1.0 + self.smooth(aggregation.polynomial)) / abs(aggregation.tau)


class _Local(NamedTuple):
    """(value, sum of |terms|) of what follows from one node's features alone."""

    leaf: tuple[float, float]
    factor: tuple[float, float]
    alpha: tuple[float, float]
    reading: tuple[float, float] | None
    pool: float


def _local(tier: Tier, level: str, primitive: str, is_leaf: bool, own: Mapping[str, float]) -> _Local:
    terms = _Terms(own)
    leaf = (0.0, 0.0)
    if is_leaf:
        form, whose, _ = tier.leaf_of(primitive)
        leaf = terms.leaf(form)
        if tier.bend is not None:
            leaf = terms.bent(tier, whose, leaf)
    factor = terms.factor(None if is_leaf else tier.correction.get(level))
    direct, reading = tier.direct.get(level), None
    if direct is not None and direct.linear.needs <= own.keys():
        reading = direct.linear(own), terms.linear(direct.linear)
    return _Local(leaf, factor, terms.alpha(tier.aggregation), reading, direct.pool if direct else 1.0)


_NAN = (math.nan, math.nan)
_NOT_FINITE = _Local(_NAN, _NAN, _NAN, None, 1.0)


def scales(estimator: Mapping[str, Any], name: str, arrays: Mapping[str, np.ndarray]) -> Scales:
    """The sum of |terms| of every output of one tier, for the arrays that the graph takes.

    A leaf's is that of its formula, a parent's the sum over its children of |alpha| times theirs.
    """
    tier = Tier(name, estimator["tiers"])
    primitives, parent = list(estimator["primitives"]), arrays["parent"].tolist()
    size = len(parent)
    is_leaf = np.ones(size, dtype=bool)
    is_leaf[[p for p in parent if p >= 0]] = False
    seen: dict[Any, _Local] = {}
    locals_: list[_Local] = []
    for n in range(size):
        number, level = int(arrays["primitive"][n]), LEVELS[int(arrays["level"][n])]
        primitive = primitives[number] if level == "ml" and 0 <= number < len(primitives) else ""
        key = (level, primitive, bool(is_leaf[n]), arrays["features"][n].tobytes())
        if key not in seen:
            row = zip(graph_features(estimator), arrays["features"][n].tolist(), strict=True)
            own = {feature: value for feature, value in row if not math.isnan(value)}
            try:
                seen[key] = _local(tier, level, primitive, bool(is_leaf[n]), own)
            except (OverflowError, ValueError):
                seen[key] = _NOT_FINITE
        locals_.append(seen[key])
    with np.errstate(all="ignore"):
        return _summed(tier, arrays, is_leaf, locals_)


def _summed(
    tier: Tier, arrays: Mapping[str, np.ndarray], is_leaf: np.ndarray, locals_: list[_Local]
) -> Scales:
    parent, size = arrays["parent"].tolist(), len(locals_)
    a, a_scale = np.array([i.leaf for i in locals_]).reshape(size, 2).T.copy()
    alpha, alpha_scale = np.array([i.alpha for i in locals_]).reshape(size, 2).T.copy()
    leaf_scale = np.where(is_leaf, a_scale, np.nan)
    p, p_scale = np.empty(size), np.empty(size)
    root = np.arange(size)
    for n in range(size - 1, -1, -1):
        (factor, noise), reading = locals_[n].factor, locals_[n].reading
        a[n], a_scale[n] = a[n] * factor, a_scale[n] * (factor + noise)
        p[n], p_scale[n] = a[n], a_scale[n]
        if reading is not None:
            p[n], p_scale[n] = reading
            if a[n] > 0.0 and reading[0] > 0.0:
                rest, omega = 1.0 - locals_[n].pool, locals_[n].pool
                p[n] = pooled(a[n], reading[0], omega)
                p_scale[n] = p[n] * (2.0 + rest * a_scale[n] / a[n] + omega * reading[1] / reading[0])
        if parent[n] >= 0:
            a[parent[n]] += alpha[n] * p[n]
            a_scale[parent[n]] += (abs(alpha[n]) + alpha_scale[n]) * p_scale[n]
        else:
            alpha_scale[n] = 0.0
    for n in range(size):
        root[n] = root[parent[n]] if parent[n] >= 0 else n
        gamma, top = tier.gamma.get(LEVELS[int(arrays["level"][n])]), root[n]
        ratio = p[top] / a[top] if locals_[top].reading is not None and a[top] else 0.0
        if parent[n] >= 0 and gamma is not None and ratio > 0.0:
            noise = 1.0 + abs(gamma) * (p_scale[top] / abs(p[top]) + a_scale[top] / abs(a[top]) + 1.0)
            p[n] = a[n] * ratio**gamma
            p_scale[n] = (a_scale[n] + abs(a[n]) * noise) * ratio**gamma
    # An end is P exp(half): half is at most 16, and its distance sums one logarithm per range.
    ranges = max([len(r) for r in tier.ranges.values()] + [0])
    ends = np.where(p == 0.0, 0.0, p_scale / np.abs(p)) + 20.0 + ranges
    return Scales(p_scale, ends, leaf_scale, alpha_scale)
