"""From raw readings to the joules of one window: pure arithmetic, exactly rounded sums.

The paper integrates its meter over each window (appendix A.3). Here the window's ends lie inside a longer
busy stretch, so that a clock error moves the window along a plateau instead of over a cliff; what is left
of the error is stated with the label.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from irene_build.measure.clock import ClockMap

#: Readings further apart than this many periods are a gap: what happened between them is not known.
GAP_PERIODS = 3.0
#: A counter tells afterwards what it did not show, so that within a window a late look, s, costs nothing.
COUNTER_GAP_S = 0.1


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
        return longest_gap_s(self.times_s[first : last + 1], self.energy, self.period_s) is None


def longest_gap_s(times_s: Sequence[float], energy: bool, period_s: float) -> float | None:
    """The longest silence, s, in readings from the last one before a window to the first one after it.

    None where no silence is too long. A counter's may be longer inside the window than at its ends, between which
    and the readings around them it is interpolated.
    """
    gaps = [b - a for a, b in pairwise(times_s)]
    limit = GAP_PERIODS * period_s
    inner = max(limit, COUNTER_GAP_S) if energy else limit
    last = len(gaps) - 1
    found = [gap for place, gap in enumerate(gaps) if gap > (limit if place in (0, last) else inner)]
    return max(found, default=None)


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


#: A reading that is alone: those to either side agree within LIKE, it is beyond FAR of all of them, and at most so
#: many of the AROUND readings about it are like that.
_LIKE, _FAR, _AROUND, _MOST_ALONE = 1.15, 2.0, 40, 2


def without_lone(readings: Readings) -> tuple[Readings, int]:
    """Power without the readings that are alone among their neighbours, and how many those are.

    A frame of 10 kW, or of nothing, between frames that agree is a fault of the line, not of the load, which lasts for
    many frames; where there are many of them, the load does swing, and all stay.
    """
    values = readings.values
    alone = []
    for place in range(2, len(values) - 2):
        beside = (values[place - 2], values[place - 1], values[place + 1], values[place + 2])
        low, high = min(beside), max(beside)
        far = values[place] > _FAR * high or values[place] * _FAR < low
        if far and 0.0 < high <= _LIKE * low:
            alone.append(place)
    reach = _AROUND // 2
    lone = {
        place
        for place in alone
        if bisect_right(alone, place + reach) - bisect_left(alone, place - reach) <= _MOST_ALONE
    }
    if not lone:
        return readings, 0
    kept = [place for place in range(len(values)) if place not in lone]
    times = [readings.times_s[place] for place in kept]
    return replace(readings, times_s=times, values=[values[place] for place in kept]), len(lone)


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


def student_t95(degrees: float) -> float:
    """Two-sided 95 % quantile, between whole degrees linear in their inverse; 1.96 + 2.4 / degrees beyond 30."""
    if degrees >= len(_T95):
        return 1.96 + 2.4 / degrees
    low = max(1, math.floor(degrees))
    share = (1.0 / low - 1.0 / max(degrees, 1.0)) / (1.0 / low - 1.0 / (low + 1))
    return _T95[low - 1] + share * (_T95[low] - _T95[low - 1])


def relative_variance(values: Sequence[float]) -> float:
    """Sample variance over the squared mean; needs two values."""
    mean = math.fsum(values) / len(values)
    return math.fsum((v / mean - 1.0) ** 2 for v in values) / (len(values) - 1)


#: Nodes with two rounds below which they say nothing about each other.
MIN_GROUPS = 5
#: Degrees of freedom that a prior may have; nodes that all repeat alike go to the last.
_DEGREES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0, 256.0, 1024.0)
_MOST_TURNS, _SETTLED = 200, 1e-7


@dataclass(frozen=True)
class Prior:
    """What all nodes say about how well any one repeats: a relative variance, and the degrees of freedom it is worth.

    Many degrees: nodes repeat alike, and a node's own few rounds hardly count. Few: each has to show it by itself.
    ``known``: degrees of freedom that the prior itself was found from.
    """

    variance: float
    degrees: float
    known: float


def fit_prior(groups: Sequence[Sequence[float]]) -> Prior | None:
    """The spread of variances over nodes, from their rounds; None below MIN_GROUPS nodes with two rounds.

    A node's variance is drawn from a scaled inverse chi-square distribution (Smyth 2004, section 3), whose parameters
    have the largest marginal likelihood; degrees are averaged over theirs, since few nodes leave them open.
    Rounds are added until a node is precise enough, which makes the variances of those that stopped early look small.
    The likelihood of what was seen is the same whatever the rule of stopping, and so is what follows from it (Berger
    and Wolpert 1988, section 4.2): moments of the variances would be wrong here.
    """
    own = [(relative_variance(group), len(group) - 1) for group in groups if len(group) > 1]
    if len(own) < MIN_GROUPS:
        return None
    total = math.fsum(degrees for _, degrees in own)
    variance = math.fsum(v * degrees for v, degrees in own) / total
    if variance <= 0.0:
        return Prior(0.0, total, total)
    fits = []
    # All nodes together know their common variance no better than this.
    for prior in (*(d for d in _DEGREES if d < total), total):
        variance = _scale(own, prior, variance)
        fits.append((_likelihood(own, prior, variance), prior, variance))
    best = max(fits)
    weights = [math.exp(fit[0] - best[0]) for fit in fits]
    inverse = math.fsum(w / prior for w, (_, prior, _) in zip(weights, fits, strict=True)) / math.fsum(
        weights
    )
    # The logarithm's last bit, which machines round differently, must not be in a label.
    degrees = float(f"{1.0 / inverse:.3g}")
    return Prior(_scale(own, degrees, variance), degrees, total)


def _scale(own: Sequence[tuple[float, int]], prior: float, start: float) -> float:
    """The variance of the largest marginal likelihood, given the prior's degrees."""
    variance = start
    for _ in range(_MOST_TURNS):
        before = variance
        variance = len(own) / math.fsum((prior + d) / (prior * variance + d * v) for v, d in own)
        if abs(variance - before) <= _SETTLED * before:
            break
    return variance


