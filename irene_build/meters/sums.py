"""Sums of sources, such as RAPL and NVML: one energy counter with the parts' boundaries in its name."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from irene_build.errors import HardwareError
from irene_build.meters.base import Alert, Meter, MeterInfo, Reading
from irene_build.meters.threaded import FeedMeter

_WAIT_S = 0.05


class Cumulative:
    """One source as a line of cumulative joules; a source of power is integrated by the trapezoid rule."""

    def __init__(self, kind: str) -> None:
        self._power = kind == "power"
        self._joules = 0.0
        self._last: Reading | None = None
        self.points: deque[tuple[int, float]] = deque(maxlen=100_000)

    def add(self, reading: Reading) -> None:
        if self._last is not None and reading.host_time_ns <= self._last.host_time_ns:
            return
        if not self._power:
            self._joules = reading.value
        elif self._last is not None:
            seconds = (reading.host_time_ns - self._last.host_time_ns) / 1e9
            self._joules += seconds * (reading.value + self._last.value) / 2.0
        self._last = reading
        self.points.append((reading.host_time_ns, self._joules))

    def at(self, time_ns: int) -> float:
        """Joules at a moment between the first and the last point, by linear interpolation."""
        while len(self.points) > 2 and self.points[1][0] <= time_ns:
            self.points.popleft()
        (t0, e0), (t1, e1) = self.points[0], self.points[1]
        return e0 + (e1 - e0) * (time_ns - t0) / (t1 - t0)


class SumMeter(FeedMeter):
    """Adds sources up at moments at which all of them are known; no news from one is no news from the sum."""

    def __init__(self, parts: Sequence[Meter]) -> None:
        super().__init__()
        self._parts = list(parts)
        self._lines: list[Cumulative] = []
        self._stack = ExitStack()
        self._base: float | None = None
        self._last_ns = 0

    @property
    def info(self) -> MeterInfo:
        infos = [part.info for part in self._parts]
        provenances = {info.provenance for info in infos}
        worst = next((p for p in ("simulated", "estimated", "integrated") if p in provenances), "measured")
        return MeterInfo(
            name="+".join(info.name for info in infos),
            source=" + ".join(info.source for info in infos),
            kind="energy",
            boundary=join_boundaries([info.boundary for info in infos]),
            provenance=worst,
            period_s=max(info.period_s for info in infos),
            quantum=sum(info.quantum for info in infos if info.kind == "energy"),
            power_kind="board",
            details={info.name: dict(info.details) for info in infos},
        )

    def _open(self) -> None:
        self._stack = ExitStack()
        self._base = None
        for part in self._parts:
            self._stack.enter_context(part)
        self._lines = [Cumulative(part.info.kind) for part in self._parts]

    def _close(self) -> None:
        self._stack.close()

    def counters(self) -> Mapping[str, int]:
        total = Counter(super().counters())
        for part in self._parts:
            total.update(part.counters())
        return dict(total)

    def alerts(self) -> list[Alert]:
        return [*super().alerts(), *(alert for part in self._parts for alert in part.alerts())]

    def _step(self) -> None:
        for part, line in zip(self._parts, self._lines, strict=True):
            for reading in part.read_new(_WAIT_S):
                line.add(reading)
        if any(len(line.points) < 2 for line in self._lines):
            return
        start = max(line.points[0][0] for line in self._lines)
        end = min(line.points[-1][0] for line in self._lines)
        slowest = max(self._lines, key=lambda line: line.points[1][0] - line.points[0][0])
        moments = [t for t, _ in slowest.points if max(start, self._last_ns + 1) <= t <= end]
        for moment in moments:
            total = sum(line.at(moment) for line in self._lines)
            self._base = total if self._base is None else self._base
            self._last_ns = moment
            self._emit(Reading(moment, total - self._base))


def join_boundaries(boundaries: Sequence[str]) -> str:
    """``cpu+dram`` and ``gpu`` are ``cpu+dram+gpu``. HardwareError where one would be counted twice."""
    parts = [part for boundary in boundaries for part in boundary.split("+")]
    twice = {part for part in parts if parts.count(part) > 1}
    whole = {"wall", "platform"} & set(parts)
    if twice or (whole and len(boundaries) > 1):
        raise HardwareError(f"a sum of {' and '.join(boundaries)} would count joules twice")
    return "+".join(parts)
