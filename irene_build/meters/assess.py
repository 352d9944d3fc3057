"""How good a meter is: what its readings look like over an idle window, and how long one must measure."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from irene_build.meters.base import Meter, Reading

_Z95 = 1.96


@dataclass(frozen=True)
class Assessment:
    """Figures of one meter on an idle window; ``None`` where there were too few readings to tell.

    ``period_s``: median time between readings that brought news; ``jitter_s``: its standard deviation.
    ``coverage``: share of the time that the readings claim to cover; how much of it the sensor really looks is
    ``duty`` of irene_build/meters/duty_cycle.py. ``quantum``: smallest step between readings, W or J.
    ``power_w``, ``noise_w``: mean and standard deviation of one reading (of one step, for a counter).
    ``shortest_window_s``: window for 1 % error at 95 %, see ``shortest_window_s``.
    """

    readings: int
    seconds: float
    period_s: float | None
    jitter_s: float | None
    coverage: float | None
    quantum: float | None
    power_w: float | None
    noise_w: float | None
    shortest_window_s: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def assess(
    meters: Mapping[str, Meter], seconds: float, progress: Callable[[float], None] = lambda done: None
) -> dict[str, Assessment]:
    """Reads open meters side by side for ``seconds``. Raises MeterError where one stops."""
    for meter in meters.values():
        meter.read_new(0.0)
    start = time.monotonic()
    readings: dict[str, list[Reading]] = {name: [] for name in meters}
    while (elapsed := time.monotonic() - start) < seconds:
        time.sleep(min(0.1, seconds - elapsed))
        for name, meter in meters.items():
            readings[name] += meter.read_new(0.0)
        progress(min(elapsed, seconds))
    elapsed = time.monotonic() - start
    infos = {name: meter.info for name, meter in meters.items()}
    return {
        name: figures(readings[name], info.kind, info.window_s, elapsed, info.quantum)
        for name, info in infos.items()
    }


def figures(
    readings: list[Reading], kind: str, window_s: float, seconds: float, quantum: float = 0.0
) -> Assessment:
    """The figures of readings that arrived within ``seconds``."""
    pairs = list(itertools.pairwise(readings))
    gaps = [(b.host_time_ns - a.host_time_ns) / 1e9 for a, b in pairs]
    if len(pairs) < 3 or min(gaps) <= 0.0:
        return Assessment(len(readings), seconds, None, None, None, None, None, None, None)
    period = statistics.median(gaps)
    steps = [abs(b.value - a.value) for a, b in pairs]
    moved = [step for step in steps if step > 1e-9]
    span = (readings[-1].host_time_ns - readings[0].host_time_ns) / 1e9
    if kind == "energy":
        powers = [step / gap for step, gap in zip(steps, gaps, strict=True)]
        mean = (readings[-1].value - readings[0].value) / span
        coverage = 1.0
        quantum = statistics.median(steps)
    else:
        powers = [reading.value for reading in readings]
        mean = statistics.fmean(powers)
        coverage = min(1.0, len(readings) * window_s / seconds)
        quantum = max(quantum, min(moved, default=0.0))
    noise = _noise(powers)
    # What a counter missed at one reading it has at the next: only the ends of a window weigh.
    window = shortest_window_s(mean, 0.0 if kind == "energy" else noise, period)
    return Assessment(
        readings=len(readings),
        seconds=seconds,
        period_s=period,
        jitter_s=statistics.pstdev(gaps),
        coverage=coverage,
        quantum=quantum,
        power_w=mean,
        noise_w=noise,
        shortest_window_s=window,
    )


def shortest_window_s(
    power_w: float, noise_w: float, period_s: float, error: float = 0.01, duty: float = 1.0
) -> float | None:
    """The T at which 1.96 sqrt((noise^2 + (1 - d)^2 power^2 / 6) p / T + (power p)^2 / (6 T^2)) is ``error`` x power.

    The first term is the noise of T / p readings, and what a sensor that looks a share d of each period p is wrong by
    where the load swings within it: (1 - d) times the difference of what it sees and does not see, each anywhere
    between nothing and all of the power (uniform, 1/12 each). It shrinks with readings only while windows begin
    at changing phases. The last is the worst case of both ends: the load begins and ends anywhere within p.
    """
    if power_w <= 0.0 or period_s <= 0.0:
        return None
    a = (power_w * period_s) ** 2 / 6.0
    b = (noise_w**2 + ((1.0 - duty) * power_w) ** 2 / 6.0) * period_s
    c = (error * power_w / _Z95) ** 2
    return (b + math.sqrt(b * b + 4.0 * a * c)) / (2.0 * c)


def idle_noise(meter: Meter) -> tuple[float, float]:
    """(standard deviation, mean) of ten idle readings, W; a counter's steps are not noise."""
    values: list[float] = []
    deadline = time.monotonic() + min(15.0, max(3.0, 12.0 * meter.info.period_s))
    while len(values) < 10 and time.monotonic() < deadline:
        values += [reading.value for reading in meter.read_new(0.25)]
    if meter.info.kind == "energy" or len(values) < 3:
        return 0.0, 0.0
    # Other work only adds, so the quieter half is nearer to the meter's own noise.
    values.sort()
    half = values[: max(3, len(values) // 2)]
    return statistics.pstdev(half), statistics.fmean(half)


def _noise(powers: list[float]) -> float:
    """Standard deviation of one reading about a slowly moving mean: from successive differences."""
    differences = [b - a for a, b in itertools.pairwise(powers)]
    return math.sqrt(statistics.fmean(d * d for d in differences) / 2.0)
