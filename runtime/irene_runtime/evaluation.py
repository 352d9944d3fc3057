"""From features to joules: what an estimator's tiers make of every node of a tree, from the leaves to the root."""

import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .equations import (
    EXTRAPOLATES,
    FELL_BACK,
    NOTABLE,
    SIMULATED,
    UNCALIBRATED,
    WIDEST,
    Interval,
    Tier,
    distance,
    pooled,
)
from .errors import TreeError
from .features import RESOURCE_FEATURES
from .tree import Node


class _Kind(NamedTuple):
    level: str
    primitive: Optional[str]
    is_leaf: bool
    is_root: bool


class _Local(NamedTuple):
    """What follows from a node's own features alone; equal nodes share it."""

    leaf_j: float  # 0.0 above the leaves
    factor: float  # the correction of an inner node
    alpha: float
    reading_j: Optional[float]  # what DIRECT makes of the node's own resource features
    pool: float
    interval: Interval
    half: float  # half the interval, in natural-log units
    doubt: float  # joules that a leaf which nobody measured may be wrong by
    away: float
    beyond: float  # how far the reading lies outside of what was calibrated
    flags: int


#: Energy, low and high end in joules, alpha, flags.
_Value = Tuple[float, float, float, float, int]


def _kinds(nodes: List[Node], children: List[List[int]]) -> List[_Kind]:
    return [_Kind(n.level, n.primitive, not children[i], i == 0) for i, n in enumerate(nodes)]


def _not_finite(node: Node) -> TreeError:
    return TreeError("node %s: its features give no finite energy" % node.name[:80])


