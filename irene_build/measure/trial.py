"""One trial: gate, idle window, warm-up, measured window, guard. It gives times; joules are derived later."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from irene_build.measure.conditions import Conditions
from irene_build.measure.device import Device
from irene_build.measure.heartbeat import Heartbeat
from irene_build.measure.labels import GAP_PERIODS
from irene_build.measure.plan import MeasurementProtocol
from irene_build.measure.recorder import MeterRecorder

Runner = Callable[[], None]
#: The device is asked whether it is done about this often, s: rarely enough to cost nothing.
_CHUNK_S = 0.02
#: A meter that polls is late where the machine is busy; it is not waited for in vain where it answers at once.
_PATIENCE_S = 1.0
#: A process that ran in a window for less of it than this was stopped.
_STOPPED_SHARE = 0.01
#: What any process may have to wait for its turn; a node that is slower than in its warm-up by more did not run alone.
_STALL_NS, _TURN_NS = 250_000_000, 100_000_000
_PACE = 1.25


@dataclass(frozen=True)
class Gate:
    """How the idle window before a trial went. ``passed``: not more than standby power was drawn."""

    start_ns: int
    end_ns: int
    passed: bool
    waited_s: float
    watts: float | None


@dataclass(frozen=True)
class Window:
    """A measured window: ``runs`` of the node in it, what spoils it, and how many cores others used."""

    start_ns: int
    end_ns: int
    runs: int
    reasons: list[str]
    foreign_cores: float | None


def standby_gate(
    recorder: MeterRecorder,
    conditions: Conditions,
    protocol: MeasurementProtocol,
    standby_w: float,
    timeout_s: float,
) -> Gate:
    """Wait, idle, until the machine draws standby power and is cool; ``timeout_s`` longer at most.

    An idle window lasts ``idle_s``, and until a reading has come in it.
    """
    begin = time.monotonic()
    time.sleep(protocol.settle_s)
    limit = standby_w * (1.0 + protocol.gate_share)
    while True:
        start = time.monotonic_ns()
        time.sleep(protocol.idle_s)
        recorder.wait_past(start, GAP_PERIODS * recorder.period_s)
        recorder.check()
        end = time.monotonic_ns()
        seen = recorder.watts(start, end)
        watts = fmean(seen) if seen else None
        hot = conditions.temperature_c()
        cool = hot is None or hot <= protocol.max_temperature_c
        passed = watts is not None and watts <= limit and cool
        waited = time.monotonic() - begin
        if passed or waited - protocol.settle_s - protocol.idle_s >= timeout_s:
            return Gate(start, end, passed, waited, watts)


def run_window(
    run: Runner,
    device: Device,
    recorder: MeterRecorder,
    conditions: Conditions,
    protocol: MeasurementProtocol,
    window_s: float,
) -> Window:
    """Warm up, run the node over and over for ``window_s``, and go on for the guard.

    The device is synchronised at both ends of the window. At least one run is measured, however long.
    """
    with Heartbeat() as heartbeat:
        latency = _warm_up(run, device, protocol.warm_s)
        chunk = max(1, min(100_000, math.floor(_CHUNK_S / latency)))
        before = conditions.snapshot()
        start = time.monotonic_ns()
        deadline = start + round(window_s * 1e9)
        runs, slowest, last = 0, 0, start
        while last < deadline:
            for _ in range(chunk):
                run()
            device.synchronize()
            now = time.monotonic_ns()
            runs, slowest, last = runs + chunk, max(slowest, now - last), now
    end = last
    after = conditions.snapshot()
    guard_until = end + round(protocol.guard_s * 1e9)
    while time.monotonic_ns() < guard_until:
        for _ in range(chunk):
            run()
        device.synchronize()
    reasons, foreign = conditions.reasons(before, after, protocol.foreign_cores, protocol.foreign_gpu)
    usual = 1e9 * latency * chunk
    stopped_ns = 1e9 * heartbeat.stopped_s(start, end)
    # Where others take the processor, waiting for a turn is what foreign load means.
    least_ns = _TURN_NS if "foreign load" in reasons else 0
    stopped = stopped_ns > max(_STOPPED_SHARE * (end - start), least_ns)
    if stopped or slowest > _STALL_NS + _PACE * usual:
        reasons.append("stalled")
    elif end - start > _PACE * 1e9 * latency * runs:
        reasons.append("slower than its warm-up")
    # A reading is the mean of a frame: the window's end lies within one whose middle is behind it.
    behind_ns = end + round(0.6e9 * recorder.period_s)
    recorder.wait_past(behind_ns, max(_PATIENCE_S, 10.0 * recorder.period_s))
    recorder.check()
    if recorder.gap_s(start, end) is not None:
        reasons.append("gap in the meter")
    return Window(start, end, runs, reasons, foreign)


def _warm_up(run: Runner, device: Device, seconds: float) -> float:
    """Run for ``seconds``, at least twice; gives the time of one run, s, the first one aside."""
    run()
    device.synchronize()
    start = time.monotonic_ns()
    runs, elapsed, chunk = 0, 0.0, 1
    while not runs or elapsed < seconds:
        for _ in range(chunk):
            run()
        device.synchronize()
        runs += chunk
        elapsed = max(1, time.monotonic_ns() - start) / 1e9
        chunk = max(1, min(100_000, math.floor(_CHUNK_S * runs / elapsed)))
    return elapsed / runs
