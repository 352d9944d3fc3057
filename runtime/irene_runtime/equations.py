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
NOTABLE = 0.001  #: doubts of a parent's unmeasured leaves above this share of its joules are flagged
FLAGS = {1: "extrapolates", 2: "uncalibrated", 4: "fell-back", 8: "simulated", 16: "other-hardware",
         32: "datasheet"}  # fmt: skip
EXTRAPOLATES, UNCALIBRATED, FELL_BACK, SIMULATED, OTHER_HARDWARE, DATASHEET = FLAGS

ROOT_3 = math.sqrt(3.0)

Features = Mapping[str, float]


def flag_names(mask: int) -> List[str]:
    """The names of the bits that are set."""
    return [name for bit, name in FLAGS.items() if mask & bit]


def estimator_digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of an estimator's canonical JSON text."""
    for module in ("_sha2", "_sha256", "hashlib"):  # CPython's own needs 4 MB less than OpenSSL's
        try:
            sha256: Any = __import__(module).sha256
            break
        except ImportError:
            continue
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return str(sha256(text.encode("ascii")).hexdigest())


def _raised(x: float) -> float:
    return x if x > TINY else TINY


def identity(x: float, by: float) -> float:
    """A column that is its feature."""
    return x


_MAPS: Dict[str, Callable[[float, float], float]] = {
    "identity": identity,
    "log": lambda x, by: math.log(_raised(x)),
    "log1p": lambda x, by: math.log1p(x),
    "ceil_div": lambda x, by: float(math.ceil(x / by)),
    "inverse": lambda x, by: 1.0 / _raised(x),
}


class Column:
    """A scalar made of one raw feature, or of the product of earlier columns: ``map(x)``."""

    def __init__(self, data: Mapping[str, Any], earlier: "List[Column]") -> None:
        self.feature: str = data.get("feature", "")
        self.factors = [earlier[i] for i in data.get("of", ())]
        self.by = float(data.get("by", 1.0))
        self.map = _MAPS[data.get("map", "identity")]
        self.is_tile = data.get("map") == "ceil_div"
        self.uses = _uses(self.factors) if self.factors else frozenset([self.feature])

    def __call__(self, features: Features) -> float:
        if not self.factors:
            return self.map(features.get(self.feature, 0.0), self.by)
        value = 1.0
        for column in self.factors:
            value = value * column(features)
        return self.map(value, self.by)


def _uses(parts: Sequence[Any]) -> FrozenSet[str]:
    """The raw features that columns, or what is made of them, look at."""
    return frozenset(name for part in parts for name in part.uses)


def resources(names: FrozenSet[str]) -> FrozenSet[str]:
    """The resource features among ``names``: these must be known, model features may not apply."""
    return names.intersection(RESOURCE_FEATURES)


class Linear:
    """``sum over terms of weight * (product of its columns - mean) / scale``, not below ``floor``."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.terms = [
            (
                str(t["name"]),
                [float(t["weight"]), float(t.get("mean", 0.0)), float(t.get("scale", 1.0))],
                [columns[i] for i in t["columns"]],
            )
            for t in data["terms"]
        ]
        self.floor: Optional[float] = data.get("floor")
        self.uses = _uses([c for _, _, chosen in self.terms for c in chosen])
        self.needs = resources(self.uses)

    def parts(self, features: Features) -> List[Tuple[str, float]]:
        """What every term adds, in joules."""
        out = []
        for name, (weight, mean, scale), columns in self.terms:
            value = 1.0
            for column in columns:
                value = value * column(features)
            out.append((name, weight * ((value - mean) / scale)))
        return out

    def __call__(self, features: Features) -> float:
        total = 0.0
        for _, part in self.parts(features):
            total = total + part
        return total if self.floor is None or total >= self.floor else float(self.floor)


class _Smooth:
    """Columns, standardised: ``z = (column - mean) / scale``."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        norms = zip(data["columns"], data["mean"], data.get("scale") or [1.0] * len(data["mean"]))
        self.columns = [(columns[i], float(mean), float(scale)) for i, mean, scale in norms]
        self.bias = float(data.get("bias", 0.0))
        self.weights = [float(w) for w in data["weights"]]
        self.uses = _uses([column for column, _, _ in self.columns])

    def z(self, features: Features) -> List[float]:
        return [(column(features) - mean) / scale for column, mean, scale in self.columns]


