"""Derives clocks, labels and results from a journal's raw samples; the same bits every time.

Nothing here looks at what an earlier derivation found, so labels can be made anew after the method
changes, on another machine, or to check that the ones in the file are what the samples say.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from irene_build.measure.clock import PATTERN, ClockMap, PulseFit, arrival_clock, fit_clock, fit_pulse
from irene_build.measure.journal import DERIVED, SAMPLE_COLUMNS, Journal
from irene_build.measure.labels import Readings, estimate, fit_prior, moving, window_energy
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.sampler import Sample, summarise

#: Meter clocks are looked for this far from where the arrival of readings puts them, s.
SEARCH_S = 5.0
#: Idle windows this near to a trial tell its idle power, s.
IDLE_NEAR_S = 30.0
#: Resource samples around a window that sharpen its ends, ns.
SAMPLES_AROUND_NS = 2_000_000_000
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Session:
    """One process' raw material, ready for arithmetic."""

    clock: ClockMap
    readings: Readings
    samples: Sequence[Sample]
    sent: int
    #: What a reading is a mean over, s.
    reading_s: float


@dataclass(frozen=True)
class Derived:
    """Rows of the derived tables, as they are stored."""

    clock: list[Row]
    label: list[Row]
    result: list[Row]

    def tables(self) -> Mapping[str, list[Row]]:
        return {name: getattr(self, name) for name in DERIVED}


def read_session(journal: Journal, session: int) -> Session:
    """All readings, samples and pulses of a session, with the clock that its pulses give."""
    meter = json.loads(journal.rows("SELECT meter FROM session WHERE id = ?", (session,))[0][0])
    rows = journal.rows(
        "SELECT host_ns, value, meter_s FROM power WHERE session = ? ORDER BY rowid", (session,)
    )
    readings, arrival, own_clock = read_readings(rows, meter)
    samples = [
        Sample(*row)
        for row in journal.rows(
            f"SELECT host_ns, {', '.join(SAMPLE_COLUMNS)} FROM resource WHERE session = ? ORDER BY host_ns",
            (session,),
        )
    ]
    pulses = [
        json.loads(busy) for (busy,) in journal.rows("SELECT busy FROM pulse WHERE session = ?", (session,))
    ]
    idle_s = PATTERN[0][1] * journal.get("protocol")["pulse_unit_s"]
    clock = fit_clock(fit_pulses(readings, pulses, arrival, idle_s), arrival, own_clock)
    reading_s = max(readings.period_s, meter.get("window_s", 0.0))
    return Session(clock, readings, samples, len(pulses), reading_s)


def read_readings(rows: Sequence[Row], meter: Mapping[str, Any]) -> tuple[Readings, ClockMap, bool]:
    """Readings out of (host_ns, value, meter_s), their clock by arrival, and whether they have one of their own."""
    host = [row[0] / 1e9 for row in rows]
    own_clock = bool(rows) and all(row[2] is not None for row in rows)
    # A meter's clock that steps back (a re-plug) orders nothing any more: then the host's stamps count.
    own_clock = own_clock and all(a[2] < b[2] for a, b in pairwise(rows))
    times = [row[2] for row in rows] if own_clock else host
    energy = meter["kind"] == "energy"
    readings = Readings(times, [row[1] for row in rows], energy, meter["period_s"], meter["quantum"])
    if energy:
        readings = moving(readings)
    if len(readings.times_s) > 2:
        gaps = [b - a for a, b in zip(readings.times_s, readings.times_s[1:], strict=False)]
        period = max(meter["period_s"], median(gaps))
        readings = Readings(
            times if not energy else readings.times_s, readings.values, energy, period, meter["quantum"]
        )
    return readings, arrival_clock(host, times, readings.period_s), own_clock


def fit_pulses(
    readings: Readings,
    pulses: Sequence[Sequence[tuple[int, int]]],
    arrival: ClockMap,
    idle_s: float,
    search_s: float = SEARCH_S,
) -> list[PulseFit]:
    """Where the readings show the pulses, whose busy intervals are in ns of the host."""
    seen_t, seen_w = list(readings.times_s), list(readings.values)
    if readings.energy:
        # A counter's mean power between two moves belongs to the middle of them.
        steps = list(pairwise(zip(seen_t, seen_w, strict=True)))
        seen_t = [(t0 + t1) / 2.0 for (t0, _), (t1, _) in steps]
        seen_w = [(v1 - v0) / (t1 - t0) for (t0, v0), (t1, v1) in steps]
    all_busy = [[(start / 1e9, end / 1e9) for start, end in pulse] for pulse in pulses]
    # Two pulses look alike: none is looked for as far away as the next one.
    apart = min((b[0][0] - a[0][0] for a, b in pairwise(all_busy)), default=math.inf)
    search_s = min(search_s, apart / 2.0)
    fits = []
    for busy in all_busy:
        guess = arrival.offset_at(busy[0][0])
        fits.append(fit_pulse(seen_t, seen_w, busy, idle_s, readings.period_s, guess, search_s))
    return fits


