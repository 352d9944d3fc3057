"""From sums of kernels to a server's step: a few numbers, learned from whole runs around priors (equation 3's role).

    gpu time  = sum over classes c_t t + d + d_kernel x kernels + s x vocabulary x sequences
    step      = (gpu^4 + host^4)^(1/4),  host = h + h_seq x sequences
    joules    = sum over classes c_e e + p_sample x sampling + p_gap x (step - what is busy), at most the boards' limit

Median time a token is that of a step with the median number of prompts in it; joules are those of the mean step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.engines.step import CLASSES, StepCost

#: Weights whose kernels differ between engine versions more than 16-bit ones do: factors on products and experts.
QUANTISED = ("fp8", "fp8_block", "int4_wo", "nvfp4", "mxfp4")
_WIDTH = {"experts": 0.15, "state": 0.4}
#: Number -> start and width of its log-normal prior (natural logarithm). Watts are shares of the board's limit.
PRIORS: dict[str, tuple[float, float]] = {
    "time": (1.1, 0.15), **{f"time_{c}": (1.0, 0.1 if c != "state" else 0.3) for c in CLASSES},
    "energy": (1.3, 0.3), **{f"energy_{c}": (1.0, _WIDTH.get(c, 0.05)) for c in CLASSES},
    "step_s": (1e-3, 0.5), "kernel_s": (1e-7, 1.0), "vocabulary_s": (2e-10, 0.5),
    "host_s": (2e-3, 0.5), "host_sequence_s": (3e-5, 0.5),
    "gap_share": (0.4, 0.15), "sample_share": (0.8, 0.1),
    "cluster": (0.7, 0.5), "launch_s": (2.5e-5, 0.4),
    **{f"{what}_{dtype}": (1.0, 0.25) for what in ("time", "energy") for dtype in QUANTISED},
    "prompt_lm-arena-chat": (120.0, 0.1), "prompt_sourcegraph-fim": (1000.0, 0.4), "prompt_gpqa": (300.0, 0.3),
}  # fmt: skip
#: Prompt lengths at which steps are summed; between them they are interpolated.
GRID = (25.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)


@dataclass
class RunSums:
    """What the kernels of one run cost: a pure step, and steps with prompts of each length of GRID (``some`` prompts).

    ``rate``: prompts a step. ``vocabulary``: logits a sequence. ``limit_w``: of one board; ``gpus`` boards.
    """

    pure: StepCost
    mixed: Sequence[StepCost]
    some: float
    rate: float
    batch: float
    vocabulary: float
    gpus: int
    prompt: str | float
    weights: str = "bfloat16"
    model: str = ""
    plain: bool = True


class Sums:
    """Many runs' sums as arrays, so that a fit is a matter of seconds. Classes are the last axis."""

    def __init__(self, runs: Sequence[RunSums]) -> None:
        self.runs = list(runs)
        self.pure_t, self.pure_e = (
            np.array([getattr(r.pure, n) for r in runs]) for n in ("time_s", "energy_j")
        )
        self.mixed_t, self.mixed_e = (
            np.array([[getattr(c, n) for c in r.mixed] for r in runs]) for n in ("time_s", "energy_j")
        )
        self.kernels = np.array([[r.pure.kernels, max(c.kernels for c in r.mixed)] for r in runs])
        self.some, self.rate, self.batch, self.vocabulary, self.gpus = (
            np.array([float(getattr(r, n)) for r in runs])
            for n in ("some", "rate", "batch", "vocabulary", "gpus")
        )

    def take(self, rows: Any) -> Sums:
        return Sums([self.runs[i] for i in rows])

    def mixed(self, numbers: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Seconds and joules of steps with prompts, at each run's prompt length."""
        length = np.array(
            [numbers[f"prompt_{r.prompt}"] if isinstance(r.prompt, str) else r.prompt for r in self.runs]
        )
        grid = np.array(GRID)
        x = np.clip(length, grid[0], grid[-1])
        i = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, len(grid) - 2)
        f = ((x - grid[i]) / (grid[i + 1] - grid[i]))[:, None]
        rows = np.arange(len(i))
        time_s, joules = ((1.0 - f) * a[rows, i] + f * a[rows, i + 1] for a in (self.mixed_t, self.mixed_e))
        return time_s, joules


