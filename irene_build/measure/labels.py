"""From raw readings to the joules of one window: pure arithmetic, exactly rounded sums.

The paper integrates its meter over each window (appendix A.3). Here the window's ends lie inside a longer
busy stretch, so that a clock error moves the window along a plateau instead of over a cliff; what is left
of the error is stated with the label.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from irene_build.meters.align import ClockMap

#: Readings further apart than this many periods are a gap: what happened between them is not known.
GAP_PERIODS = 3.0


@dataclass(frozen=True)
class Readings:
    """One session's readings in the order of time. ``times_s`` is the meter's clock where it has one."""

    times_s: Sequence[float]
    values: Sequence[float]
    energy: bool
    period_s: float
    quantum: float

    def covers(self, start_s: float, end_s: float) -> bool:
        """Are there readings on both sides of the window and, within it, none missing?"""
        first = bisect_right(self.times_s, start_s) - 1
        last = bisect_left(self.times_s, end_s)
        if first < 0 or last >= len(self.times_s):
            return False
        span = self.times_s[first : last + 1]
        return all(b - a <= GAP_PERIODS * self.period_s for a, b in pairwise(span))


@dataclass(frozen=True)
class WindowEnergy:
    """Joules of a window, the mean power, the readings used, and the error that is not repeatability."""

    energy_j: float
    readings: int
    error_j: float

    def power_w(self, seconds: float) -> float:
        return self.energy_j / seconds


def moving(readings: Readings) -> Readings:
    """A counter's readings at the moments at which it moved: an unchanged reading is no news."""
    times: list[float] = []
    values: list[float] = []
    for time_s, value in zip(readings.times_s, readings.values, strict=True):
        if not values or value != values[-1]:
            times.append(time_s)
            values.append(value)
    return Readings(times, values, True, readings.period_s, readings.quantum)


def value_at(times: Sequence[float], values: Sequence[float], at: float) -> float:
    """Linear interpolation between neighbours; ``at`` lies within the readings."""
    right = min(max(bisect_left(times, at), 1), len(times) - 1)
    t0, t1 = times[right - 1], times[right]
    if t1 == t0:
        return values[right]
    return values[right - 1] + (values[right] - values[right - 1]) * ((at - t0) / (t1 - t0))


def window_energy(readings: Readings, clock: ClockMap, start_s: float, end_s: float) -> WindowEnergy | None:
    """Joules between two host times; None where the readings do not cover the window.

    Power: trapezoid over the readings within and the interpolated ends. Energy: the counter's difference.
    ``error_j`` is 1-sigma: quantisation of the readings, and the clock's residual times the step in power
    that a shifted window would cross.
    """
    start, end = clock.to_meter(start_s), clock.to_meter(end_s)
    if not readings.covers(start, end):
        return None
    times, values = readings.times_s, readings.values
    first_value, last_value = value_at(times, values, start), value_at(times, values, end)
    inside = range(bisect_right(times, start), bisect_left(times, end))
    # The meter's second is not the host's: a drifting clock would sell its own seconds as ours.
    scale = (end_s - start_s) / (end - start)
    step = GAP_PERIODS * readings.period_s
    if readings.energy:
        energy = last_value - first_value
        before = (first_value - value_at(times, values, max(times[0], start - step))) / step
        after = (value_at(times, values, min(times[-1], end + step)) - last_value) / step
        noise = readings.quantum / math.sqrt(6.0)
    else:
        points = [(start, first_value), *((times[i], values[i]) for i in inside), (end, last_value)]
        areas = ((t1 - t0) * (v0 + v1) / 2.0 for (t0, v0), (t1, v1) in pairwise(points))
        energy = math.fsum(areas) * scale
        before, after = first_value, last_value
        noise = readings.quantum / math.sqrt(12.0 * max(1, len(inside))) * (end_s - start_s)
    shift = clock.residual_s * abs(after - before)
    return WindowEnergy(energy, len(inside), math.hypot(noise, shift))


#: Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def student_t95(degrees: int) -> float:
    """Two-sided 95 % quantile; beyond the table 1.96 + 2.4 / degrees, good to 0.001."""
    return _T95[degrees - 1] if degrees <= len(_T95) else 1.96 + 2.4 / degrees


#: Weight, in degrees of freedom, of what all nodes together say about repeatability.
PRIOR_DEGREES = 4


def relative_variance(values: Sequence[float]) -> float:
    """Sample variance over the squared mean; needs two values."""
    mean = math.fsum(values) / len(values)
    return math.fsum((v / mean - 1.0) ** 2 for v in values) / (len(values) - 1)


def pooled_variance(groups: Sequence[Sequence[float]]) -> float | None:
    """Relative variance between rounds over all nodes that have two; None below five such nodes."""
    own = sorted((relative_variance(group), len(group) - 1) for group in groups if len(group) > 1)
    if len(own) < 5:
        return None
    # The noisiest tenth is not what a typical node does; it keeps its own variance anyhow.
    own = own[: len(own) - len(own) // 10]
    return math.fsum(v * d for v, d in own) / sum(d for _, d in own)


@dataclass(frozen=True)
class Estimate:
    """A node's joules over its rounds. ``half_width``: 95 % confidence, relative; None where unknown."""

    mean_j: float
    std_j: float
    half_width: float | None


def estimate(values: Sequence[float], errors: Sequence[float], prior: float | None) -> Estimate:
    """Mean over rounds and its standard error.

    The variance between rounds is moderated by ``prior`` (that of all nodes, with PRIOR_DEGREES degrees of
    freedom; Smyth 2004), because two or three rounds say little about themselves. ``errors`` (1-sigma,
    J) do not shrink with rounds: a quantisation or clock error may be the same in each.
    """
    n = len(values)
    mean = math.fsum(values) / n
    instrument = math.fsum(errors) / n
    own = relative_variance(values) if n > 1 else 0.0
    degrees = n - 1 + (PRIOR_DEGREES if prior is not None else 0)
    if degrees == 0:
        return Estimate(mean, math.nan, None)
    variance = ((n - 1) * own + PRIOR_DEGREES * (prior or 0.0)) / degrees if prior is not None else own
    repeat = math.sqrt(variance / n) * mean
    half = math.hypot(student_t95(degrees) * repeat, 1.96 * instrument) / mean
    return Estimate(mean, math.hypot(repeat, instrument), half)