class TreeEvaluator:
    """The arithmetic of an estimator. ``tiers``: by name; ``provenance``: of its joules."""

    tiers: Dict[str, Tier]
    provenance: str

    @property
    def simulated(self) -> bool:
        return self.provenance == "simulated"

    def _lacks(
        self, name: str, nodes: List[Node], kinds: List[_Kind], features: List[Dict[str, float]]
    ) -> str:
        """Why a tier cannot be had for these features; empty where it can."""
        tier = self.tiers.get(name)
        if tier is None:
            return "this estimator has no such tier"
        needs = {kind: tier.needs(*kind) for kind in set(kinds)}
        for node, kind, own in zip(nodes, kinds, features):
            if not needs[kind] <= own.keys():
                absent = sorted(needs[kind].difference(own))
                return "needs %s of node %s" % (", ".join(absent), node.name[:80])
        if not tier.direct or name == "static":
            return ""
        whole = name == "live" or len(nodes) == 1
        chosen = slice(0, 1) if whole else slice(1, None)
        fewest = frozenset(RESOURCE_FEATURES)
        for node, own in zip(nodes[chosen], features[chosen]):
            if node.level in tier.direct:
                fewest = min(fewest, tier.direct[node.level].linear.needs.difference(own), key=len)
        of = "the whole model" if whole else "single nodes"
        return "needs %s of %s" % (", ".join(sorted(fewest)), of) if fewest else ""

    @staticmethod
    def _refuse(tier: Tier, node: Node, kind: _Kind, own: Dict[str, float]) -> None:
        """Raises TreeError where a feature is not there, or 0, that never was 0 in the calibration."""
        group = node.primitive or "" if kind.is_leaf else node.level
        for name, ends in tier.ranges.get(group, {}).items():
            if ends[0] > 0.0 and name not in RESOURCE_FEATURES and not own.get(name, 0.0) > 0.0:
                raise TreeError(
                    "node %s lacks the feature %s, which this estimator needs for %s"
                    % (node.name[:80], name, group)
                )

    def _local(self, tier: Tier, node: Node, kind: _Kind, own: Dict[str, float]) -> _Local:
        """Everything about a node that its relatives do not change."""
        self._refuse(tier, node, kind, own)
        ranges, level = tier.ranges.get(node.level, {}), node.level
        flags = SIMULATED if self.simulated else 0
        leaf_j, factor, far = 0.0, 1.0, False
        reading, pool, beyond, interval = None, 1.0, 0.0, tier.interval
        try:
            if kind.is_leaf:
                leaf, whose, calibrated = tier.leaf_of(node.primitive)
                leaf_j = leaf(own)
                ranges = tier.ranges.get(whose, {})
                if tier.bend is not None:
                    leaf_j = tier.bend(whose, leaf_j, tier.fallback(own), distance(own, ranges))
                flags |= 0 if calibrated else UNCALIBRATED
            elif level in tier.correction:
                factor = tier.correction[level](own)
            alpha = 1.0 if tier.aggregation is None or kind.is_root else tier.aggregation(own)
            away = distance(own, ranges)
            if level in tier.direct:
                direct = tier.direct[level]
                if direct.linear.needs <= own.keys():
                    reading, pool, beyond = direct.linear(own), direct.pool, direct.beyond(own)
                else:
                    flags |= FELL_BACK
                    interval = self.tiers.get("static", tier).interval
            if level == "module":
                far = interval.is_far(own)
        except (OverflowError, ValueError):
            raise _not_finite(node) from None
        primitive = "fallback" if flags & UNCALIBRATED else node.primitive
        half, near = interval.half(level, primitive, away, far, beyond)
        unknown = half if flags & UNCALIBRATED else half - near
        doubt = leaf_j * (math.exp(unknown) - 1.0) if kind.is_leaf else 0.0
        flags |= EXTRAPOLATES if away + beyond > 0.0 else 0
        return _Local(leaf_j, factor, alpha, reading, pool, interval, half, doubt, away, beyond, flags)

    def _evaluate(
        self, tier: Tier, nodes: List[Node], children: List[List[int]], kinds: List[_Kind],
        features: List[Dict[str, float]], known: Optional[Dict[Any, _Local]] = None,
    ) -> List[_Value]:  # fmt: skip
        """Of nodes, parents before children; ``children`` may name a node more than once."""
        names = tier.names
        known = {} if known is None else known
        locals_: List[_Local] = []
        for node, kind, own in zip(nodes, kinds, features):
            key = (kind, tuple(map(own.get, names)))
            local = known.get(key)
            if local is None:
                local = known[key] = self._local(tier, node, kind, own)
            locals_.append(local)
        count = len(nodes)
        own_j, energy, doubt = [0.0] * count, [0.0] * count, [0.0] * count
        for index in range(count - 1, -1, -1):
            local = locals_[index]
            total, unsure = local.leaf_j, local.doubt
            for child in children[index]:
                alpha = locals_[child].alpha
                total = total + alpha * energy[child]
                unsure = unsure + alpha * doubt[child]
            own_j[index] = total = total * local.factor
            doubt[index] = unsure * local.factor
            if local.reading_j is not None:
                total = pooled(total, local.reading_j, local.pool)
            energy[index] = total
        root = locals_[0]
        if kinds[0].level == "model":
            far = total = 0.0
            for child in children[0]:
                share = locals_[child].alpha * energy[child]
                total = total + share
                if nodes[child].level == "module" and root.interval.is_far(features[child]):
                    far = far + share
            if far > 0.5 * total:
                half, _ = root.interval.half("model", None, root.away, True, root.beyond)
                locals_[0] = root._replace(half=half)
        if tier.gamma and root.reading_j is not None and own_j[0] > 0.0 and energy[0] > 0.0:
            scale = energy[0] / own_j[0]
            factors = {level: scale**gamma for level, gamma in tier.gamma.items()}
            for index in range(1, count):
                if nodes[index].level in factors:
                    energy[index] = own_j[index] * factors[nodes[index].level]
        inherits = tier.interval.inherits and not set(tier.direct).difference(["model"])
        out = []
        for index, (value, local) in enumerate(zip(energy, locals_)):
            half, flags = local.half, local.flags
            if inherits and children[index] and local.reading_j is None and own_j[index] > 0.0:
                unsure = max(doubt[index] / own_j[index], 0.0)
                half = min(half + math.log1p(unsure), WIDEST)
                flags |= EXTRAPOLATES if unsure > NOTABLE else 0
            low, high = sorted((value * math.exp(-half), value * math.exp(half)))
            out.append((value, low, high, local.alpha, flags))
        return out