def step(sums: Sums, numbers: Mapping[str, float], limit_w: float) -> dict[str, np.ndarray]:
    """Per run: mean and median seconds of a step, joules of a mean step over all GPUs, and the parts of both."""
    count = len(sums.runs)
    factors_t = np.tile([numbers["time"] * numbers[f"time_{c}"] for c in CLASSES], (count, 1))
    factors_e = np.tile([numbers["energy"] * numbers[f"energy_{c}"] for c in CLASSES], (count, 1))
    own = np.array([c in ("gemm", "experts") for c in CLASSES])
    for row, run in enumerate(sums.runs):
        if run.weights in QUANTISED:
            factors_t[row, own] *= numbers[f"time_{run.weights}"]
            factors_e[row, own] *= numbers[f"energy_{run.weights}"]
    mixed_t, mixed_e = sums.mixed(numbers)
    sampling = numbers["vocabulary_s"] * sums.vocabulary * sums.batch
    host = numbers["host_s"] + numbers["host_sequence_s"] * sums.batch
    seconds, joules, kernels_j = [], [], []
    parts = ((sums.pure_t, sums.pure_e, 0.0), (mixed_t, mixed_e, 1.0))
    for column, (time_s, energy_j, eager) in enumerate(parts):
        busy = (factors_t * time_s).sum(1)
        count_k = sums.kernels[:, column]
        gpu = busy + numbers["step_s"] + numbers["kernel_s"] * count_k + sampling
        # a step with a prompt in it is not one graph: the host launches it kernel by kernel
        launch = eager * numbers["launch_s"] * count_k
        whole = ((gpu**2 + launch**2) ** 2 + host**4) ** 0.25
        gap = np.maximum(whole - busy - sampling, 0.0)
        # the boards' limit also holds for what is busy
        busy_j = np.minimum((factors_e * energy_j).sum(1), limit_w * busy)
        own_j = busy_j + limit_w * (numbers["sample_share"] * sampling + numbers["gap_share"] * gap)
        seconds.append(whole)
        joules.append(sums.gpus * np.minimum(own_j, limit_w * whole))
        kernels_j.append(sums.gpus * busy_j)
    share = np.minimum(1.0, sums.rate / sums.some)
    median = np.minimum(1.0, _above(sums.rate, numbers["cluster"]) / sums.some)
    energy_j = joules[0] * (1.0 - share) + joules[1] * share
    return {
        "step_s": seconds[0] * (1.0 - share) + seconds[1] * share,
        "itl_s": seconds[0] * (1.0 - median) + seconds[1] * median, "energy_j": energy_j,
        "prefill_j": np.maximum(0.0, energy_j - joules[0]), "pure_s": seconds[0], "mixed_s": seconds[1],
        "pure_j": joules[0], "kernels_j": kernels_j[0], "sampling_s": sampling, "host_s": host,
        "class_j": factors_e * sums.pure_e * sums.gpus[:, None], "class_s": factors_t * sums.pure_t,
    }  # fmt: skip


def _above(rate: np.ndarray, cluster: float) -> np.ndarray:
    """Prompts in the median step: none while they come seldom or together, the mean's less ``cluster`` when often."""
    out: np.ndarray = np.where(rate > 0.0, 0.1 * np.logaddexp(0.0, (rate - cluster) / 0.1), 0.0)
    return out


def start() -> dict[str, float]:
    return {name: value for name, (value, _) in PRIORS.items()}


def fit(
    sums: Sums, labels: np.ndarray, limit_w: float, around: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The numbers from runs: ``labels`` float64[n, 3] are joules of a step (all GPUs), mean and median seconds of it.

    A label is known to 4 %, to 10 % where experts, states or quantised weights run in kernels that no table has as they
    are; a model's runs together weigh as eight at most. ``around``: another device's numbers as the priors' centres.
    """
    from scipy.optimize import least_squares

    names = list(PRIORS)
    centre = np.log([(around or {}).get(n, PRIORS[n][0]) for n in names])
    width = np.array([PRIORS[n][1] for n in names])
    models = [r.model for r in sums.runs]
    loose = np.array([not r.plain for r in sums.runs])
    sigma = np.where(loose, 0.10, 0.04) / np.sqrt([min(1.0, 8.0 / models.count(m)) for m in models])
    logs = np.log(labels)

    def residuals(theta: np.ndarray) -> np.ndarray:
        numbers = dict(zip(names, np.exp(centre + width * theta).tolist(), strict=True))
        says = step(sums, numbers, limit_w)
        got = np.log(np.column_stack([says["energy_j"], says["step_s"], says["itl_s"]]))
        errors = (got - logs) / sigma[:, None] * np.array([1.0, 0.5, 0.8])
        # soft L1 from 1.5 widths on, for the labels alone: the priors hold
        robust = np.sign(errors) * 1.5 * np.sqrt(2.0 * (np.sqrt(1.0 + (errors / 1.5) ** 2) - 1.0))
        return np.concatenate([robust.ravel(), theta])

    found = least_squares(residuals, np.zeros(len(names)), max_nfev=30)
    values = np.exp(centre + width * found.x)
    return {n: float(f"{v:.5g}") for n, v in zip(names, values, strict=True)}


def leave_models_out(
    sums: Sums, labels: np.ndarray, limit_w: float, around: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """Per run what the numbers of the other models' runs say of it."""
    out: dict[str, np.ndarray] = {}
    models = np.array([r.model for r in sums.runs])
    for model in np.unique(models):
        rest, own = np.flatnonzero(models != model), np.flatnonzero(models == model)
        numbers = (
            fit(sums.take(rest), labels[rest], limit_w, around)
            if len(rest)
            else {**start(), **(around or {})}
        )
        for name, values in step(sums.take(own), numbers, limit_w).items():
            out.setdefault(name, np.zeros((len(models), *values.shape[1:])))[own] = values
    return out
