"""The estimator's objects as types. FORMAT.md says what each means, ``irene_build/schemas`` has them as JSON Schema."""

from __future__ import annotations

from typing import Any, TypedDict


class Term(TypedDict, total=False):
    """weight * (product of columns - mean) / scale; joules."""

    name: str
    columns: list[int]
    weight: float
    mean: float
    scale: float


class Correction(TypedDict, total=False):
    """exp(limit * tanh(f / limit)), f a polynomial or a sum of kernels over z = (columns - mean) / scale."""

    columns: list[int]
    mean: list[float]
    scale: list[float] | None
    kernel: str
    degree: int
    length: list[float]
    centers: list[Any]
    grid: list[list[float]]
    weights: list[float]
    bias: float
    limit: float


class Leaf(TypedDict):
    """Equation 1: terms, not below the floor, times a correction."""

    terms: list[Term]
    floor: float | None
    correction: Correction | None


class Bend(TypedDict):
    """How far a leaf may depart from the fallback; natural-log units."""

    limit: float
    limits: dict[str, float]
    reach: float


class Width(TypedDict, total=False):
    """Half of a 90 % interval and how it grows a log unit outside the ranges; ``far``: of unknown kinds."""

    q: float
    slope: float
    far: float


class Interval(TypedDict, total=False):
    """Widths by level and primitive; whether parents inherit the doubts of unmeasured leaves."""

    levels: dict[str, Width]
    primitives: dict[str, Width]
    kinds: dict[str, Any]
    inherits: bool


class Tier(TypedDict, total=False):
    """One tier; what it lacks is that of ``base``."""

    base: str
    columns: list[dict[str, Any]]
    leaf: dict[str, Leaf]
    fallback: Leaf
    stand_in: dict[str, str]
    bend: Bend
    aggregation: dict[str, Any] | None
    correction: dict[str, Correction]
    direct: dict[str, dict[str, Any]]
    rescale: dict[str, float]
    interval: Interval
    ranges: dict[str, dict[str, list[float]]]


class Condition(TypedDict):
    """What was measured of a condition, and the log units that any other adds to a half-width."""

    known: list[Any]
    width: float


class Estimator(TypedDict, total=False):
    """The file."""

    format: str
    version: int
    hardware: str
    method: str
    boundary: str
    provenance: str
    label_source: str
    cost_model: str
    attention: str
    created_by: dict[str, str]
    fingerprint: dict[str, Any]
    features: list[str]
    primitives: list[str]
    trained_on: dict[str, Any]
    tiers: dict[str, Tier]
    unmeasured: dict[str, Condition]
    law: dict[str, Any]
    evaluation: dict[str, Any]
