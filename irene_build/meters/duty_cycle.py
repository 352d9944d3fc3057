"""Which share of the time a meter's sensor looks: its duty, found by load pulses of shifting phase.

A sensor that looks at a part of each period (an A100 or H100 by NVML about a quarter, arXiv 2312.02741; an emonPi some
mains cycles of each frame) answers to a load by the share of that part in which it was on. Pulses of ever other
lengths begin anywhere within the period, so that over a train every phase is met. What the readings answer
to best, as a straight line over the load's share of [t - delay - duty x period, t - delay], tells duty and place.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irene_build.meters.base import Meter, MeterInfo, Reading
from irene_build.meters.kept import keep, kept

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.float64]]

#: Below this correlation of readings and load, or with a wider 95 % interval than this, nothing is said.
MIN_CORRELATION, MAX_WIDTH = 0.85, 0.5
#: No duty is told better than this.
LEAST_ERROR = 0.03
#: Readings that answer to a train at least.
MIN_READINGS = 24
#: Lengths of pulses and of the rests between them, in periods, and in s at least.
_SHORTEST, _LONGEST, _LEAST_S = 0.12, 1.3, 0.005
#: The share of a train that is to tell how often each meter has news, and what many GPUs need for that, s.
_SCOUT, _USUAL_S, _FEW = 0.25, 0.1, 4
_LOW, _HIGH = 0.02, 12.0
_STORE = "meters.json"
Interval = tuple[float, float]


@dataclass(frozen=True)
class Duty:
    """``duty``: share of a period that the sensor looks, at most 1; ``low``, ``high``: its 95 % interval.

    ``window_s``: how long it looks, which can be longer than a period (a running mean); ``delay_s``: from the end of
    that to the arrival of the reading; ``period_s``: between readings that brought news; ``correlation``: of
    readings and load. Where ``duty`` is None, ``reason`` says why.
    """

    duty: float | None
    low: float | None = None
    high: float | None = None
    window_s: float | None = None
    delay_s: float | None = None
    period_s: float | None = None
    correlation: float | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def pulse_train(
    burn: Callable[[float], None], periods_s: Sequence[float], seconds: float, chance: random.Random
) -> list[Interval]:
    """Loads by turns for ``seconds``; gives the busy intervals, host s. ``burn`` loads for so long, and returns.

    Lengths suit each of ``periods_s`` by turns of chance.
    """

    def length() -> float:
        periods = math.exp(chance.uniform(math.log(_SHORTEST), math.log(_LONGEST)))
        return max(_LEAST_S, periods * chance.choice(periods_s))

    busy, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        burn(length())
        busy.append((start, time.monotonic()))
        time.sleep(length())
    return busy


def measure_duty(
    meters: Mapping[str, Meter], burn: Callable[[float], None], seconds: float, seed: int = 0
) -> dict[str, Duty]:
    """Duties of open meters that all see what ``burn`` does, from one train. Raises MeterError where one stops."""
    chance = random.Random(seed)
    readings: dict[str, list[Reading]] = {name: [] for name in meters}
    burn(_LEAST_S)  # what starts up on its first use is no pulse
    for meter in meters.values():
        meter.read_new(0.0)
    # How often a source is asked is not how often it has news: a first part of the train tells that.
    declared = [meter.info.period_s for meter in meters.values()]
    busy = pulse_train(burn, [*declared, _USUAL_S], _SCOUT * seconds, chance)
    for name, meter in meters.items():
        readings[name] += meter.read_new(0.0)
    periods = [_news_period_s(readings[name], meter.info) for name, meter in meters.items()]
    busy += pulse_train(burn, periods, (1.0 - _SCOUT) * seconds, chance)
    time.sleep(2.0 * max(periods))
    for name, meter in meters.items():
        readings[name] += meter.read_new(0.0)
    return {name: find_duty(readings[name], meter.info.kind, busy) for name, meter in meters.items()}


def _news_period_s(readings: Sequence[Reading], info: MeterInfo) -> float:
    """Between readings that brought news; what the meter says of itself where there are too few."""
    gaps = _news(readings, info.kind)[1]
    return float(np.median(gaps)) if len(gaps) >= _FEW else info.period_s


def find_duty(readings: Sequence[Reading], kind: str, busy: Sequence[Interval]) -> Duty:
    """The duty that explains readings, given when the load was on (host s)."""
    times, gaps, watts = _news(readings, kind)
    if len(times) < MIN_READINGS:
        return Duty(
            None, reason=f"{len(times)} readings with news, {MIN_READINGS} are needed: give more --seconds"
        )
    period = float(np.median(gaps))
    spans = np.full_like(gaps, period) if kind == "power" else gaps
    edges = np.array([edge for pair in busy for edge in pair])
    lengths = np.array([end - start for start, end in busy])
    on_s = np.stack([np.cumsum(lengths) - lengths, np.cumsum(lengths)], axis=1).ravel()

    def busy_until(moments: Array) -> Array:
        return np.interp(moments, edges, on_s)

    straight = np.stack([np.ones_like(times), times - times.mean()], axis=1)
    base = np.linalg.qr(straight)[0]  # a level and a slow warming are no answer to a pulse
    left = watts - base @ (base.T @ watts)
    swing = float(np.abs(left).max())
    if swing <= 1e-9 * max(1e-9, float(np.abs(watts).max())):
        return Duty(None, period_s=period, reason="its readings do not move at all")
    left /= swing
    size = float(left @ left)

    def explained(duty: float, delays: Array) -> Array:
        """Per delay, the share of the readings' variance that the load's share of the window explains."""
        ends = times[None, :] - delays[:, None]
        share = (busy_until(ends) - busy_until(ends - duty * spans[None, :])) / (duty * spans[None, :])
        share = share - (share @ base) @ base.T
        norm = np.einsum("ij,ij->i", share, share)
        along = np.maximum(0.0, share @ left)  # more load is more power
        return np.divide(along**2, norm * size, out=np.zeros(len(delays)), where=norm > 1e-12)

    def best(duties: Array, step: float, near: float | None) -> tuple[Array, Array]:
        found = []
        for duty in duties:
            reach = np.arange(-0.5 * period, max(2.0, 1.5 + duty) * period, step)
            delays = reach if near is None else np.arange(near - 2.0 * period, near + 2.0 * period, step)
            score = explained(float(duty), delays)
            found.append((score.max(), delays[int(score.argmax())]))
        scores, places = np.array(found).T
        return np.minimum(scores, 1.0 - 1e-9), places  # a perfect fit of few readings proves no more

    duties = np.geomspace(_LOW, _HIGH, 60)
    scores, places = best(duties, period / 25.0, None)
    top = int(scores.argmax())
    duties = np.geomspace(duties[max(0, top - 4)], duties[min(len(duties) - 1, top + 4)], 120)
    scores, places = best(duties, period / 100.0, None)
    top = int(scores.argmax())
    correlation = math.sqrt(float(scores[top]))
    if correlation < MIN_CORRELATION:
        return Duty(
            None, period_s=period, correlation=correlation,
            reason="load pulses cannot be seen in its readings: it does not meter what was loaded, or other "
            "load hides them",
        )  # fmt: skip
    # Profile likelihood: what explains the readings nearly as well is as likely as not what it was.
    freedom = len(times) - 5
    unexplained = 1.0 - scores
    likely = duties[unexplained <= unexplained[top] * math.exp(3.84 / freedom)]
    # Beyond that, a window's ends are known no better than when readings come.
    late = gaps - period * np.round(
        gaps / period
    )  # equal readings in a row are no news: whole periods are missing
    loose = max(LEAST_ERROR, 3.0 * float(np.std(late)) / period) if kind == "power" else LEAST_ERROR
    low, high = max(0.0, min(likely.min(), duties[top] - loose)), max(likely.max(), duties[top] + loose)
    if high - low > MAX_WIDTH:
        reason = f"between {low:.2g} and {high:.2g}: too few readings, or too noisy; give more --seconds"
        return Duty(None, period_s=period, correlation=correlation, reason=reason)
    duty = float(duties[top])
    ends = (min(1.0, float(low)), min(1.0, float(high)))
    return Duty(min(1.0, duty), *ends, duty * period, float(places[top]), period, correlation)


def _news(readings: Sequence[Reading], kind: str) -> tuple[Array, Array, Array]:
    """Times (host s), spans since the one before (s) and power (W) of readings that brought news."""
    own_clock = bool(readings) and all(r.meter_time_s is not None for r in readings)
    host = [r.host_time_ns / 1e9 for r in readings]
    if own_clock:
        # The meter's own stamps are free of how late a busy host looks; the promptest arrival ties them.
        stamps = [r.meter_time_s or 0.0 for r in readings]
        ahead = min(h - m for h, m in zip(host, stamps, strict=True))
        host = [stamp + ahead for stamp in stamps]
    kept = [0] if readings else []
    for place, reading in enumerate(readings):
        if place and reading.value != readings[kept[-1]].value:
            kept.append(place)
    times = np.array([host[place] for place in kept])
    values = np.array([readings[place].value for place in kept])
    gaps = np.diff(times)
    good = gaps > 0.0
    watts = np.diff(values)[good] / gaps[good] if kind == "energy" else values[1:][good]
    return times[1:][good], gaps[good], watts


def store_duty(info: MeterInfo, found: Duty) -> Path:
    """Keeps a duty per meter in the folder of artifacts, for ``known_duty``."""
    return keep(_STORE, _key(info), found.as_dict())


def known_duty(info: MeterInfo) -> Duty | None:
    """What ``store_duty`` kept of this meter, or nothing."""
    try:
        return Duty(**kept(_STORE, _key(info)))
    except TypeError:
        return None


def _key(info: MeterInfo) -> str:
    details = info.details
    parts = [info.source, details.get("driver"), details.get("grammar")]
    return " | ".join(str(part) for part in parts if part)