class Polynomial(_Smooth):
    """``bias + sum of weight * monomial of z``, up to a degree.

    Monomials stand in ``itertools.combinations_with_replacement`` order, degree by degree, without
    the constant. Those that share all but their last factor stand together: ``degrees`` holds, for each
    such prefix, where its last factors start and their weights.
    """

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        super().__init__(data, columns)
        n, at, firsts = len(self.columns), 0, [0]
        self.degrees: List[List[Tuple[int, List[float]]]] = []
        for _ in range(int(data["degree"])):
            rows = []
            for first in firsts:
                rows.append((first, self.weights[at : at + n - first]))
                at += n - first
            self.degrees.append(rows)
            firsts = [last for first in firsts for last in range(first, n)]
        if at != len(self.weights):
            count = len(self.weights)
            raise EstimatorError("a polynomial of %d columns wants %d weights, not %d" % (n, at, count))

    def __call__(self, features: Features) -> float:
        z = self.z(features)
        total, prefixes = self.bias, [1.0]
        for rows in self.degrees:
            longer: List[float] = []
            for prefix, (first, weights) in zip(prefixes, rows):
                inner = 0.0
                for x, weight in zip(z[first:], weights):
                    inner = inner + x * weight
                total = total + prefix * inner
                if rows is not self.degrees[-1]:
                    longer.extend([prefix * x for x in z[first:]])
            prefixes = longer
        return total


def coordinates(data: Mapping[str, Any]) -> List[List[float]]:
    """Per column the coordinates of a kernel's centers, looked up in ``grid`` where there is one."""
    if "grid" not in data:
        return [list(row) for row in zip(*data["centers"])]
    return [
        [values[int(i, 36) if isinstance(at, str) else i] for i in at]
        for values, at in zip(data["grid"], data["centers"])
    ]


class Kernel(_Smooth):
    """``bias + sum over centers of weight * k(|z - center| / length)``: a small Gaussian process."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        super().__init__(data, columns)
        self.matern = data["kernel"] == "matern32"
        self.lengths = [float(length) for length in data["length"]]
        #: Per column the centers' coordinates, in lengths.
        self.centers = [[c / length for c in row] for length, row in zip(self.lengths, coordinates(data))]

    def __call__(self, features: Features) -> float:
        squares = [0.0] * len(self.weights)
        for x, length, row in zip(self.z(features), self.lengths, self.centers):
            x = x / length
            squares = [square + (x - c) * (x - c) for square, c in zip(squares, row)]
        total = self.bias
        for square, weight in zip(squares, self.weights):
            if self.matern:
                r = ROOT_3 * math.sqrt(square)
                total = total + weight * ((1.0 + r) * math.exp(-r))
            else:
                total = total + weight * math.exp(-0.5 * square)
        return total


class Correction:
    """A bounded smooth factor, ``exp(limit * tanh(f / limit))``."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.function: Union[Polynomial, Kernel] = FORMS[data["kernel"]](data, columns)
        self.limit = float(data["limit"])
        self.uses = self.function.uses

    def __call__(self, features: Features) -> float:
        return math.exp(self.limit * math.tanh(self.function(features) / self.limit))


class Leaf:
    """Equation 1: the joules of a leaf, a linear form, times a correction where there is one."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.linear = Linear(data, columns)
        raw = data.get("correction")
        self.correction = None if raw is None else FORMS["correction"](raw, columns)
        self.uses = _uses([self.linear] + ([] if self.correction is None else [self.correction]))

    def __call__(self, features: Features) -> float:
        joules = self.linear(features)
        return joules if self.correction is None else joules * self.correction(features)


class Aggregation:
    """Equation 3: alpha(c) = 1 + tanh(W . poly(feat(c)) + b) / tau."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.polynomial = Polynomial(data, columns)
        self.tau = float(data["tau"])
        self.uses = self.polynomial.uses

    def __call__(self, features: Features) -> float:
        return 1.0 + math.tanh(self.polynomial(features)) / self.tau


#: Forms that not every estimator has; a generated module holds its own.
FORMS: Dict[str, Any] = {
    "aggregation": Aggregation,
    "correction": Correction,
    "matern32": Kernel,
    "poly": Polynomial,
    "rbf": Kernel,
}


def pooled(own: float, reading: float, omega: float) -> float:
    """own^(1 - omega) * reading^omega; the reading alone where one of them is not positive."""
    if own > 0.0 and reading > 0.0:
        return float(own ** (1.0 - omega) * reading**omega)
    return reading


def outside(x: float, low: float, high: float) -> float:
    """How far ``x`` lies outside of a range, in natural-log units; 0.0 inside."""
    if x > high:
        return math.log(_raised(x) / _raised(high))
    return math.log(_raised(low) / _raised(x)) if x < low else 0.0


def distance(features: Features, ranges: Mapping[str, Sequence[float]]) -> float:
    """How far outside the calibrated ranges, in summed natural-log units; 0.0 inside."""
    total = 0.0
    for name, (low, high) in ranges.items():
        if name not in features and name in RESOURCE_FEATURES:
            continue
        total = total + outside(features.get(name, 0.0), low, high)
    return total


