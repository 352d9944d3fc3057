"""When two engines agree: |difference| <= 16 eps * (sum of |terms|) at every node, and NaN in the same places.

``scales`` evaluates FORMAT.md once more, carrying beside each value the sum of the absolute values of the terms that
made it (a smooth function adds its derivative times the scale of its argument). Rounding in any order of summation,
and a libm that is off by an ulp, stay within a few eps of that sum; a wrong constant does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.export.tables import exponents, resolved
from irene_runtime.equations import coordinates
from irene_runtime.features import MODEL_FEATURES
from irene_runtime.tree import LEVELS

EPS = float(np.finfo(np.float64).eps)
FACTOR = 16.0
ROOT_RELATIVE = 1e-12
_TINY = 1e-9


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


class _Columns:
    """Values of a tier's columns and how uncertain they are, in eps (0: every engine computes the same bits)."""

    def __init__(self, tier: Mapping[str, Any], names: list[str], features: np.ndarray) -> None:
        self.value: list[np.ndarray] = []
        self.noise: list[np.ndarray] = []
        with np.errstate(all="ignore"):
            for column in tier["columns"]:
                if "of" in column:
                    x, noise = self.product(column["of"], len(features))
                else:
                    x, noise = features[:, names.index(column["feature"])], np.zeros(len(features))
                kind = column.get("map", "identity")
                raised = np.where(x < _TINY, _TINY, x)
                if kind == "log":
                    y = np.log(raised)
                    noise = np.abs(y) + noise / raised
                elif kind == "log1p":
                    y = np.log1p(x)
                    noise = 2.0 * np.abs(y) + noise / (1.0 + x)
                elif kind == "inverse":
                    y = 1.0 / raised
                    noise = y + noise / raised**2
                elif kind == "ceil_div":
                    y = np.ceil(x / float(column["by"]))
                else:
                    y = x
                self.value.append(y)
                self.noise.append(noise)

    def product(self, columns: list[int], rows: int) -> tuple[np.ndarray, np.ndarray]:
        value, noise = np.ones(rows), np.zeros(rows)
        for index in columns:
            other, other_noise = self.value[index], self.noise[index]
            noisy = (noise > 0.0) | (other_noise > 0.0)
            noise = (
                np.abs(value) * other_noise
                + np.abs(other) * noise
                + np.where(noisy, np.abs(value * other), 0.0)
            )
            value = value * other
        return value, noise

    def rows(self, chosen: np.ndarray) -> _Columns:
        out = object.__new__(_Columns)
        out.value = [v[chosen] for v in self.value]
        out.noise = [n[chosen] for n in self.noise]
        return out

    def z(self, data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        value, noise = [], []
        for index, mean, scale in zip(
            data["columns"], data["mean"], data.get("scale") or [1.0] * len(data["mean"]), strict=True
        ):
            z = (self.value[index] - mean) / scale
            value.append(z)
            noise.append(np.where(self.noise[index] > 0.0, self.noise[index] / abs(scale) + np.abs(z), 0.0))
        return np.array(value), np.array(noise)


def _linear(data: Mapping[str, Any], columns: _Columns, rows: int) -> tuple[np.ndarray, np.ndarray]:
    total, scale = np.zeros(rows), np.zeros(rows)
    for term in data["terms"]:
        product, noise = columns.product(term["columns"], rows)
        unit = term.get("scale", 1.0)
        part = term["weight"] * ((product - term.get("mean", 0.0)) / unit)
        total = total + part
        scale = scale + np.abs(part) + abs(term["weight"] / unit) * noise
    if data.get("floor") is not None:
        total = np.where(total < data["floor"], data["floor"], total)
    return total, scale


def _polynomial(
    z: np.ndarray, noise: np.ndarray, weights: Any, degree: int, bias: float
) -> tuple[np.ndarray, np.ndarray]:
    rows = z.shape[1]
    total, scale = np.full(rows, bias), np.full(rows, abs(bias))
    for weight, monomial in zip(weights, exponents(len(z), degree), strict=True):
        value, uncertain = np.ones(rows), np.zeros(rows)
        for index in monomial:
            uncertain = np.abs(value) * noise[index] + np.abs(z[index]) * uncertain
            value = value * z[index]
        total = total + weight * value
        scale = scale + abs(weight) * (np.abs(value) + uncertain)
    return total, scale


def _kernel(data: Mapping[str, Any], z: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = z.shape[1]
    length = np.array(data["length"])[:, None]
    bias = float(data.get("bias", 0.0))
    total, scale = np.full(rows, bias), np.full(rows, abs(bias))
    for centre, weight in zip(zip(*coordinates(data), strict=True), data["weights"], strict=True):
        u = z / length - np.array(centre)[:, None] / length
        # The quotients were rounded before they were subtracted.
        u_noise = noise / length + np.abs(z / length)
        d = np.sqrt((u * u).sum(axis=0))
        with np.errstate(all="ignore"):
            d_noise = np.where(d > 0.0, (np.abs(u) * u_noise).sum(axis=0) / d, u_noise.sum(axis=0)) + d
        if data["kernel"] == "rbf":
            k, slope = np.exp(-0.5 * d * d), d * np.exp(-0.5 * d * d)
        else:
            r = np.sqrt(3.0) * d
            k, slope = (1.0 + r) * np.exp(-r), 3.0 * d * np.exp(-r)
        total = total + weight * k
        scale = scale + abs(weight) * (k * (1.0 + d) + slope * d_noise)
    return total, scale


def _factor(data: Mapping[str, Any] | None, columns: _Columns, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """exp(limit tanh(c / limit)) and its noise."""
    if data is None:
        return np.ones(rows), np.zeros(rows)
    z, noise = columns.z(data)
    z, noise = z.reshape(len(data["columns"]), rows), noise.reshape(len(data["columns"]), rows)
    if data["kernel"] == "poly":
        bias = float(data.get("bias", 0.0))
        value, scale = _polynomial(z, noise, data["weights"], int(data["degree"]), bias)
    else:
        value, scale = _kernel(data, z, noise)
    limit = float(data["limit"])
    bent = np.tanh(value / limit)
    factor = np.exp(limit * bent)
    return factor, factor * (1.0 + abs(limit) * np.abs(bent) + (1.0 - bent * bent) * scale)


def scales(estimator: Mapping[str, Any], name: str, arrays: Mapping[str, np.ndarray]) -> Scales:
    """The sum of |terms| of every output of one tier, for the arrays that the graph takes."""
    tier = resolved(estimator, name)
    names, primitives = list(estimator["features"]), list(estimator["primitives"])
    absent = np.array([0.0 if n in MODEL_FEATURES else np.nan for n in names])
    features = np.where(np.isnan(arrays["features"]), absent, arrays["features"])
    parent, level = arrays["parent"], arrays["level"]
    size = len(parent)
    leaf = np.ones(size, dtype=bool)
    leaf[parent[parent >= 0]] = False
    columns = _Columns(tier, names, features)
    with np.errstate(all="ignore"):
        own, own_scale = _leaves(tier, primitives, arrays, leaf, columns)
        alpha, alpha_noise = _alpha(tier, columns, parent)
        factor, factor_noise = np.ones(size), np.zeros(size)
        for level_name, data in (tier.get("correction") or {}).items():
            rows = np.flatnonzero((level == LEVELS.index(level_name)) & ~leaf)
            factor[rows], factor_noise[rows] = _factor(data, columns.rows(rows), len(rows))
        reading, reading_scale, omega = np.full(size, np.nan), np.full(size, np.nan), np.zeros(size)
        for level_name, data in (tier.get("direct") or {}).items():
            rows = np.flatnonzero(level == LEVELS.index(level_name))
            reading[rows], reading_scale[rows] = _linear(data, columns.rows(rows), len(rows))
            omega[rows] = data["pool"]
        a, a_scale = np.where(leaf, own, 0.0), np.where(leaf, own_scale, 0.0)
        p, p_scale = np.empty(size), np.empty(size)
        for n in range(size - 1, -1, -1):
            if not leaf[n]:
                a_scale[n] = a_scale[n] * factor[n] + abs(a[n]) * factor_noise[n]
                a[n] = a[n] * factor[n]
            p[n], p_scale[n] = a[n], a_scale[n]
            if not np.isnan(reading[n]):
                p[n], p_scale[n] = reading[n], reading_scale[n]
                if a[n] > 0.0 and reading[n] > 0.0:
                    rest = 1.0 - omega[n]
                    p[n] = a[n] ** rest * reading[n] ** omega[n]
                    p_scale[n] = p[n] * (
                        rest * a_scale[n] / a[n] + omega[n] * reading_scale[n] / reading[n] + 2.0
                    )
            if parent[n] >= 0:
                a[parent[n]] += alpha[n] * p[n]
                a_scale[parent[n]] += abs(alpha[n]) * p_scale[n] + abs(p[n]) * alpha_noise[n]
        p, p_scale = _rescaled(tier, parent, level, a, a_scale, p, p_scale, reading)
        # An end is P exp(half): half is at most 16, and its distance sums one logarithm per range.
        ranges = max([len(r) for r in (tier.get("ranges") or {}).values()] + [0])
        ends = np.where(p == 0.0, 0.0, p_scale / np.abs(p)) + 20.0 + ranges
    return Scales(p_scale, ends, np.where(leaf, own_scale, np.nan), alpha_noise)


def _leaves(
    tier: Mapping[str, Any],
    primitives: list[str],
    arrays: Mapping[str, np.ndarray],
    leaf: np.ndarray,
    columns: _Columns,
) -> tuple[np.ndarray, np.ndarray]:
    size = len(leaf)
    own, scale = np.full(size, np.nan), np.full(size, np.nan)
    number = np.where(arrays["level"] == 0, arrays["primitive"], -1)
    number = np.where((number >= 0) & (number < len(primitives)), number, -1)
    for k in np.unique(number[leaf]):
        rows = np.flatnonzero(leaf & (number == k))
        kind = primitives[k] if k >= 0 else ""
        data = (
            tier["leaf"].get(kind)
            or tier["leaf"].get((tier.get("stand_in") or {}).get(kind))
            or tier["fallback"]
        )
        here = columns.rows(rows)
        total, total_scale = _linear(data, here, len(rows))
        factor, noise = _factor(data.get("correction"), here, len(rows))
        own[rows] = total * factor
        scale[rows] = total_scale * factor + np.abs(total) * noise
    return own, scale


def _alpha(tier: Mapping[str, Any], columns: _Columns, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    data, rows = tier.get("aggregation"), len(parent)
    if data is None:
        return np.ones(rows), np.zeros(rows)
    z, noise = columns.z(data)
    value, scale = _polynomial(z, noise, data["weights"], int(data["degree"]), float(data["bias"]))
    bent = np.tanh(value)
    alpha = 1.0 + bent / data["tau"]
    alpha_noise = 1.0 + (np.abs(bent) + (1.0 - bent * bent) * scale) / abs(data["tau"])
    return np.where(parent < 0, 1.0, alpha), np.where(parent < 0, 0.0, alpha_noise)


def _rescaled(
    tier: Mapping[str, Any],
    parent: np.ndarray,
    level: np.ndarray,
    a: np.ndarray,
    a_scale: np.ndarray,
    p: np.ndarray,
    p_scale: np.ndarray,
    reading: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Values and scales below roots that were read."""
    gammas = tier.get("rescale") or {}
    if not gammas or not tier.get("direct"):
        return p, p_scale
    root = np.arange(len(parent))
    for n in range(len(parent)):
        if parent[n] >= 0:
            root[n] = root[parent[n]]
    s = (p / a)[root]
    noise = (p_scale / np.abs(p) + a_scale / np.abs(a))[root] + 1.0
    out, out_scale = p.copy(), p_scale.copy()
    for name, gamma in gammas.items():
        rows = np.flatnonzero(
            (parent >= 0) & (level == LEVELS.index(name)) & ~np.isnan(reading[root]) & (s > 0.0)
        )
        out[rows] = a[rows] * s[rows] ** gamma
        out_scale[rows] = s[rows] ** gamma * (
            a_scale[rows] + np.abs(a[rows]) * (abs(gamma) * noise[rows] + 2.0)
        )
    return out, out_scale
