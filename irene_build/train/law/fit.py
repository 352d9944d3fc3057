"""Fits the law's numbers to whole models: joules and, where they are known, seconds, robustly and together.

Least squares with the soft-L1 loss on the logarithms of both (`scipy.optimize.least_squares`), beside log-normal
priors that hold what the labels do not tell. Every model counts alike, however many rows it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irene_build.dataset.table import LabelledTree
from irene_build.hardware.datasheets import Datasheet
from irene_build.train.law.evaluate import Runs, evaluate, runs, with_defaults
from irene_build.train.law.numbers import Number, device_of, numbers, written
from irene_runtime.features import RESOURCE_FEATURES

_LATENCY = RESOURCE_FEATURES.index("latency")
#: Where soft-L1 turns from square to linear: a tenth, in natural-log units.
SCALE = 0.1
#: Rows of one model share its mistakes: they tell as much as its inputs (clocks apart), and at most as so many rows.
ROWS_OF_A_MODEL = 12.0
_STEPS = 40
_INPUT = ("batch_size", "seq_len", "past_len", "phase", "dtype", "attention", "weights")


@dataclass(frozen=True)
class Labels:
    """Runs with their labels: ``energy_j``, ``time_s`` (NaN where unknown) float64[r]; ``model``, ``input`` str[r].

    ``prior``: of the numbers, where other hosts of the kind say more than a datasheet (``pooled``).
    """

    runs: Runs
    energy_j: np.ndarray
    time_s: np.ndarray
    model: np.ndarray
    input: np.ndarray
    clock_hz: float
    prior: Mapping[str, Number] | None = None

    def pick(self, chosen: np.ndarray) -> Labels:
        """The rows of a mask bool[r]."""
        return Labels(
            self.runs.pick(chosen), self.energy_j[chosen], self.time_s[chosen], self.model[chosen], self.input[chosen],
            self.clock_hz,
            self.prior,
        )  # fmt: skip


def labels(trees: Sequence[LabelledTree], prior: Mapping[str, Number] | None = None) -> Labels:
    """The whole-model labels of trees; a clock that was not asked for is the median of those that were."""
    data = runs([tree.tree for tree in trees])
    clock = float(np.nanmedian(data.clock)) if np.isfinite(data.clock).any() else 0.0
    return Labels(
        data,
        np.array([tree.energy_j[0] for tree in trees]),
        np.array([tree.resources[0, _LATENCY] for tree in trees]),
        np.array([tree.model for tree in trees]),
        np.array([_input(tree) for tree in trees]),
        clock,
        prior,
    )


def _input(tree: LabelledTree) -> str:
    """What was run, whatever the clock and the power limit."""
    return " ".join(str(tree.tree.header.get(key)) for key in _INPUT)


def fit(data: Labels, sheet: Datasheet) -> dict[str, Any]:
    """The law of a device (FORMAT.md, LAW), fitted to ``data``. Runs without a label are ignored."""
    sheet = _settled(data, sheet)
    known = np.isfinite(data.energy_j) & (data.energy_j > 0.0)
    some = data.pick(known)
    law = from_datasheet(sheet, clock_hz=some.clock_hz)
    values, spread = _solve(law, with_defaults(law, some.runs), some, sheet)
    law["numbers"] = written(values, sheet, f"fitted to {int(known.sum())} whole models", some.prior)
    for name, width in spread.items():
        law["numbers"][name]["deviation"] = float(f"{width:.3g}")
    law["provenance"] = "fitted"
    return law


def from_datasheet(sheet: Datasheet, clock_hz: float = 0.0) -> dict[str, Any]:
    """The law of a device before anything was measured: its priors."""
    values = {name: number.prior for name, number in numbers(sheet).items()}
    law = {
        "device": device_of(sheet),
        "numbers": written(values, sheet, "datasheet"),
        "provenance": "datasheet",
    }
    return {**law, "clock_hz": clock_hz or sheet.max_clock_hz}


def _settled(data: Labels, sheet: Datasheet) -> Datasheet:
    """The datasheet with the limit that the board was seen to keep, where no run came near its own."""
    power = (data.energy_j / data.time_s)[np.isfinite(data.time_s) & np.isfinite(data.energy_j)]
    if len(power) < 8:
        return sheet
    top = 1.03 * float(np.quantile(power, 0.98))
    return replace(sheet, power_limit_w=min(sheet.power_limit_w, top))


def _solve(
    law: Mapping[str, Any], data: Runs, some: Labels, sheet: Datasheet
) -> tuple[dict[str, float], dict[str, float]]:
    """The numbers, and how unsure each stays (standard deviation of its logarithm)."""
    from scipy.optimize import least_squares

    prior = some.prior or numbers(sheet)
    names = list(prior)
    start = np.log([prior[name].prior for name in names])
    width = np.array([prior[name].width for name in names])
    models, which, count = np.unique(some.model, return_inverse=True, return_counts=True)
    inputs = np.array([len(np.unique(some.input[some.model == one])) for one in models])
    weight = np.sqrt(np.minimum(inputs, ROWS_OF_A_MODEL) / count)[which] / SCALE
    log_j, timed = np.log(some.energy_j), np.isfinite(some.time_s) & (some.time_s > 0.0)
    log_s = np.log(some.time_s[timed])

    def residuals(x: np.ndarray) -> np.ndarray:
        out = evaluate(dict(zip(names, np.exp(x), strict=True)), law["device"], data)
        off = np.concatenate(
            [weight * (np.log(out.pass_j) - log_j), weight[timed] * (np.log(out.pass_s[timed]) - log_s)]
        )
        soft = np.sign(off) * np.sqrt(2.0 * (np.sqrt(1.0 + off**2) - 1.0))  # soft-L1 on labels, not on priors
        return np.concatenate([soft, (x - start) / width])

    found = least_squares(residuals, start, x_scale=width, max_nfev=_STEPS, ftol=1e-4, xtol=1e-4)
    covariance = np.linalg.inv(found.jac.T @ found.jac)
    deviation = np.sqrt(np.diag(covariance))
    return (
        dict(zip(names, map(float, np.exp(found.x)), strict=True)),
        dict(zip(names, map(float, deviation), strict=True)),
    )
