"""The arithmetic of an estimator: equations 1 and 3 of IrEne (ACL 2021), ranges and intervals.

Sums are explicit and run left to right: the built-in ``sum`` of floats differs between CPython
3.11 and 3.12, an explicit ``+`` gives the same bits everywhere.
"""

import json
import math
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple, Union

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


def _inverse(x: float, by: float) -> float:
    return 1.0 / (x if x > TINY else TINY)


_MAPS: Dict[str, Callable[[float, float], float]] = {
    "identity": _identity, "log": _log, "log1p": _log1p, "ceil_div": _ceil_div, "inverse": _inverse,
}  # fmt: skip


class Column:
    """A scalar made of one raw feature, or of the product of earlier columns: ``map(x)``."""

    __slots__ = ("feature", "factors", "by", "map", "uses")

    def __init__(self, data: Mapping[str, Any], earlier: "List[Column]") -> None:
        self.feature: str = data.get("feature", "")
        self.factors = [earlier[i] for i in data.get("of", ())]
        self.by = float(data.get("by", 1.0))
        self.map = _MAPS[data["map"]]
        #: Names of raw features.
        self.uses = _uses(self.factors) if self.factors else frozenset([self.feature])

    def __call__(self, features: Features) -> float:
        if not self.factors:
            return self.map(features.get(self.feature, 0.0), self.by)
        value = 1.0
        for column in self.factors:
            value = value * column(features)
        return self.map(value, self.by)


def _uses(columns: Sequence[Column]) -> FrozenSet[str]:
    return frozenset(name for column in columns for name in column.uses)


def resources(names: FrozenSet[str]) -> FrozenSet[str]:
    """The resource features among ``names``: these must be known, model features may not apply."""
    return names.intersection(RESOURCE_FEATURES)


class Linear:
    """``sum over terms of weight * (product of its columns - mean) / scale``; ``floor`` may be None."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.terms: List[Tuple[str, float, float, float, List[Column]]] = []
        for t in data["terms"]:
            numbers = float(t["weight"]), float(t["mean"]), float(t["scale"])
            self.terms.append((t["name"],) + numbers + ([columns[i] for i in t["columns"]],))
        floor = data.get("floor")
        self.floor = None if floor is None else float(floor)
        self.uses = _uses([c for term in self.terms for c in term[4]])
        self.needs = resources(self.uses)

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
        self.uses = _uses(self.columns)
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
        self.uses = _uses(self.columns)

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


class Correction:
    """A bounded smooth factor, ``exp(limit * tanh(f / limit))``, within exp(-limit) and exp(limit)."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.function: Union[Polynomial, Kernel]
        if data["kernel"] == "poly":
            self.function = Polynomial(data, columns, float(data["bias"]))
        elif data["kernel"] in ("matern32", "rbf"):
            self.function = Kernel(data, columns)
        else:
            raise EstimatorError("unknown kernel %r" % (data["kernel"],))
        self.limit = float(data["limit"])
        self.uses = self.function.uses

    def __call__(self, features: Features) -> float:
        return math.exp(self.limit * math.tanh(self.function(features) / self.limit))


class Leaf:
    """Equation 1: the joules of a leaf, a linear form, times a correction where there is one."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.linear = Linear(data, columns)
        raw = data.get("correction")
        self.correction = None if raw is None else Correction(raw, columns)
        self.uses = self.linear.uses if self.correction is None else self.linear.uses | self.correction.uses

    def __call__(self, features: Features) -> float:
        if self.correction is None:
            return self.linear(features)
        return self.linear(features) * self.correction(features)


class Aggregation:
    """Equation 3: alpha(c) = 1 + tanh(W . poly(feat(c)) + b) / tau."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.polynomial = Polynomial(data, columns, float(data["bias"]))
        self.tau = float(data["tau"])
        self.uses = self.polynomial.uses

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
    """One tier of an estimator, compiled from the TIER objects of its data."""

    def __init__(self, name: str, tiers: Mapping[str, Any]) -> None:
        data = dict(tiers[tiers[name]["base"]], **tiers[name]) if "base" in tiers[name] else tiers[name]
        self.name = name
        columns: List[Column] = []
        for column in data["columns"]:
            columns.append(Column(column, columns))
        self.leaf = {k: Leaf(v, columns) for k, v in data["leaf"].items()}
        self.fallback = Leaf(data["fallback"], columns)
        self.stand_in: Dict[str, str] = dict(data.get("stand_in") or {})
        self.correction = {k: Correction(v, columns) for k, v in (data.get("correction") or {}).items()}
        raw = data.get("aggregation")
        self.aggregation = None if raw is None else Aggregation(raw, columns)
        self.direct = {
            level: (Linear(d, columns), float(d["pool"])) for level, d in (data.get("direct") or {}).items()
        }
        self.gamma = {level: float(g) for level, g in (data.get("rescale") or {}).items()}
        self.interval = Interval(data["interval"])
        self.ranges: Dict[str, Dict[str, Sequence[float]]] = dict(data.get("ranges") or {})
        #: Raw features that anything here looks at.
        self.names = sorted(_uses(columns).union(*self.ranges.values()))
        #: Whether only DIRECT looks at resource features, so that nodes of one kind need no look each.
        used = [leaf.uses for leaf in self.leaf.values()] + [c.uses for c in self.correction.values()]
        used += [self.fallback.uses] + ([] if self.aggregation is None else [self.aggregation.uses])
        self.resource_free = not resources(frozenset().union(*used))

    def leaf_of(self, primitive: Optional[str]) -> Tuple[Leaf, str, bool]:
        """Regressor of a primitive, whose it is, and whether that primitive was calibrated itself."""
        name = primitive or ""
        if name in self.leaf:
            return self.leaf[name], name, True
        name = self.stand_in.get(name, "")
        if name in self.leaf:
            return self.leaf[name], name, False
        return self.fallback, "fallback", False

    def uses(self, level: str, primitive: Optional[str], is_leaf: bool, is_root: bool) -> FrozenSet[str]:
        """Raw features that the leaf, the correction and the alpha of such a node are made of."""
        uses: FrozenSet[str] = frozenset()
        if is_leaf:
            uses = self.leaf_of(primitive)[0].uses
        elif level in self.correction:
            uses = self.correction[level].uses
        if self.aggregation is not None and not is_root:
            uses = uses | self.aggregation.uses
        return uses
