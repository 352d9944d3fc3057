"""An estimator from whole-model labels by the law: static from the law alone, live with the root's readings.

Every choice is made by leaving each model out in turn: whether the correction is worth having, and what of the root's
readings the live tier uses. Widths are conformal, from the residuals of those fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree, gpu_energy_is_label
from irene_build.hardware.datasheets import Datasheet
from irene_build.train import intervals
from irene_build.train.law.correction import Correction
from irene_build.train.law.evaluate import evaluate, spent, with_defaults
from irene_build.train.law.fit import Labels, fit
from irene_runtime.features import RESOURCE_FEATURES

#: Nodes below a root are as unsure as the root, and by so many times what the numbers' deviations leave open.
APART = 2.0
_DRAWS = 24
#: A correction must bring the error on left-out models below this share of the law's.
WORTH = 0.9
#: What is read at the root must do so more clearly: the choice among many forms flatters the one that wins.
READING = 0.5
#: Readings must help this share of the models that were left out, not one of them alone.
MOST = 1.0
#: What the live tier may read at the root: terms of DIRECT by feature, each a form of its own.
_FORMS: tuple[tuple[str, ...], ...] = (
    ("latency", "law_energy"), ("latency",), ("gpu_energy",), ("gpu_energy", "law_energy"),
    ("latency", "gpu_energy", "law_energy"),
)  # fmt: skip
#: How much of the reading is taken beside the law (an exponent): none, unless more is clearly better.
_POOLS = (0.0, 1.0, 0.75, 0.5, 0.25)
_COLUMNS = [{"feature": "law_energy"}, {"feature": "law_energy", "map": "log"}, {"feature": "latency"},
            {"feature": "gpu_energy"}]  # fmt: skip
_COLUMN = {"law_energy": 0, "latency": 2, "gpu_energy": 3}


@dataclass
class HeldOut:
    """What fits that had not seen a run's model say of it: float64[r] joules, plain and corrected."""

    plain: np.ndarray
    corrected: np.ndarray
    law: dict[str, dict[str, Any]]

    def best(self, data: Labels) -> tuple[bool, np.ndarray]:
        """Whether the correction is worth having (with two models or one nothing tells: then it is), and the better."""
        if len(self.law) < 3:
            return True, self.corrected
        plain, corrected = (error(data, one) for one in (self.plain, self.corrected))
        use = corrected < WORTH * plain
        return use, self.corrected if use else self.plain


def error(data: Labels, said: np.ndarray) -> float:
    """Mean relative error, every row alike."""
    return float(np.nanmean(np.abs(said / data.energy_j - 1.0)))


def leave_models_out(data: Labels, sheet: Datasheet) -> HeldOut:
    """The law fitted without each model in turn, asked for that model."""
    plain, corrected = np.full(len(data.energy_j), np.nan), np.full(len(data.energy_j), np.nan)
    laws = {}
    for name in np.unique(data.model):
        out = data.model == name
        if out.all():
            continue
        law = laws[str(name)] = fit(data.pick(~out), sheet)
        said = spent(law, data.runs).pass_j
        bend = Correction(said[~out], data.energy_j[~out], data.model[~out])
        plain[out], corrected[out] = said[out], said[out] * bend.factor(said[out])
    return HeldOut(plain, corrected, laws)


def static_tier(
    data: Labels, law: dict[str, Any], held: HeldOut, trees: Sequence[LabelledTree]
) -> dict[str, Any]:
    """TIER static: joules of the law, and a correction of whole models where it is worth having."""
    use, said = held.best(data)
    own = spent(law, data.runs).pass_j
    leaf = {"terms": [{"name": "law", "columns": [0], "weight": 1.0}], "floor": 0.0}
    primitives = sorted({n.primitive for t in trees for n in t.tree.nodes if n.primitive} | {"Host"})
    tier: dict[str, Any] = {
        "columns": [dict(column) for column in _COLUMNS],
        "leaf": dict.fromkeys(primitives, leaf),
        "fallback": leaf,
        "aggregation": None,
        "interval": _interval(data, law, said, trees),
        "ranges": _ranges(trees, own),
    }
    if use:
        tier["correction"] = {"model": Correction(own, data.energy_j, data.model).data(1)}
    return tier


def live_tier(dataset: Dataset, data: Labels, law: dict[str, Any], held: HeldOut) -> dict[str, Any] | None:
    """TIER live: the root's readings and the law's joules, weighted; None where no root has readings."""
    readings = {name: np.array([t.resources[0, RESOURCE_FEATURES.index(name)] for t in dataset.trees])
                for name in ("latency", "gpu_energy")}  # fmt: skip
    if gpu_energy_is_label(dataset.label_source):
        del readings["gpu_energy"]
    _, static = held.best(data)
    own = spent(law, data.runs).pass_j
    best: tuple[float, tuple[str, ...], float, np.ndarray] | None = None
    for form in _FORMS:
        if not all(name == "law_energy" or np.isfinite(readings.get(name, np.nan)).all() for name in form):
            continue
        weights = _weights(_design(form, readings, own), data.energy_j, data.model)
        if not any(w > 0.0 for name, w in zip(form, weights, strict=True) if name != "law_energy"):
            continue  # the readings tell nothing beside the law
        read = np.full(len(data.energy_j), np.nan)
        for name, one in held.law.items():
            out = data.model == name
            design = _design(form, readings, spent(one, data.runs).pass_j)
            read[out] = design[out] @ _weights(design[~out], data.energy_j[~out], data.model[~out])
        for pool in _POOLS:
            said = static ** (1.0 - pool) * read**pool
            wrong = error(data, said) if held.law else 1.0
            if best is None or (
                wrong < (READING if best[2] == 0.0 else 0.98) * best[0] and _for_most(data, said, static)
            ):
                best = wrong, form, pool, said
    if best is None:
        return None
    _, chosen, pool, said = best
    weights = _weights(_design(chosen, readings, own), data.energy_j, data.model)
    terms = [
        {"name": name, "columns": [_COLUMN[name]], "weight": float(weight)}
        for name, weight in zip(chosen, weights, strict=True)
        if weight > 0.0
    ]
    return {
        "base": "static",
        "direct": {"model": {"terms": terms, "floor": 0.0, "pool": pool}},
        "rescale": {"ml": 1.0, "module": 1.0},
        "interval": _interval(data, law, said, dataset.trees),
    }


