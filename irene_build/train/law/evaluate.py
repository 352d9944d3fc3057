"""The law in numpy: every leaf of many runs at once (`irene_runtime.law` is the same, one leaf at a time).

Equal leaves of one tree are one row with a count, so that a fit can evaluate whole tables thousands of times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irene_runtime.law import CACHE_COST, CACHE_SPEED, MEGA, MIB, TILE
from irene_runtime.tree import ModelTree

_FEATURES = ("matmul_flops", "elementwise_flops", "read_bytes", "write_bytes", "weight_bytes", "kernels",
             "gemm_batch", "gemm_m", "gemm_n", "gemm_k", "attended")  # fmt: skip
_UNITS = np.array([MEGA, MEGA, MIB, MIB, MIB] + [1.0] * 6)


@dataclass(frozen=True)
class Runs:
    """Leaves of many runs, and what each run was under.

    ``leaves``: float64[l, 11], columns as ``_FEATURES``, SI units. ``fused``: bool[l]. ``count``: float64[l], equal
    leaves of the run. ``run``: int64[l]. Per run: ``dtype`` str[r], ``clock`` float64[r] in Hz and ``limit``
    float64[r] in W, NaN where not said.
    """

    leaves: np.ndarray
    fused: np.ndarray
    count: np.ndarray
    run: np.ndarray
    dtype: np.ndarray
    clock: np.ndarray
    limit: np.ndarray

    def pick(self, chosen: np.ndarray) -> Runs:
        """The runs of a mask bool[r]."""
        number = np.cumsum(chosen) - 1
        rows = chosen[self.run]
        return Runs(
            self.leaves[rows], self.fused[rows], self.count[rows], number[self.run[rows]],
            self.dtype[chosen], self.clock[chosen], self.limit[chosen],
        )  # fmt: skip


def runs(trees: Sequence[ModelTree]) -> Runs:
    """The runs of trees; trees that share their nodes are looked at once."""
    seen: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    parts = []
    for tree in trees:
        if id(tree.nodes) not in seen:
            seen[id(tree.nodes)] = _leaves(tree)
        parts.append(seen[id(tree.nodes)])
    return Runs(
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
        np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts]),
        np.array([str(tree.header["dtype"]) for tree in trees]),
        1e6 * np.array([float(tree.header.get("clock_mhz") or np.nan) for tree in trees]),
        np.array([float(tree.header.get("power_limit_w") or np.nan) for tree in trees]),
    )


def _leaves(tree: ModelTree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = [
        (node.primitive == "Attention", *(node.features.get(name, 0.0) for name in _FEATURES))
        for node in tree.nodes
        if node.level == "ml" and node.primitive != "Host"
    ]
    distinct, count = np.unique(np.array(rows, dtype=float).reshape(-1, 12), axis=0, return_counts=True)
    return distinct[:, 1:] * _UNITS, distinct[:, 0] > 0.0, count.astype(float)


@dataclass(frozen=True)
class Spent:
    """float64 per leaf: ``time_s``, ``dynamic_j``, ``energy_j``; per run, the whole pass: ``pass_s``, ``pass_j``."""

    time_s: np.ndarray
    dynamic_j: np.ndarray
    energy_j: np.ndarray
    pass_s: np.ndarray
    pass_j: np.ndarray


def spent(law: Mapping[str, Any], data: Runs) -> Spent:
    """What the law of an estimator file says of every leaf and every run."""
    values = {name: entry["value"] for name, entry in law["numbers"].items()}
    return evaluate(values, law["device"], with_defaults(law, data))


def with_defaults(law: Mapping[str, Any], data: Runs) -> Runs:
    """Clocks and limits that a run does not say are those of the calibration."""
    clock = float(law.get("clock_hz") or law["device"]["max_clock_hz"])
    return replace(
        data,
        clock=np.where(np.isnan(data.clock), clock, data.clock),
        limit=np.where(np.isnan(data.limit), law["device"]["power_limit_w"], data.limit),
    )


def evaluate(n: Mapping[str, float], device: Mapping[str, Any], data: Runs) -> Spent:
    """The formulas of `irene_runtime.law`, with numbers ``n``; ``data`` says clock and limit of every run."""
    matmul, vector, read, write, weights, kernels, products, rows, columns, inner, attended = data.leaves.T
    peaks, run, fused = device["peak_flops_per_s"], data.run, data.fused
    wide_run = np.isin(data.dtype, ("float32", "float64"))
    peak_run = np.array([peaks.get(dtype) or peaks["float32"] for dtype in data.dtype])
    half = peaks.get("float16") or peaks["float32"]
    clock_run = data.clock / device["max_clock_hz"]
    voltage_run = np.maximum(clock_run, n["voltage_floor"]) ** n["voltage_power"]
    static_run = n["static_w"] + n["clock_w"] * clock_run * voltage_run
    wide, peak, clock = wide_run[run], peak_run[run], clock_run[run]

    masked = fused & (attended > 0.0)
    matmul = np.where(masked, np.minimum(matmul, 4.0 * attended * inner), matmul)
    vector = np.where(masked, np.minimum(vector, 5.0 * attended), vector)
    kind = np.where(fused, n["efficiency_attention"], np.where(products > 1.0, n["efficiency_batched"], 1.0))
    efficiency = np.where(wide, n["efficiency_float32"], n["efficiency_16"]) * kind
    share = np.where(wide, peak / half, 1.0)
    edge, fill = n["tile"], n["fill"] * share
    extra = 2.0 * products * ((inner + fill) * (rows + edge) * (columns + edge) - inner * rows * columns)
    height = (rows + edge) / (rows + edge + 128.0)
    extra += 2.0 * inner * n["tail"] * np.minimum(1.0, 4.0 * share) * device["sms"] * TILE * height
    work = matmul + np.where((products > 0.0) & ~fused, extra, 0.0)
    flop_s = work / (peak * efficiency * clock) + vector / (peaks["float32"] * n["efficiency_vector"] * clock)

    passing = read + write
    cache = n["cache"] * device["l2_bytes"] * kernels
    reached = passing * np.divide(passing, passing + cache, out=np.zeros_like(passing), where=passing > 0.0)
    stayed = passing - reached
    reached = reached + weights
    slow = 1.0 - n["clock_of_memory"] + n["clock_of_memory"] / clock
    bandwidth = device["bandwidth_bytes_per_s"]
    byte_s = reached / (bandwidth * n["bandwidth"]) * slow + stayed / (CACHE_SPEED * bandwidth * clock)
    time = np.cbrt(flop_s**3 + byte_s**3) + kernels * n["launch_s"]

    per_flop = np.where(wide, n["flop_float32_j"], n["flop_16_j"] * half / peak)
    per_flop = per_flop * np.where(fused, n["flop_attention"], 1.0)
    joules = (matmul * per_flop + vector * n["flop_float32_j"]) * voltage_run[run]
    joules += (reached + CACHE_COST * stayed) * n["byte_j"]
    room = np.maximum(data.limit * n["limit"] - static_run, 0.1 * data.limit)[run]
    power = n["voltage_power"]
    capped = joules > room * time
    stretched = time ** (power / (1.0 + power)) * (joules / room) ** (1.0 / (1.0 + power))
    time = np.where(capped, stretched, time)
    joules = np.where(capped, room * time, joules)
    energy = joules + static_run[run] * time

    size = len(data.dtype)
    busy = np.bincount(run, time * data.count, size)
    launches = np.bincount(run, (kernels + 1.0) * data.count, size)
    whole = (busy**4 + (n["host_s"] * launches + n["pass_s"]) ** 4) ** 0.25
    total = np.bincount(run, energy * data.count, size) + (whole - busy) * static_run * min(1.0, n["gap"])
    return Spent(time, joules, energy, whole, total)
