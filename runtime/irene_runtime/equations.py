"""The arithmetic of an estimator: equations 1 and 3 of IrEne (ACL 2021), ranges and intervals.

Sums are explicit and run left to right: the built-in ``sum`` of floats differs between CPython
3.11 and 3.12, an explicit ``+`` gives the same bits everywhere.
"""

import json
import math
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from .errors import EstimatorError
from .features import RESOURCE_FEATURES

TINY = 1e-9  #: logarithms see nothing smaller
WIDEST = 16.0  #: cap of an interval's half-width, in natural-log units
FLAGS = {1: "extrapolates", 2: "uncalibrated", 4: "fell-back", 8: "simulated", 16: "other-hardware"}
EXTRAPOLATES, UNCALIBRATED, FELL_BACK, SIMULATED, OTHER_HARDWARE = FLAGS

Features = Mapping[str, float]


def flag_names(mask: int) -> List[str]:
    """The names of the bits that are set."""
    return [name for bit, name in FLAGS.items() if mask & bit]


def estimator_digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of an estimator's canonical JSON text."""
    from hashlib import sha256

    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return sha256(text.encode("ascii")).hexdigest()


def _identity(x: float, by: float) -> float:
    return x


def _log(x: float, by: float) -> float:
    return math.log(x if x > TINY else TINY)


def _log1p(x: float, by: float) -> float:
    return math.log1p(x)


def _ceil_div(x: float, by: float) -> float:
    return float(math.ceil(x / by))


_MAPS: Dict[str, Callable[[float, float], float]] = {
    "identity": _identity, "log": _log, "log1p": _log1p, "ceil_div": _ceil_div,
}  # fmt: skip


class Column:
    """A scalar made of one raw feature: ``map(feature)``."""

    __slots__ = ("feature", "by", "map", "needs")

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.feature: str = data["feature"]
        self.by = float(data.get("by", 1.0))
        self.map = _MAPS[data["map"]]
        self.needs = {self.feature} & set(RESOURCE_FEATURES)

    def __call__(self, features: Features) -> float:
        return self.map(features.get(self.feature, 0.0), self.by)


def _needs(columns: Sequence[Column]) -> "frozenset[str]":
    """The resource features among the columns'."""
    return frozenset(name for column in columns for name in column.needs)


class Linear:
    """``sum over terms of weight * (product of its columns - mean) / scale``; ``floor`` may be None."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.terms: List[Tuple[str, float, float, float, List[Column]]] = []
        for t in data["terms"]:
            numbers = float(t["weight"]), float(t["mean"]), float(t["scale"])
            self.terms.append((t["name"],) + numbers + ([columns[i] for i in t["columns"]],))
        floor = data.get("floor")
        self.floor = None if floor is None else float(floor)
        self.needs = _needs([c for term in self.terms for c in term[4]])
        self.uses = {c.feature for term in self.terms for c in term[4]}

    def parts(self, features: Features) -> List[Tuple[str, float]]:
        """What every term adds, in joules."""
        out = []
        for name, weight, mean, scale, columns in self.terms:
            value = 1.0
            for column in columns:
                value = value * column(features)
            out.append((name, weight * ((value - mean) / scale)))
        return out

    def __call__(self, features: Features) -> float:
        total = 0.0
        for _, part in self.parts(features):
            total = total + part
        if self.floor is not None and total < self.floor:
            return self.floor
        return total


class Polynomial:
    """``bias + sum over monomials of z up to a degree``, ``z = (column - mean) / scale``.

    Monomials stand in ``itertools.combinations_with_replacement`` order, degree by degree, without
    the constant. Those that share all but their last factor stand together: ``rows`` holds, for each
    such prefix, where its last factors start and their weights.
    """

    def __init__(self, data: Mapping[str, Any], columns: List[Column], bias: float) -> None:
        self.columns = [columns[i] for i in data["columns"]]
        self.norm = [(float(m), float(s)) for m, s in zip(data["mean"], data["scale"])]
        self.bias = bias
        self.needs = _needs(self.columns)
        self.uses = {c.feature for c in self.columns}
        weights = [float(w) for w in data["weights"]]
        n, at = len(self.columns), 0
        self.degrees: List[List[Tuple[int, List[float]]]] = []
        firsts = [0]
        for _ in range(int(data["degree"])):
            rows = []
            for first in firsts:
                rows.append((first, weights[at : at + n - first]))
                at += n - first
            self.degrees.append(rows)
            firsts = [last for first in firsts for last in range(first, n)]
        if at != len(weights) or len(self.norm) != n:
            raise EstimatorError(
                "a polynomial of %d columns wants %d weights, not %d" % (n, at, len(weights))
            )

    def z(self, features: Features) -> List[float]:
        return [(c(features) - mean) / scale for c, (mean, scale) in zip(self.columns, self.norm)]

    def __call__(self, features: Features) -> float:
        z = self.z(features)
        total = self.bias
        prefixes = [1.0]
        last = len(self.degrees) - 1
        for degree, rows in enumerate(self.degrees):
            longer: List[float] = []
            for prefix, (first, weights) in zip(prefixes, rows):
                tail = z[first:]
                inner = 0.0
                for x, weight in zip(tail, weights):
                    inner = inner + x * weight
                total = total + prefix * inner
                if degree < last:
                    longer.extend([prefix * x for x in tail])
            prefixes = longer
        return total


class Kernel:
    """``bias + sum over centers of weight * k(|z - center| / length)``: a small Gaussian process."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.columns = [columns[i] for i in data["columns"]]
        self.norm = [(float(m), float(s)) for m, s in zip(data["mean"], data["scale"])]
        self.lengths = [float(v) for v in data["length"]]
        self.bias = float(data["bias"])
        self.matern = data["kernel"] == "matern32"
        self.centers = [
            ([c / length for c, length in zip(center, self.lengths)], float(w))
            for center, w in zip(data["centers"], data["weights"])
        ]
        self.needs = _needs(self.columns)
        self.uses = {c.feature for c in self.columns}

    def __call__(self, features: Features) -> float:
        z = [
            (c(features) - mean) / scale / length
            for c, (mean, scale), length in zip(self.columns, self.norm, self.lengths)
        ]
        total = self.bias
        for center, weight in self.centers:
            square = 0.0
            for a, b in zip(z, center):
                square = square + (a - b) * (a - b)
            if self.matern:
                r = math.sqrt(3.0) * math.sqrt(square)
                total = total + weight * ((1.0 + r) * math.exp(-r))
            else:
                total = total + weight * math.exp(-0.5 * square)
        return total


