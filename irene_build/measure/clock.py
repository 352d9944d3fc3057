"""Meter clocks against the host's: a load pulse found in the meter's readings gives offset and drift.

A pulse is a few busy intervals whose host times are known. A meter averages power over its frame, so
a frame sees the share of its span that was busy; the offset is where that share, as a function of a
shifted clock, explains the readings best (least squares, which is cross-correlation with the mean and
the amplitude left free). The time of a frame is taken as its middle: transport delay and half a frame
are part of the offset, and what remains can be integrated by the trapezoid rule.

    meter time = host time + offset + drift * (host time - reference)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

#: A pulse in units of time: (busy?, length). The Barker code of length 13 between two rests: shifted, it looks
#: less like itself than any other of its length, so that other work on the machine is not taken for it.
PATTERN = (
    (False, 2), (True, 5), (False, 2), (True, 2), (False, 1), (True, 1), (False, 1), (True, 1), (False, 2),
)  # fmt: skip
#: Below this correlation, or where another place fits nearly as well, a pulse is not believed to have been seen.
MIN_CORRELATION, MIN_SCORE = 0.6, 1.2
#: Few readings look like any pulse somewhere: standard deviations (of Fisher's transform) from what chance gives.
MIN_SIGMA = 4.0
_MAX_SCORE = 99.0


@dataclass(frozen=True)
class PulseFit:
    """Where one pulse was seen: ``offset_s`` is meter minus host at ``host_s``, ``std_s`` its error.

    ``correlation``: of the readings with the pulse, which is what the pulse's share of their size is.
    ``score``: how many times better this place fits than the best one that is not next to it.
    """

    host_s: float
    offset_s: float
    std_s: float
    correlation: float
    score: float

    @property
    def found(self) -> bool:
        return self.correlation >= MIN_CORRELATION and self.score >= MIN_SCORE


@dataclass(frozen=True)
class ClockMap:
    """The meter's clock as a line over the host's. ``residual_s``: 1-sigma error of a mapped time.

    ``pulses``: those that it was found by; ``score``: the lowest of theirs.
    """

    offset_s: float
    drift: float
    reference_s: float
    residual_s: float
    pulses: int
    score: float = 0.0

    def to_meter(self, host_s: float) -> float:
        """Meter time of a host time, both in seconds."""
        return host_s + self.offset_s + self.drift * (host_s - self.reference_s)

    def offset_at(self, host_s: float) -> float:
        """Meter minus host at ``host_s``, s."""
        return self.offset_s + self.drift * (host_s - self.reference_s)


def _busy_share(times_s: np.ndarray, busy: Sequence[tuple[float, float]], span_s: float) -> np.ndarray:
    """Share of each span of ``span_s`` around a time that lies in a busy interval; any shape."""
    edges, cumulative = [busy[0][0]], [0.0]
    for start, end in busy:
        edges += [start, end]
        cumulative += [cumulative[-1], cumulative[-1] + end - start]
    half = span_s / 2.0
    upper = np.interp(times_s + half, edges, cumulative)
    return (upper - np.interp(times_s - half, edges, cumulative)) / span_s


def fit_pulse(
    times_s: Sequence[float] | np.ndarray,
    watts: Sequence[float] | np.ndarray,
    busy: Sequence[tuple[float, float]],
    idle_s: float,
    period_s: float,
    guess_s: float,
    search_s: float,
) -> PulseFit:
    """Find the ``busy`` intervals (host seconds) in readings ``watts`` at ``times_s`` (meter seconds).

    ``idle_s``: idle time before the first and after the last of them; what lies outside is other work.
    ``period_s``: span of one frame. Offsets within ``guess_s`` +/- ``search_s`` are tried.
    A pulse that cannot be told from the readings comes back with correlation 0 and an infinite error.
    """
    times, power = np.asarray(times_s, dtype=float), np.asarray(watts, dtype=float)
    begin, end = busy[0][0] - idle_s, busy[-1][1] + idle_s
    middle, span = (begin + end) / 2.0, max(period_s, 1e-4)
    lost = PulseFit(middle, guess_s, math.inf, 0.0, 0.0)
    keep = (times > begin + guess_s - search_s) & (times < end + guess_s + search_s)
    times, power = times[keep], power[keep]
    if times.size < 6:
        return lost
    least = max(6.0, 0.8 * (end - begin - span) / float(np.median(np.diff(times))))

    def scores(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Per offset: correlation over the readings that it puts near the pulse, and that times their size."""
        host = times[None, :] - offsets[:, None]
        near = (host > begin + span / 2.0) & (host < end - span / 2.0)
        count = np.maximum(1, near.sum(axis=1, keepdims=True))
        share = np.where(near, _busy_share(host, busy, span), 0.0)
        share = np.where(near, share - share.sum(axis=1, keepdims=True) / count, 0.0)
        level = np.where(near, power, 0.0).sum(axis=1, keepdims=True) / count
        centred = np.where(near, power - level, 0.0)
        size = np.sqrt((centred**2).sum(axis=1))
        norm = np.sqrt((share**2).sum(axis=1)) * size
        product = (share * centred).sum(axis=1)
        usable = (norm > 0.0) & (count[:, 0] >= least)
        found = np.divide(product, norm, out=np.zeros(len(offsets)), where=usable)
        # A pulse is full load: of two stretches of the same shape the larger one is it.
        return found, found * np.abs(found) * size

    shortest = min(b - a for a, b in busy)
    step, score = shortest / 8.0, 0.0
    for width in (search_s, 2.0 * step, span / 8.0):
        grid = np.linspace(guess_s - width, guess_s + width, 2 * max(16, math.ceil(width / step)) + 1)
        value = scores(grid)[1]
        if width == search_s:
            best = int(value.argmax())
            others = value[np.abs(grid - grid[best]) > max(shortest, span)]
            second = max(0.0, float(others.max(initial=0.0)))
            score = min(_MAX_SCORE, float(value[best]) / second) if second else _MAX_SCORE
        # A flat top (readings between the edges see nothing) is settled in its middle.
        guess_s = float(grid[value >= value.max() - 1e-9 * abs(value.max())].mean())
        step = min(step, span) / 8.0
    correlation = float(scores(np.array([guess_s]))[0][0])
    near = (times - guess_s > begin + span / 2.0) & (times - guess_s < end - span / 2.0)
    times, power = times[near], power[near]
    sure = math.atanh(min(max(correlation, 0.0), 1.0 - 1e-9)) * math.sqrt(max(0, times.size - 3))
    if times.size < 6 or sure < MIN_SIGMA:
        return lost
    share = _busy_share(times - guess_s, busy, span)
    slope, level = np.polyfit(share, power, 1)
    residual = power - (slope * share + level)
    nudge = span / 20.0
    later = _busy_share(times - guess_s + nudge, busy, span)
    earlier = _busy_share(times - guess_s - nudge, busy, span)
    information = float(((slope * (later - earlier) / (2.0 * nudge)) ** 2).sum())
    if information == 0.0:
        return lost
    variance = float((residual**2).sum()) / max(1, times.size - 3)
    # An edge is known no better than a twentieth of a frame: busy work does not start in an instant.
    std = math.sqrt(variance / information + (span / 20.0) ** 2)
    return PulseFit(middle, guess_s, std, correlation, score)


