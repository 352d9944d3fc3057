"""Hypothesis strategies that several folders share: estimators of every form, model trees, inputs.

Everything descends from one drawn seed and a few drawn choices, so a failing example is a short line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement
from random import Random
from typing import Any

from hypothesis import strategies as st

from irene_runtime.features import MODEL_FEATURES, RESOURCE_FEATURES
from irene_runtime.tree import ModelTree, Node

PRIMITIVES = ("Linear", "LayerNorm", "Softmax", "MatMul", "GELU", "Embedding")
SHAPE_FEATURES = (
    "batch_size",
    "seq_len",
    "input_size",
    "flops",
    "mem_bytes",
    "rows",
    "cols",
    "elements",
    "kernels",
)
#: Ranges in which features are calibrated here, in their units.
RANGES = {
    "batch_size": (1.0, 32.0), "seq_len": (8.0, 512.0), "input_size": (8.0, 16384.0), "flops": (0.01, 5e4),
    "mem_bytes": (0.001, 900.0), "rows": (1.0, 2e4), "cols": (16.0, 4096.0), "elements": (1e3, 1e7),
    "kernels": (1.0, 40.0),
    "cpu_util": (1.0, 90.0), "mem_usg": (5.0, 60.0), "gpu_util": (0.0, 100.0), "gm_usg": (1.0, 80.0),
    "g_clk": (300.0, 1900.0), "gm_clk": (405.0, 7000.0), "latency": (2e-5, 3.0), "gpu_energy": (1e-3, 400.0),
}  # fmt: skip


@dataclass(frozen=True)
class Forms:
    """Which forms of FORMAT.md an estimator uses."""

    seed: int
    products: bool
    maps: bool
    floor: bool
    kernels: tuple[str, ...]
    degree: int
    level_corrections: bool
    direct: bool
    ranges: bool
    stand_in: bool
    simulated: bool
    tiers: tuple[str, ...]
    resource_leaves: bool


forms = st.builds(
    Forms,
    seed=st.integers(0, 2**32 - 1),
    products=st.booleans(),
    maps=st.booleans(),
    floor=st.booleans(),
    kernels=st.sampled_from(
        [(), ("poly",), ("matern32",), ("rbf",), ("poly", "matern32"), ("matern32", "rbf", "none")]
    ),
    degree=st.integers(0, 3),
    level_corrections=st.booleans(),
    direct=st.booleans(),
    ranges=st.booleans(),
    stand_in=st.booleans(),
    simulated=st.booleans(),
    tiers=st.sampled_from([("static",), ("static", "live"), ("static", "live", "profile"), ("profile",)]),
    resource_leaves=st.booleans(),
)


def value(rng: Random, name: str) -> float:
    """A feature inside its range, log-uniform; counts are whole."""
    low, high = RANGES[name]
    x = math.exp(rng.uniform(math.log(max(low, 1e-3)), math.log(high)))
    return (
        float(round(x)) or 1.0
        if name in ("batch_size", "seq_len", "rows", "cols", "kernels", "input_size")
        else x
    )


def _columns(rng: Random, names: list[str], f: Forms) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = [{"feature": name, "map": "identity"} for name in names]
    if f.maps:
        for name in names:
            kind = rng.choice(["log", "log1p", "ceil_div", "inverse", "identity"])
            columns.append(
                {
                    "feature": name,
                    "map": kind,
                    **({"by": rng.choice([32, 128])} if kind == "ceil_div" else {}),
                }
            )
    if f.products:
        for _ in range(3):
            of = [rng.randrange(len(columns)) for _ in range(rng.randint(1, 3))]
            kind = rng.choice(["identity", "log", "log1p"]) if f.maps else "identity"
            columns.append({"of": of, "map": kind})
    return columns


def _sample(rng: Random, columns: list[dict[str, Any]], index: int) -> float:
    """What a column is worth at a typical input: sets means and scales that make sense."""
    column = columns[index]
    if "of" in column:
        x = 1.0
        for other in column["of"]:
            x *= _sample(rng, columns, other)
    else:
        x = value(rng, column["feature"])
    kind = column["map"]
    if kind == "log":
        return math.log(max(x, 1e-9))
    if kind == "log1p":
        return math.log1p(max(x, 0.0))
    if kind == "inverse":
        return 1.0 / max(x, 1e-9)
    return math.ceil(x / column.get("by", 1.0)) if kind == "ceil_div" else x


def _norm(rng: Random, columns: list[dict[str, Any]], chosen: list[int]) -> tuple[list[float], list[float]]:
    means, scales = [], []
    for index in chosen:
        seen = [_sample(rng, columns, index) for _ in range(5)]
        mean = sum(seen) / 5
        means.append(mean)
        scales.append(max(max(seen) - min(seen), 1e-3 * abs(mean), 1e-6))
    return means, scales


def _terms(
    rng: Random, columns: list[dict[str, Any]], usable: list[int], f: Forms, standard: bool
) -> list[dict[str, Any]]:
    terms = [{"name": "base", "columns": [], "weight": rng.uniform(0.5, 3.0), "mean": 0.0, "scale": 1.0}]
    for number in range(rng.randint(1, 4)):
        chosen = [rng.choice(usable) for _ in range(rng.randint(1, 3) if f.products else 1)]
        samples = []
        for _ in range(5):
            product = 1.0
            for index in chosen:
                product *= _sample(rng, columns, index)
            samples.append(product)
        mean = sum(samples) / 5
        scale = max(max(samples) - min(samples), abs(mean) * 1e-2, 1e-9)
        weight = rng.gauss(0.0, 0.4) if standard else abs(rng.gauss(0.0, 1.0))
        mean = mean if standard else 0.0
        terms.append(
            {"name": f"t{number}", "columns": chosen, "weight": weight, "mean": mean, "scale": scale}
        )
    return terms


def _correction(
    rng: Random, columns: list[dict[str, Any]], usable: list[int], kernel: str
) -> dict[str, Any] | None:
    if kernel == "none":
        return None
    chosen = rng.sample(usable, min(len(usable), rng.randint(1, 3)))
    mean, scale = _norm(rng, columns, chosen)
    out: dict[str, Any] = {
        "columns": chosen, "mean": mean, "scale": scale, "kernel": kernel, "bias": rng.gauss(0.0, 0.1),
        "limit": rng.choice([0.3, 0.7, 2.0]), "degree": rng.randint(1, 3), "length": [], "centers": [],
    }  # fmt: skip
    if kernel == "poly":
        count = sum(
            1
            for d in range(1, out["degree"] + 1)
            for _ in combinations_with_replacement(range(len(chosen)), d)
        )
    else:
        count = rng.randint(1, 6)
        out["length"] = [rng.uniform(0.3, 2.0) for _ in chosen]
        out["centers"] = [[rng.gauss(0.0, 1.0) for _ in chosen] for _ in range(count)]
    out["weights"] = [rng.gauss(0.0, 0.3) for _ in range(count)]
    return out


def _aggregation(
    rng: Random, columns: list[dict[str, Any]], usable: list[int], degree: int
) -> dict[str, Any] | None:
    if degree == 0:
        return None
    chosen = rng.sample(usable, min(len(usable), 5))
    mean, scale = _norm(rng, columns, chosen)
    count = sum(1 for d in range(1, degree + 1) for _ in combinations_with_replacement(range(len(chosen)), d))
    return {
        "columns": chosen, "mean": mean, "scale": scale, "degree": degree, "bias": rng.gauss(0.0, 0.3),
        "weights": [rng.gauss(0.0, 0.3) for _ in range(count)], "tau": rng.choice([1.5, 2.0, 10.0]),
    }  # fmt: skip


def estimator(f: Forms) -> dict[str, Any]:
    """An estimator in the format of train/FORMAT.md that uses the chosen forms."""
    rng = Random(f.seed)
    shapes = rng.sample(SHAPE_FEATURES, rng.randint(2, len(SHAPE_FEATURES)))
    resources = rng.sample(RESOURCE_FEATURES, rng.randint(1, len(RESOURCE_FEATURES)))
    names = shapes + resources
    known = list(PRIMITIVES[: rng.randint(2, 5)])
    primitives = [*known, *(["Embedding"] if f.stand_in else [])]
    columns = _columns(rng, names, f)

    def resource(index: int) -> bool:
        column = columns[index]
        return any(map(resource, column["of"])) if "of" in column else column["feature"] in RESOURCE_FEATURES

    static = [i for i in range(len(columns)) if not resource(i)]
    readings = [i for i in range(len(columns)) if resource(i)]
    everything = list(range(len(columns)))
    tiers: dict[str, Any] = {}
    for name in f.tiers:
        usable = everything if name == "profile" and f.resource_leaves else static

        def leaf(usable: list[int] = usable) -> dict[str, Any]:
            kernel = rng.choice(f.kernels) if f.kernels else "none"
            return {
                "terms": _terms(rng, columns, usable, f, rng.random() < 0.5),
                "floor": rng.choice([0.0, 1e-3]) if f.floor else None,
                "correction": _correction(rng, columns, usable, kernel),
            }

        entry = lambda: {"q": rng.uniform(0.01, 0.3), "slope": rng.choice([0.0, 0.5, 1.0])}  # noqa: E731
        tier: dict[str, Any] = {
            "columns": columns, "leaf": {p: leaf() for p in known}, "fallback": leaf(),
            "aggregation": _aggregation(rng, columns, usable, f.degree), "direct": {}, "rescale": {},
            "interval": {
                "levels": {level: entry() for level in ("ml", "module", "model")},
                "primitives": {p: entry() for p in [*known[:2], "fallback"]},
            },
            "ranges": {},
        }  # fmt: skip
        if rng.random() < 0.5 and static:
            chosen = rng.sample(static, min(2, len(static)))
            tier["interval"]["kinds"] = {
                "columns": chosen,
                "points": [[_sample(rng, columns, c) for c in chosen] for _ in range(4)],
                "reach": rng.choice([0.5, 1e3, 1e9]),
            }
            for level in ("module", "model"):
                tier["interval"]["levels"][level]["far"] = rng.uniform(0.3, 0.6)
        if f.ranges:
            kinds = [*known, "module", "model"]
            tier["ranges"] = {
                k: {n: [0.0 if n in MODEL_FEATURES else RANGES[n][0], RANGES[n][1]] for n in names}
                for k in kinds
            }
        if f.level_corrections and f.kernels:
            kernel = rng.choice([k for k in f.kernels if k != "none"])
            tier["correction"] = {
                level: _correction(rng, columns, usable, kernel)
                for level in rng.sample(["module", "model"], rng.randint(1, 2))
            }
        if f.stand_in:
            tier["stand_in"] = {"Embedding": known[0]}
        if f.direct and name != "static":
            levels = ["model"] if name == "live" else rng.sample(["ml", "module", "model"], rng.randint(1, 3))
            terms = _terms(rng, columns, readings, f, False)
            reads = [i for t in terms for i in t["columns"]]
            tier["direct"] = {
                level: {
                    "terms": terms,
                    "pool": rng.choice([0.0, 0.3, 0.8, 1.0]),
                    "floor": 0.0,
                    "within": [[rng.choice(reads), 0.5, rng.uniform(1.0, 50.0)]]
                    if f.ranges and reads
                    else [],
                }
                for level in levels
            }
            if name == "live":
                tier["rescale"] = {"ml": rng.uniform(0.3, 1.2), "module": rng.uniform(0.3, 1.2)}
        if name == "live" and "static" in f.tiers and f.seed % 2:
            shared = (
                "columns",
                "leaf",
                "fallback",
                "aggregation",
                "interval",
                "ranges",
                "stand_in",
                "correction",
            )
            tier = {k: v for k, v in tier.items() if k not in shared}
            tier["base"] = "static"
        tiers[name] = tier
    return {
        "format": "irene-estimator", "version": 1, "hardware": "random", "method": "best", "boundary": "wall",
        "provenance": "simulated" if f.simulated else "measured", "label_source": "none", "cost_model": "analytic",
        "attention": "eager", "created_by": {"test": "1"}, "fingerprint": {}, "features": names,
        "primitives": primitives, "trained_on": {"models": [], "trees": 0, "nodes": 0, "distinct": 0},
        "tiers": tiers, "evaluation": {},
    }  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """How a random tree looks, and which of its nodes know their resource features."""

    seed: int
    nodes: int
    resources: str
    unknown_primitives: bool
    childless_modules: bool
    outside: float


shapes = st.builds(
    Shape,
    seed=st.integers(0, 2**32 - 1),
    nodes=st.integers(1, 40),
    resources=st.sampled_from(["none", "root", "all", "some"]),
    unknown_primitives=st.booleans(),
    childless_modules=st.booleans(),
    outside=st.sampled_from([0.0, 1 / 3, 1.0]),
)


def _features(rng: Random, names: list[str], outside: float) -> dict[str, float]:
    out = {}
    for name in names:
        x = value(rng, name)
        if rng.random() < outside:
            x *= rng.choice([1e-3, 0.1, 3.0, 40.0, 1e3])
        out[name] = x
    return out


def tree(names: list[str], primitives: list[str], shape: Shape) -> ModelTree:
    """A tree in pre-order that an estimator with these features and primitives may be asked for."""
    rng = Random(shape.seed)
    resources = [n for n in names if n in RESOURCE_FEATURES]
    models = [
        n for n in names if n not in RESOURCE_FEATURES and n not in ("batch_size", "seq_len", "input_size")
    ]
    parents = [-1]
    path = [0]
    for index in range(1, shape.nodes):
        while len(path) > 1 and rng.random() < 0.35:
            path.pop()
        parents.append(path[-1])
        if rng.random() < 0.5:
            path.append(index)
        elif len(path) == 1:
            path.append(index) if rng.random() < 0.3 else None
    has_child = [False] * shape.nodes
    for parent in parents[1:]:
        has_child[parent] = True
    pool = [*primitives, *(["Custom", "TopK"] if shape.unknown_primitives else [])]
    nodes = []
    for index, parent in enumerate(parents):
        level = "model" if index == 0 and shape.nodes > 1 else "module"
        if not has_child[index] and not (shape.childless_modules and rng.random() < 0.3):
            level = "ml"
        primitive = rng.choice(pool) if level == "ml" else None
        features = _features(rng, models, shape.outside)
        if rng.random() < 0.1 and models:
            features.pop(rng.choice(models))
        knows = {"none": False, "root": index == 0, "all": True, "some": rng.random() < 0.5}[shape.resources]
        if knows:
            features.update(_features(rng, resources, shape.outside))
        nodes.append(Node(f"n{index}" if index else "", "T", level, parent, primitive, 0, features))
    header = {"model": "random", "batch_size": rng.choice([1, 8, 64]), "seq_len": rng.choice([4, 128, 2048])}
    return ModelTree(nodes, header)
