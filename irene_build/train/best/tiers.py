"""What the tiers above static weigh by: pools, powers, intervals, from models that the fit had not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irene_build.train import intervals
from irene_build.train.best import telemetry
from irene_build.train.best.cross_validation import HeldOut
from irene_build.train.best.folds import families_of
from irene_build.train.best.sample import TrainingSet
from irene_runtime.tree import LEVELS

OMEGAS = np.linspace(0.0, 1.0, 21)
GAMMAS = np.linspace(0.0, 1.2, 25)


def interval(
    data: TrainingSet,
    held_out: Sequence[HeldOut],
    larger_sizes: HeldOut | None,
    predict: Callable[[HeldOut], np.ndarray],
    judged: Sequence[str],
    known: dict[str, Any] | None,
) -> dict[str, Any]:
    """An INTERVAL from what ``predict`` (float64[m], joules) makes of models, families and sizes that were left out.

    Nodes of kinds that a fold had not seen count apart at the levels ``judged``.
    """
    rows = np.flatnonzero(data.labelled)

    def residual(seen: HeldOut) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.log(predict(seen)[rows] / data.energy_j[rows]))

    silent = np.full((1, len(rows)), np.nan)
    judgement = intervals.Judgement(
        residual=np.array([residual(seen) for seen in held_out]) if held_out else silent,
        far=np.array([seen.far[rows] for seen in held_out])
        if held_out
        else np.zeros(silent.shape, dtype=bool),
        beyond=silent[0]
        if larger_sizes is None
        else np.where(larger_sizes.far[rows], np.nan, residual(larger_sizes)),
        away=silent[0] if larger_sizes is None else larger_sizes.away[rows],
        count=data.count[rows],
        model=data.model[rows],
        family=families_of(data)[data.model[rows]],
        level=np.array(LEVELS)[data.level[rows]],
        primitive=data.primitive[rows],
    )
    out = intervals.interval(judgement, judged)
    if known is not None and judged:
        out["kinds"] = known
    return out


def live(
    data: TrainingSet,
    held_out: Sequence[HeldOut],
    larger_sizes: HeldOut | None,
    direct: dict[str, Any],
    known: dict[str, Any] | None,
) -> dict[str, Any]:
    """Root by its reading, pooled with the tree's A; nodes below by their A times a power of root over A."""
    omega, gamma = 1.0, {"ml": 1.0, "module": 1.0}
    if held_out:
        omega = _best(OMEGAS, lambda w: _root_error(data, held_out, w))
        a, d = held_out[0].total_j, _positive(held_out[0].reading_j)
        scale = _root_scale(data, a ** (1.0 - omega) * d**omega / a)
        for level in gamma:
            here = np.flatnonzero(data.at(level) & ~data.root & data.labelled)
            gamma[level] = _power(data, a, scale, here)

    def predict(seen: HeldOut) -> np.ndarray:
        a, d = seen.total_j, _positive(seen.reading_j)
        scale = _root_scale(data, a ** (1.0 - omega) * d**omega / a)
        power = np.ones(len(a))
        for level, value in gamma.items():
            power[data.at(level) & ~data.root] = value
        return np.asarray(a * scale**power)

    return {
        "direct": {"model": {**direct["model"], "pool": round(omega, 4)}},
        "rescale": {level: round(value, 4) for level, value in gamma.items()},
        "interval": interval(data, held_out, larger_sizes, predict, ("module",), known),
    }


def _root_error(data: TrainingSet, held_out: Sequence[HeldOut], omega: float) -> float:
    """Mean error of pooled roots over models and families left out: a tree says less of strangers."""
    out = []
    for seen in held_out:
        pooled = seen.total_j ** (1.0 - omega) * _positive(seen.reading_j) ** omega
        roots = np.flatnonzero(data.root & data.labelled & np.isfinite(pooled))
        if len(roots):
            out.append(telemetry.error_of(data, pooled, roots))
    return float(np.mean(out)) if out else 0.0


def _positive(reading: np.ndarray) -> np.ndarray:
    return np.where(reading > 0.0, reading, np.nan)


def _power(data: TrainingSet, a: np.ndarray, scale: np.ndarray, rows: np.ndarray) -> float:
    return _best(GAMMAS, lambda g: telemetry.error_of(data, a * scale**g, rows))


def _root_scale(data: TrainingSet, ratio: np.ndarray) -> np.ndarray:
    """``ratio`` of the root that a node stands below; NaN where that was not read."""
    scale = np.where(data.root, ratio, np.nan)
    for parent, child, _ in reversed(data.steps):
        scale[child] = np.where(np.isnan(scale[child]), scale[parent], scale[child])
    return scale


def profile(
    data: TrainingSet, held_out: Sequence[HeldOut], larger_sizes: HeldOut | None, direct: dict[str, Any]
) -> dict[str, Any]:
    """Every node by its own reading, pooled with what the tree says of it."""
    omega = dict.fromkeys(direct, 1.0)
    if held_out:
        for level in omega:
            omega[level] = _pool(data, held_out[0], omega, level)

    def predict(seen: HeldOut) -> np.ndarray:
        return telemetry.pooled(data, seen.leaf_j, seen.factor, seen.reading_j, omega)

    return {
        "direct": {level: {**item, "pool": round(omega[level], 4)} for level, item in direct.items()},
        "interval": interval(data, held_out, larger_sizes, predict, (), None),
    }


def _pool(data: TrainingSet, unseen: HeldOut, omega: dict[str, float], level: str) -> float:
    rows = np.flatnonzero(data.at(level) & data.labelled)

    def loss(w: float) -> float:
        p = telemetry.pooled(
            data,
            unseen.leaf_j,
            unseen.factor,
            unseen.reading_j,
            {**omega, level: w},
        )
        return telemetry.error_of(data, p, rows)

    return _best(OMEGAS, loss)


def _best(grid: np.ndarray, loss: Callable[[float], float]) -> float:
    """The grid's value of least loss; 1 where no other is better by a per mille."""
    losses = [loss(float(value)) for value in grid]
    best = int(np.argmin(losses))
    return float(grid[best]) if losses[best] < 0.999 * loss(1.0) else 1.0
