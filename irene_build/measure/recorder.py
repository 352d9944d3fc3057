"""Keeps every reading and every resource sample of a session, from the moment it starts to its end."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from irene_build.errors import IreneError, MeterError
from irene_build.measure.conditions import ClockWatch
from irene_build.measure.journal import Journal
from irene_build.measure.labels import GAP_PERIODS, longest_gap_s
from irene_build.measure.rows import PowerRow
from irene_build.meters.base import Meter

FLUSH_S = 1.0
#: A counter's moves are seen up to a poll of 10 ms late: over this they give its power to a few percent.
COUNTER_SPAN_S = 0.2
#: A meter may say nothing for so many periods.
SILENT_PERIODS = 20.0
#: So many equal readings over so long, s, from before a load to its end, come from a meter that is stuck: none takes
#: longer than a second to look again, however often it is asked.
FROZEN_READINGS, FROZEN_S = 5, 1.0
#: A meter's clock that moves against the host's by more than this, and a few periods, did not drift.
CLOCK_BREAK_S = 0.25


class Samples(Protocol):
    """What a campaign needs of ``irene_runtime.sampler.Sampler``."""

    def start(self) -> Any: ...

    def stop(self) -> None: ...

    def sample(self) -> Any: ...

    def samples(self, start_ns: int = 0, end_ns: int | None = None) -> Sequence[Any]: ...


class MeterRecorder:
    """Reads the meter in a thread of its own and writes readings and samples to the journal once a second.

    A fault of the meter or of the disk is kept and raised by ``check`` in the thread that measures. What the
    meter counts and what it alerts to become events at the moment of it, as do a machine that slept and a wall
    clock that was set; ``say`` is given the alerts' texts.

    A session of the journal is a stretch of time over which one line maps the host's clock to the meter's.
    Where a meter's own clock breaks with the host's (the machine slept, the meter was restarted), readings
    from there on belong to a new one, which ``open_session`` makes. ``watch`` is called at every turn. A meter that
    brings no reading for ``silence_s`` (and 20 periods) is a fault.
    """

    def __init__(
        self,
        meter: Meter,
        sampler: Samples,
        journal: Journal,
        open_session: Callable[[], int],
        say: Callable[[str], None] = lambda text: None,
        watch: Callable[[], None] = lambda: None,
        silence_s: float = 90.0,
    ) -> None:
        self.meter, self.sampler, self.journal = meter, sampler, journal
        self.session = open_session()
        self._open_session, self._say, self._watch = open_session, say, watch
        self._clocks = ClockWatch()
        self._awake_ns = time.monotonic_ns()
        self._slept_ns: int | None = None
        self._first = 0
        self._faults: Mapping[str, int] = {}
        self.period_s = meter.info.period_s
        self._silence_s = max(silence_s, SILENT_PERIODS * self.period_s)
        self._energy = meter.info.kind == "energy"
        #: Moments at which a counter was restarted or jumped: what it counted around them is lost.
        self._broken_ns: list[int] = []
        self._rows: list[PowerRow] = []
        self._flushed = 0
        self._sampled_ns = -1
        self._flushing = threading.Lock()
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._listen, name="irene-recorder", daemon=True)

    def __enter__(self) -> MeterRecorder:
        self.sampler.start()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.sampler.stop()
        try:
            self.flush()
        except IreneError:
            if exc[0] is None:
                raise

    def _listen(self) -> None:
        due = before = time.monotonic()
        silent_s = 0.0
        try:
            while not self._stop.is_set():
                readings = self.meter.read_new(min(0.25, self.period_s))
                # A process that was stopped has not listened: a turn counts for so long at most.
                now = time.monotonic()
                silent_s = 0.0 if readings else silent_s + min(now - before, 1.0)
                before = now
                if silent_s > self._silence_s:
                    raise MeterError(
                        f"{self.meter.info.name}: silent for {silent_s:.0f} s: check its cable and its power; every "
                        "finished trial is safe: run the same command again to go on"
                    )
                self._watch()
                self._take([PowerRow(r.host_time_ns, r.value, r.meter_time_s) for r in readings])
                self._alert()
                if time.monotonic() >= due:
                    self.flush()
                    due = time.monotonic() + FLUSH_S
        except Exception as error:
            with self._news:
                self._error = error
                self._news.notify_all()

    def _take(self, rows: Sequence[PowerRow]) -> None:
        """New readings, in sessions of their own from where the meter's clock breaks with the host's."""
        for kind, detail in self._clocks.news():
            self.journal.event(self.session, kind, detail)
            if kind == "suspended":
                self._slept_ns = self._awake_ns
        self._awake_ns = time.monotonic_ns()
        last = self._rows[-1] if self._rows else None
        for row in rows:
            slept = self._slept_ns is not None and row.host_ns > self._slept_ns
            if slept:
                self._slept_ns = None
            if last is not None and row.meter_s is not None and last.meter_s is not None:
                step_s = row.meter_s - last.meter_s - (row.host_ns - last.host_ns) / 1e9
                if slept or abs(step_s) > CLOCK_BREAK_S + GAP_PERIODS * self.period_s:
                    self._renew(step_s)
            with self._news:
                self._rows.append(row)
                self._news.notify_all()
            last = row

    def _renew(self, step_s: float) -> None:
        self.flush()
        with self._flushing:
            self.session = self._open_session()
            self._first = len(self._rows)
        self.journal.event(self.session, "meter clock stepped", {"by_s": step_s})

    def _alert(self) -> None:
        for alert in self.meter.alerts():
            self.journal.event(self.session, alert.kind, {"text": alert.text, **alert.detail})
            self._say(alert.text)
        faults = self.meter.counters()
        if faults != self._faults:
            new = {name: count - self._faults.get(name, 0) for name, count in faults.items()}
            new = {name: count for name, count in new.items() if count}
            if self._energy and {"implausible", "restarts"} & set(new):
                self._broken_ns.append(time.monotonic_ns())
            if new:
                self.journal.event(self.session, "meter faults", new)
            self._faults = dict(faults)

    def check(self) -> None:
        """Raise what went wrong in the background."""
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Write what has come in since; all of it or nothing, and nothing twice."""
        with self._flushing:
            end = len(self._rows)
            samples = self.sampler.samples(self._sampled_ns + 1)
            with self.journal.transaction():
                self.journal.insert(
                    "power", *((self.session, *row) for row in self._rows[self._flushed : end])
                )
                self.journal.insert("resource", *((self.session, *sample) for sample in samples))
            self._flushed = end
            if samples:
                self._sampled_ns = samples[-1][0]

    def wait_past(self, host_ns: int, timeout_s: float) -> bool:
        """Until a reading has arrived after ``host_ns``; False where none came in time."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while not self._rows or self._rows[-1].host_ns <= host_ns:
                self.check()
                left = deadline - time.monotonic()
                if left <= 0 or not self._news.wait(left):
                    return False
        return True

    def between(self, start_ns: int, end_ns: int) -> list[tuple[int, float]]:
        """(host_ns, value) of the readings that arrived in a stretch of time."""
        rows = self._rows
        low = bisect_left(rows, start_ns, key=_arrival)
        high = bisect_right(rows, end_ns, key=_arrival)
        return [(row.host_ns, row.value) for row in rows[low:high]]

    def readings_from(self, start_ns: int) -> list[PowerRow]:
        """Readings of this session that arrived since a moment."""
        rows = self._rows
        return rows[max(self._first, bisect_left(rows, start_ns, key=_arrival)) :]

    def watts(self, start_ns: int, end_ns: int) -> list[float]:
        """Power readings that arrived in a stretch of time.

        Of a counter, its mean power over spans of several moves: one move is as uncertain as when it was seen.
        """
        rows = self.between(start_ns, end_ns)
        if not self._energy:
            return [value for _, value in rows]
        least_ns = 1e9 * max(COUNTER_SPAN_S, 4.0 * self.period_s)
        ends = rows[:1]
        for row in rows[1:]:
            if row[0] - ends[-1][0] >= least_ns:
                ends.append(row)
        if len(ends) < 2:
            ends = [*rows[:1], *rows[1:][-1:]]
        return [(b[1] - a[1]) / ((b[0] - a[0]) / 1e9) for a, b in pairwise(ends) if b[0] > a[0]]

    def gap_s(self, start_ns: int, end_ns: int) -> float | None:
        """The longest silence of the meter in a window, s, if it is too long; infinite if it lasts.

        Readings that arrived late and are in a row by the meter's own clock are no silence.
        """
        rows = self._rows
        first = bisect_right(rows, start_ns, key=_arrival) - 1
        last = bisect_left(rows, end_ns, key=_arrival)
        if first < 0 or last >= len(rows):
            return math.inf
        times = [0.0]
        for before, after in pairwise(rows[first : last + 1]):
            gap = (after.host_ns - before.host_ns) / 1e9
            if before.meter_s is not None and after.meter_s is not None and after.meter_s > before.meter_s:
                gap = after.meter_s - before.meter_s
            times.append(times[-1] + gap)
        return longest_gap_s(times, self._energy, self.period_s)

    def doubts(self, start_ns: int, end_ns: int) -> list[str]:
        """Why readings from before a load to its end are not to be trusted, though they came."""
        found = []
        values = [value for _, value in self.between(start_ns, end_ns)]
        enough = len(values) >= FROZEN_READINGS and end_ns - start_ns >= 1e9 * FROZEN_S
        if not self._energy and enough and len(set(values)) == 1:
            found.append("frozen meter")
        if any(start_ns <= moment <= end_ns + 1_000_000_000 for moment in self._broken_ns):
            found.append("counter jumped")
        return found

    def require_readings(self, timeout_s: float) -> None:
        """Raises MeterError where the meter says nothing at all."""
        if not self.wait_past(time.monotonic_ns(), timeout_s):
            self.check()
            raise MeterError(
                f"{self.meter.info.name}: no reading in {timeout_s:.1f} s;"
                " check the cable, then see `irene-build doctor`"
            )


def _arrival(row: PowerRow) -> int:
    return row.host_ns