class Reading:
    """DIRECT: the joules that a node's own resource features say, and where such readings were calibrated."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.linear = Linear(data, columns)
        self.pool = float(data["pool"])
        self.within = [(columns[i], float(low), float(high)) for i, low, high in data.get("within", ())]

    def beyond(self, features: Features) -> float:
        """How far the reading lies outside of what was calibrated, in summed natural-log units."""
        total = 0.0
        for column, low, high in self.within:
            total = total + outside(column(features), low, high)
        return total


class Bend:
    """How far a learned leaf may depart from what the law (``fallback``) says: within a factor, less far from data."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.limit, self.reach = float(data["limit"]), float(data["reach"])
        self.limits: Dict[str, float] = dict(data.get("limits") or {})

    def __call__(self, whose: str, learned_j: float, law_j: float, away: float) -> float:
        """``learned_j``, bent back to ``law_j``; ``whose``: the primitive that was learned."""
        if not (learned_j > 0.0 and law_j > 0.0):
            return learned_j
        limit = self.limits.get(whose, self.limit)
        log_ratio = max(-limit, min(math.log(learned_j) - math.log(law_j), limit))
        return law_j * math.exp(log_ratio / (1.0 + away / self.reach))


class Interval:
    """Conformal half-widths per level and primitive, wider the farther from what was calibrated."""

    def __init__(self, data: Mapping[str, Any], columns: List[Column]) -> None:
        self.levels: Dict[str, Mapping[str, float]] = dict(data["levels"])
        self.primitives: Dict[str, Mapping[str, float]] = dict(data.get("primitives") or {})
        kinds = data.get("kinds") or {"columns": [], "points": [[]], "reach": 0.0}
        self.columns = [columns[i] for i in kinds["columns"]]
        self.points, self.reach = kinds["points"], float(kinds["reach"])
        #: Whether a parent is as unsure as those of its leaves that nobody measured make it.
        self.inherits = bool(data.get("inherits"))

    def is_far(self, features: Features) -> bool:
        """Whether a module is of no kind that was calibrated."""
        try:
            here = [column(features) for column in self.columns]
        except ValueError:  # no number, so near no point
            return True
        return not any(all(abs(x - y) <= self.reach for x, y in zip(here, p)) for p in self.points)

    def half(
        self, level: str, primitive: Optional[str], away: float, far: bool, beyond: float = 0.0
    ) -> Tuple[float, float]:
        """The half-width in natural-log units, and what it is inside the ranges. ``beyond``: of the node's reading."""
        entry = self.primitives.get(primitive or "", self.levels[level])
        q = entry.get("far", entry["q"]) if far else entry["q"]
        return min(q * (1.0 + entry.get("slope", 0.0) * away) + beyond, WIDEST), q


class Tier:
    """One tier of an estimator, compiled from the TIER objects of its data."""

    def __init__(self, name: str, tiers: Mapping[str, Any]) -> None:
        data = dict(tiers[tiers[name]["base"]], **tiers[name]) if "base" in tiers[name] else tiers[name]
        self.name = name
        columns: List[Column] = []
        for column in data["columns"]:
            columns.append(Column(column, columns))

        def table(key: str) -> Dict[str, Any]:
            return dict(data.get(key) or {})

        self.leaf = {k: Leaf(v, columns) for k, v in data["leaf"].items()}
        self.fallback = Leaf(data["fallback"], columns)
        self.stand_in: Dict[str, str] = table("stand_in")
        self.bend = Bend(data["bend"]) if data.get("bend") else None
        self.correction = {k: FORMS["correction"](v, columns) for k, v in table("correction").items()}
        raw = data.get("aggregation")
        self.aggregation = None if raw is None else FORMS["aggregation"](raw, columns)
        self.direct = {k: Reading(v, columns) for k, v in table("direct").items()}
        self.gamma = {k: float(v) for k, v in table("rescale").items()}
        self.interval = Interval(data["interval"], columns)
        self.ranges: Dict[str, Dict[str, Sequence[float]]] = table("ranges")
        widths = [int(c.by) for c in columns if c.is_tile and c.feature in ("gemm_n", "cols")]
        #: Columns of a product in one tile, where tiles are counted: joules rise in steps of these.
        self.tile_of_keys = max([1] + widths)
        #: Raw features that anything here looks at.
        self.names = sorted(_uses(columns).union(*self.ranges.values()))

    def leaf_of(self, primitive: Optional[str]) -> Tuple[Leaf, str, bool]:
        """Regressor of a primitive, whose it is, and whether that primitive was calibrated itself."""
        name = primitive or ""
        if name in self.leaf:
            return self.leaf[name], name, True
        name = self.stand_in.get(name, "")
        return (self.leaf[name], name, False) if name in self.leaf else (self.fallback, "fallback", False)

    def needs(self, level: str, primitive: Optional[str], is_leaf: bool, is_root: bool) -> FrozenSet[str]:
        """Resource features that the leaf, the correction and the alpha of such a node are made of."""
        parts: List[Any] = [self.leaf_of(primitive)[0]] if is_leaf else []
        if not is_leaf and level in self.correction:
            parts.append(self.correction[level])
        if self.aggregation is not None and not is_root:
            parts.append(self.aggregation)
        return resources(_uses(parts))