class Leaf:
    """Equation 1: the joules of a leaf, a linear form times a bounded smooth correction."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.linear = Linear(data, columns)
        self.correction: Optional[Callable[[Features], float]] = None
        self.limit = 1.0
        self.needs, self.uses = self.linear.needs, self.linear.uses
        raw = data.get("correction")
        if raw is not None:
            made: Any
            if raw["kernel"] == "poly":
                made = Polynomial(raw, columns, float(raw["bias"]))
            elif raw["kernel"] in ("matern32", "rbf"):
                made = Kernel(raw, columns)
            else:
                raise EstimatorError("unknown kernel %r" % (raw["kernel"],))
            self.correction, self.limit = made, float(raw["limit"])
            self.needs, self.uses = self.needs | made.needs, self.uses | made.uses

    def factor(self, features: Features) -> float:
        """exp(limit * tanh(correction / limit)), within exp(-limit) and exp(limit)."""
        if self.correction is None:
            return 1.0
        return math.exp(self.limit * math.tanh(self.correction(features) / self.limit))

    def __call__(self, features: Features) -> float:
        if self.correction is None:
            return self.linear(features)
        return self.linear(features) * self.factor(features)


class Aggregation:
    """Equation 3: alpha(c) = 1 + tanh(W . poly(feat(c)) + b) / tau."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.polynomial = Polynomial(data, columns, float(data["bias"]))
        self.tau = float(data["tau"])
        self.needs, self.uses = self.polynomial.needs, self.polynomial.uses

    def __call__(self, features: Features) -> float:
        return 1.0 + math.tanh(self.polynomial(features)) / self.tau


def pooled(own: float, reading: float, omega: float) -> float:
    """own^(1 - omega) * reading^omega; the reading alone where one of them is not positive."""
    if own > 0.0 and reading > 0.0:
        return float(own ** (1.0 - omega) * reading**omega)
    return reading


def distance(features: Features, ranges: Mapping[str, Sequence[float]]) -> float:
    """How far outside the calibrated ranges, in summed natural-log units; 0.0 inside."""
    total = 0.0
    for name, (low, high) in ranges.items():
        x = features.get(name)
        if x is None:
            if name in RESOURCE_FEATURES:
                continue
            x = 0.0
        if x > high:
            total = total + math.log((x if x > TINY else TINY) / (high if high > TINY else TINY))
        elif x < low:
            total = total + math.log((low if low > TINY else TINY) / (x if x > TINY else TINY))
    return total


class Interval:
    """Conformal half-widths per level and primitive, wider with the distance from what was calibrated."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.levels = {k: (float(v["q"]), float(v.get("slope", 0.0))) for k, v in data["levels"].items()}
        self.primitives = {
            k: (float(v["q"]), float(v.get("slope", 0.0))) for k, v in data.get("primitives", {}).items()
        }

    def factors(self, level: str, primitive: Optional[str], away: float) -> Tuple[float, float]:
        """What an energy is multiplied by to get the two ends."""
        q, slope = self.primitives.get(primitive or "", self.levels[level])
        width = q * (1.0 + slope * away)
        if width > WIDEST:
            width = WIDEST
        return math.exp(-width), math.exp(width)


class Tier:
    """One tier of an estimator, compiled from the TIER object of its data."""

    def __init__(self, name: str, data: Mapping[str, Any]) -> None:
        self.name = name
        columns = [Column(c) for c in data["columns"]]
        self.leaf = {k: Leaf(v, columns) for k, v in data["leaf"].items()}
        self.fallback = Leaf(data["fallback"], columns)
        raw = data.get("aggregation")
        self.aggregation = None if raw is None else Aggregation(raw, columns)
        self.direct = {
            level: (Linear(d, columns), float(d["pool"])) for level, d in data.get("direct", {}).items()
        }
        self.gamma = {level: float(g) for level, g in data.get("rescale", {}).items()}
        self.interval = Interval(data["interval"])
        self.ranges: Dict[str, Dict[str, Sequence[float]]] = data.get("ranges", {})
        linears = list(self.leaf.values()) + [self.fallback]
        used = {name for leaf in linears for name in leaf.uses}
        used.update(name for linear, _ in self.direct.values() for name in linear.uses)
        used.update(name for named in self.ranges.values() for name in named)
        if self.aggregation is not None:
            used |= self.aggregation.uses
        self.names = sorted(used)