def derive(journal: Journal) -> Derived:
    """Everything that follows from the raw samples; writes nothing."""
    sessions = {row[0]: read_session(journal, row[0]) for row in journal.rows("SELECT id FROM session")}
    clocks: list[Row] = [
        (
            number,
            s.clock.offset_s,
            s.clock.drift,
            s.clock.reference_s,
            s.clock.residual_s,
            s.clock.pulses,
            s.clock.score,
            s.sent,
        )
        for number, s in sessions.items()
    ]
    source = str(journal.get("label_source"))
    trials = journal.rows(
        "SELECT id, session, work, start_ns, end_ns, runs, idle_start_ns, idle_end_ns FROM trial"
        " WHERE accepted ORDER BY id"
    )
    idle = _idle_power(trials, sessions, journal.get("protocol")["settle_s"])
    labels: list[Row] = []
    by_work: dict[int, list[tuple[float, float, float, dict[str, float]]]] = {}
    for trial in trials:
        label = _label(trial, sessions[trial[1]], idle[trial[1]], source)
        if label is None:
            continue
        labels.append(label)
        by_work.setdefault(trial[2], []).append((label[1], label[10], label[2], json.loads(label[11])))
    prior = fit_prior([[entry[0] for entry in entries] for entries in by_work.values()])
    results: list[Row] = []
    for work, entries in sorted(by_work.items()):
        found = estimate([e[0] for e in entries], [e[1] for e in entries], prior)
        above = [e[2] for e in entries if e[2] is not None]
        features = {}
        for name in RESOURCE_FEATURES:
            known = [e[3][name] for e in entries if name in e[3]]
            if known:
                features[name] = math.fsum(known) / len(known)
        results.append(
            (
                work,
                found.mean_j,
                None if math.isnan(found.std_j) else found.std_j,
                math.fsum(above) / len(above) if above else None,
                found.half_width,
                len(entries),
                json.dumps(features, sort_keys=True),
            )
        )
    return Derived(clocks, labels, results)


def _idle_power(
    trials: Sequence[Row], sessions: Mapping[int, Session], settle_s: float
) -> dict[int, list[tuple[float, float]]]:
    """Per session (time, W) of the idle windows before trials, in the order of time; seconds of the host."""
    found: dict[int, list[tuple[float, float]]] = {number: [] for number in sessions}
    for _, number, _, _, _, _, idle_start, idle_end in trials:
        start, end = idle_start / 1e9, idle_end / 1e9
        if end > start:
            watts = _idle_watts(sessions[number], start, end, settle_s)
            if watts is not None:
                found[number].append(((start + end) / 2.0, watts))
    return {number: sorted(points) for number, points in found.items()}


def _idle_watts(session: Session, start: float, end: float, settle_s: float) -> float | None:
    """Mean of the readings that saw nothing but the settling and the idle window (seconds of the host).

    A window as short as this has no plateau to either side: interpolated at its end, a reading that saw the
    warm-up already would be in it. Where no reading lies wholly inside, the window is integrated all the same.
    """
    times, values, clock = session.readings.times_s, session.readings.values, session.clock
    half = 0.0 if session.readings.energy else session.reading_s / 2.0
    first = bisect_left(times, clock.to_meter(start - settle_s + half))
    last = bisect_right(times, clock.to_meter(end - half))
    if session.readings.energy and last - first > 1:
        return (values[last - 1] - values[first]) / (times[last - 1] - times[first])
    if not session.readings.energy and last > first:
        return math.fsum(values[first:last]) / (last - first)
    window = window_energy(session.readings, clock, start, end)
    return None if window is None else window.power_w(end - start)


def _label(trial: Row, session: Session, idle: Sequence[tuple[float, float]], source: str) -> Row | None:
    number, _, _, start_ns, end_ns, runs, _, _ = trial
    start, end = start_ns / 1e9, end_ns / 1e9
    window = window_energy(session.readings, session.clock, start, end)
    if window is None or not window.energy_j > 0.0:
        return None
    middle = (start + end) / 2.0
    low = bisect_left(idle, (middle - IDLE_NEAR_S,))
    high = bisect_left(idle, (middle + IDLE_NEAR_S,))
    idle_w = median(watts for _, watts in idle[low:high]) if high > low else None
    latency = (end_ns - start_ns) / 1e9 / runs
    near = [
        s for s in session.samples if start_ns - 2_000_000_000 <= s.host_time_ns <= end_ns + 2_000_000_000
    ]
    features = summarise(near, start_ns, end_ns)
    if "gpu_energy" in features:
        features["gpu_energy"] /= runs
    if "nvml" in source:
        # DESIGN, rule 4: what gives the label is never a feature of the same calibration.
        features.pop("gpu_energy", None)
    features["latency"] = latency
    return (
        number,
        window.energy_j / runs,
        None if idle_w is None else window.energy_j / runs - idle_w * latency,
        window.power_w(end - start),
        idle_w,
        latency,
        window.readings,
        session.clock.offset_at(middle),
        session.clock.drift,
        session.clock.residual_s,
        window.error_j / runs,
        json.dumps(features, sort_keys=True),
    )


def relabel(journal: Journal) -> Derived:
    """Derive and store. Gives what was stored."""
    derived = derive(journal)
    journal.replace_derived(derived.tables())
    return derived


def stored(journal: Journal) -> Derived:
    """The derived rows as the file has them."""
    clock, label, result = (journal.rows(f"SELECT * FROM {name} ORDER BY 1") for name in DERIVED)
    return Derived(clock, label, result)