def arrival_clock(host_s: Sequence[float], meter_s: Sequence[float], period_s: float) -> ClockMap:
    """The clock as the arrival of readings tells it: a fair drift, and an offset good to about a frame."""
    host, meter = np.asarray(host_s, dtype=float), np.asarray(meter_s, dtype=float)
    if host.size == 0:
        return ClockMap(0.0, 0.0, 0.0, period_s, 0)
    reference = float(host.mean())
    lag, drift = meter - host, 0.0
    if host.size >= 20 and float(np.ptp(host)) > 30.0 * period_s:
        drift = float(np.polyfit(host - reference, lag, 1)[0])
    return ClockMap(
        float(np.median(lag - drift * (host - reference))) + period_s / 2.0, drift, reference, period_s, 0
    )


def fit_clock(fits: Sequence[PulseFit], arrival: ClockMap, own_clock: bool) -> ClockMap:
    """One line through the pulses of a session.

    ``own_clock``: readings carry the meter's time, so drift is fitted (from one pulse alone it is
    taken from ``arrival``). Readings stamped by the host cannot drift, only lag. Without a pulse that
    was found, ``arrival`` is what is known, and its residual says how little that is.
    """
    found = [fit for fit in fits if fit.found and math.isfinite(fit.std_s)]
    if len(found) > 2:
        # One that other work was taken for lies anywhere; the others lie on the clock's line.
        lag = [fit.offset_s - arrival.drift * (fit.host_s - arrival.reference_s) for fit in found]
        middle, apart = median(lag), arrival.residual_s
        pairs = zip(found, lag, strict=True)
        found = [fit for fit, own in pairs if abs(own - middle) <= max(apart, 5.0 * fit.std_s)]
    if not found:
        return arrival
    weights = [1.0 / fit.std_s**2 for fit in found]
    total = math.fsum(weights)
    reference = math.fsum(w * f.host_s for w, f in zip(weights, found, strict=True)) / total
    offset = math.fsum(w * f.offset_s for w, f in zip(weights, found, strict=True)) / total
    drift = 0.0
    if own_clock:
        spread = math.fsum(w * (f.host_s - reference) ** 2 for w, f in zip(weights, found, strict=True))
        if len(found) > 1 and spread > 0.0:
            moment = (w * (f.host_s - reference) * f.offset_s for w, f in zip(weights, found, strict=True))
            drift = math.fsum(moment) / spread
        else:
            drift = arrival.drift
    misfit = [f.offset_s - offset - drift * (f.host_s - reference) for f in found]
    squares = (w * m * m for w, m in zip(weights, misfit, strict=True))
    spread_s = math.sqrt(math.fsum(squares) / total)
    residual_s = max(spread_s, 1.0 / math.sqrt(total))
    return ClockMap(offset, drift, reference, residual_s, len(found), min(fit.score for fit in found))