def _for_most(data: Labels, said: np.ndarray, static: np.ndarray) -> bool:
    """Whether ``said`` errs less than ``static`` on (MOST of) the models."""
    better = [
        error(data.pick(data.model == name), said[data.model == name])
        < error(data.pick(data.model == name), static[data.model == name])
        for name in np.unique(data.model)
    ]
    return float(np.mean(better)) >= MOST


def _design(form: Sequence[str], readings: dict[str, np.ndarray], law_j: np.ndarray) -> np.ndarray:
    return np.column_stack([law_j if name == "law_energy" else readings[name] for name in form])


def _weights(design: np.ndarray, energy_j: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Weights >= 0 of least relative squares, every model alike; the residuals' tails count linearly (Huber)."""
    from scipy.optimize import nnls

    _, which, count = np.unique(model, return_inverse=True, return_counts=True)
    weight = 1.0 / np.sqrt(count[which])
    for _ in range(12):
        found, _ = nnls(design / energy_j[:, None] * weight[:, None], weight)
        off = np.abs(design @ found / energy_j - 1.0)
        weight = np.sqrt(np.minimum(1.0, 0.05 / np.maximum(off, 1e-9)) / count[which])
    return np.asarray(found)


def _interval(
    data: Labels, law: dict[str, Any], said: np.ndarray, trees: Sequence[LabelledTree]
) -> dict[str, Any]:
    """INTERVAL: the root's width from left-out models, those below it wider by what the numbers leave open."""
    residual = np.log(said / data.energy_j)
    heard = np.isfinite(residual)
    models = len(np.unique(data.model[heard]))
    q = intervals.half_width(residual[heard], np.ones(int(heard.sum())), models)
    apart = spread(data, law, trees)
    far = {name: round(min(q + APART * width, intervals.HOPELESS), 5) for name, width in apart.items()}
    below = max(far.values(), default=intervals.UNKNOWN)
    slope = 0.1
    return {
        "levels": {
            "model": {"q": round(q, 5), "slope": slope},
            "module": {"q": round(0.5 * (q + below), 5), "slope": slope},
            "ml": {"q": round(below, 5), "slope": slope},
        },
        "primitives": {
            "fallback": {"q": round(max(below, intervals.UNKNOWN), 5), "slope": slope},
            **{name: {"q": width, "slope": slope} for name, width in far.items()},
        },
    }


def spread(data: Labels, law: dict[str, Any], trees: Sequence[LabelledTree]) -> dict[str, float]:
    """How far the joules of leaves move, by primitive, when the law's numbers move by what they are unsure."""
    runs = with_defaults(law, data.runs)
    names = list(law["numbers"])
    values = np.array([law["numbers"][name]["value"] for name in names])
    width = np.array([law["numbers"][name].get("deviation", law["numbers"][name]["width"]) for name in names])
    middle = np.log(evaluate(dict(zip(names, values, strict=True)), law["device"], runs).energy_j)
    random = np.random.default_rng(0)
    off = []
    for _ in range(_DRAWS):
        drawn = values * np.exp(width * random.standard_normal(len(names)))
        off.append(
            np.log(evaluate(dict(zip(names, drawn, strict=True)), law["device"], runs).energy_j) - middle
        )
    per_leaf = np.quantile(np.abs(off), 0.9, axis=0)
    product, fused = runs.leaves[:, 6] > 0.0, runs.fused
    kinds = {"fused": fused, "product": product & ~fused, "other": ~product & ~fused}
    typical = {kind: float(np.median(per_leaf[rows])) for kind, rows in kinds.items() if rows.any()}
    out = {}
    for tree in trees:
        for node in tree.tree.nodes:
            if node.primitive and node.primitive not in out and node.primitive != "Host":
                product_ = node.features.get("gemm_batch", 0.0) > 0.0
                kind = "fused" if node.primitive == "Attention" else "product" if product_ else "other"
                out[node.primitive] = typical.get(kind, max(typical.values()))
    out["Host"] = float(law["numbers"]["host_s"].get("deviation", 0.7)) + 0.3
    return out


def _ranges(trees: Sequence[LabelledTree], law_j: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """Input sizes and joules of whole models that were measured: what is larger is flagged and wider."""
    size = [float(t.tree.header["batch_size"] or 0) * float(t.tree.header["seq_len"] or 0) for t in trees]
    found = {"model": {"law_energy": [float(law_j.min()), float(law_j.max())]}}
    if min(size) > 0.0:
        found["model"]["input_size"] = [min(size), max(size)]
    return found