def _likelihood(own: Sequence[tuple[float, int]], prior: float, variance: float) -> float:
    """Marginal log likelihood of (variance, degrees) of nodes, less what does not depend on the prior."""
    alone = 0.5 * prior * math.log(prior * variance) - math.lgamma(0.5 * prior)
    return math.fsum(
        alone + math.lgamma(0.5 * (prior + d)) - 0.5 * (prior + d) * math.log(prior * variance + d * v)
        for v, d in own
    )


@dataclass(frozen=True)
class Estimate:
    """A node's joules over its rounds. ``half_width``: 95 % confidence, relative; None where unknown."""

    mean_j: float
    std_j: float
    half_width: float | None


def estimate(values: Sequence[float], errors: Sequence[float], prior: Prior | None) -> Estimate:
    """Mean over rounds and its standard error.

    The variance between rounds is moderated by ``prior``, that of all nodes, because two or three rounds say little
    about themselves; the half-width is a posterior one, which holds whenever measuring stops. That the prior is
    itself found from a few nodes widens it (Kass and Steffey 1989). ``errors`` (1-sigma, J) do not shrink with
    rounds: a quantisation or clock error may be the same in each.
    """
    n = len(values)
    mean = math.fsum(values) / n
    instrument = math.fsum(errors) / n
    own = relative_variance(values) if n > 1 else 0.0
    worth = 0.0 if prior is None else prior.degrees
    degrees = n - 1 + worth
    if degrees == 0.0:
        return Estimate(mean, math.nan, None)
    variance = ((n - 1) * own + (0.0 if prior is None else worth * prior.variance)) / degrees
    repeat = math.sqrt(variance / n) * mean
    known = degrees if prior is None else 1.0 / (1.0 / degrees + 1.0 / prior.known)
    half = math.hypot(student_t95(known) * repeat, 1.96 * instrument) / mean
    return Estimate(mean, math.hypot(repeat, instrument), half)
