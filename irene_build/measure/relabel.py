"""Derives clocks, labels and results from a journal's raw samples; the same bits every time.

Nothing here looks at what an earlier derivation found, so labels can be made anew after the method
changes, on another machine, or to check that the ones in the file are what the samples say.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from irene_build.errors import DatasetError
from irene_build.measure.clock import PATTERN, ClockMap, PulseFit, arrival_clock, fit_clock, fit_pulse
from irene_build.measure.journal import DERIVED, SAMPLE_COLUMNS, Journal
from irene_build.measure.labels import (
    Prior,
    Readings,
    estimate,
    fit_prior,
    moving,
    window_energy,
    without_lone,
)
from irene_build.measure.rows import ClockRow, LabelRow, PowerRow, ResultRow, TrialRow
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.sampler import Sample, summarise

#: Meter clocks are looked for this far from where the arrival of readings puts them, s.
SEARCH_S = 5.0
#: Idle windows this near to a trial tell its idle power, s.
IDLE_NEAR_S = 30.0
#: Resource samples within this of a window sharpen its ends, ns.
_SAMPLES_AROUND_NS = 2_000_000_000


@dataclass(frozen=True)
class Session:
    """One process' raw material, ready for arithmetic."""

    clock: ClockMap
    readings: Readings
    samples: Sequence[Sample]
    sent: int
    #: What a reading is a mean over, s.
    reading_s: float
    #: Readings that are in no label, see ``labels.without_lone``.
    left_out: int


@dataclass(frozen=True)
class Derived:
    """Rows of the derived tables, as they are stored; ``left_out``: readings that are in no label."""

    clock: list[ClockRow]
    label: list[LabelRow]
    result: list[ResultRow]
    left_out: int = field(default=0, compare=False)

    def tables(self) -> Mapping[str, Sequence[tuple[Any, ...]]]:
        return {name: getattr(self, name) for name in DERIVED}


def read_session(journal: Journal, session: int) -> Session:
    """All readings, samples and pulses of a session, with the clock that its pulses give."""
    meter = json.loads(journal.rows("SELECT meter FROM session WHERE id = ?", (session,))[0][0])
    query = "SELECT host_ns, value, meter_s FROM power WHERE session = ? ORDER BY rowid"
    rows = [PowerRow(*row) for row in journal.rows(query, (session,))]
    readings, arrival, own_clock = read_readings(rows, meter)
    left_out = 0
    if not readings.energy:
        readings, left_out = without_lone(readings)
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
    return Session(clock, readings, samples, len(pulses), reading_s, left_out)


def read_readings(rows: Sequence[PowerRow], meter: Mapping[str, Any]) -> tuple[Readings, ClockMap, bool]:
    """Readings, their clock by arrival, and whether they have one of their own."""
    host = [row.host_ns / 1e9 for row in rows]
    stamps = [row.meter_s for row in rows if row.meter_s is not None]
    # A meter's clock that steps back (a re-plug) orders nothing any more: then the host's stamps count.
    own_clock = 0 < len(stamps) == len(rows) and all(a < b for a, b in pairwise(stamps))
    times = stamps if own_clock else host
    energy = meter["kind"] == "energy"
    readings = Readings(times, [row.value for row in rows], energy, meter["period_s"], meter["quantum"])
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
    """Everything that follows from the raw samples; writes nothing. Raises DatasetError where they are damaged."""
    try:
        return _derive(journal)
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise DatasetError(
            f"{journal.path} is damaged: what it recorded cannot be read ({type(error).__name__}: {error}); "
            "take a copy of it, or measure again with `irene-build calibrate --new`"
        ) from error


def _derive(journal: Journal) -> Derived:
    sessions = {row[0]: read_session(journal, row[0]) for row in journal.rows("SELECT id FROM session")}
    clocks = [
        ClockRow(
            session=number,
            offset_s=s.clock.offset_s,
            drift=s.clock.drift,
            reference_s=s.clock.reference_s,
            residual_s=s.clock.residual_s,
            pulses=s.clock.pulses,
            score=s.clock.score,
            sent=s.sent,
        )
        for number, s in sessions.items()
    ]
    source = str(journal.get("label_source"))
    query = f"SELECT {', '.join(TrialRow._fields)} FROM trial WHERE accepted ORDER BY id"
    trials = [TrialRow(*row) for row in journal.rows(query)]
    idle = _idle_power(trials, sessions, journal.get("protocol")["settle_s"])
    labels: list[LabelRow] = []
    by_work: dict[int, list[LabelRow]] = {}
    for trial in trials:
        label = _label(trial, sessions[trial.session], idle[trial.session], source)
        if label is not None:
            labels.append(label)
            by_work.setdefault(trial.work, []).append(label)
    prior = fit_prior([[label.energy_j for label in own] for own in by_work.values()])
    results = [_result(work, own, prior) for work, own in sorted(by_work.items())]
    return Derived(clocks, labels, results, sum(s.left_out for s in sessions.values()))


def _result(work: int, labels: Sequence[LabelRow], prior: Prior | None) -> ResultRow:
    """What the labels of a work's trials come to; features are means over the trials that have them."""
    found = estimate([label.energy_j for label in labels], [label.error_j for label in labels], prior)
    above = [label.above_idle_j for label in labels if label.above_idle_j is not None]
    seen = [json.loads(label.features) for label in labels]
    known = {name: [features[name] for features in seen if name in features] for name in RESOURCE_FEATURES}
    means = {name: math.fsum(values) / len(values) for name, values in known.items() if values}
    return ResultRow(
        work=work,
        energy_j=found.mean_j,
        std_j=None if math.isnan(found.std_j) else found.std_j,
        above_idle_j=math.fsum(above) / len(above) if above else None,
        half_width=found.half_width,
        trials=len(labels),
        features=json.dumps(means, sort_keys=True),
    )


def _idle_power(
    trials: Sequence[TrialRow], sessions: Mapping[int, Session], settle_s: float
) -> dict[int, list[tuple[float, float]]]:
    """Per session (time, W) of the idle windows before trials, in the order of time; seconds of the host."""
    found: dict[int, list[tuple[float, float]]] = {number: [] for number in sessions}
    for trial in trials:
        start, end = trial.idle_start_ns / 1e9, trial.idle_end_ns / 1e9
        if end > start:
            watts = _idle_watts(sessions[trial.session], start, end, settle_s)
            if watts is not None:
                found[trial.session].append(((start + end) / 2.0, watts))
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


def _label(
    trial: TrialRow, session: Session, idle: Sequence[tuple[float, float]], source: str
) -> LabelRow | None:
    start, end, runs = trial.start_ns / 1e9, trial.end_ns / 1e9, trial.runs
    window = window_energy(session.readings, session.clock, start, end)
    if window is None or not window.energy_j > 0.0:
        return None
    middle = (start + end) / 2.0
    low = bisect_left(idle, (middle - IDLE_NEAR_S,))
    high = bisect_left(idle, (middle + IDLE_NEAR_S,))
    idle_w = median(watts for _, watts in idle[low:high]) if high > low else None
    latency = (trial.end_ns - trial.start_ns) / 1e9 / runs
    first, last = trial.start_ns - _SAMPLES_AROUND_NS, trial.end_ns + _SAMPLES_AROUND_NS
    near = [s for s in session.samples if first <= s.host_time_ns <= last]
    features = summarise(near, trial.start_ns, trial.end_ns)
    if "gpu_energy" in features:
        features["gpu_energy"] /= runs
    if "nvml" in source:
        # DESIGN, rule 4: what gives the label is never a feature of the same calibration.
        features.pop("gpu_energy", None)
    features["latency"] = latency
    energy = window.energy_j / runs
    return LabelRow(
        trial=trial.id,
        energy_j=energy,
        above_idle_j=None if idle_w is None else energy - idle_w * latency,
        power_w=window.power_w(end - start),
        idle_w=idle_w,
        latency_s=latency,
        readings=window.readings,
        clock_offset_s=session.clock.offset_at(middle),
        clock_drift=session.clock.drift,
        clock_residual_s=session.clock.residual_s,
        error_j=window.error_j / runs,
        features=json.dumps(features, sort_keys=True),
    )


def relabel(journal: Journal) -> Derived:
    """Derive and store. Gives what was stored."""
    derived = derive(journal)
    journal.replace_derived(derived.tables())
    return derived


def stored(journal: Journal) -> Derived:
    """The derived rows as the file has them."""

    def table(name: str) -> list[tuple[Any, ...]]:
        return journal.rows(f"SELECT * FROM {name} ORDER BY 1")

    return Derived(
        [ClockRow(*row) for row in table("clock")],
        [LabelRow(*row) for row in table("label")],
        [ResultRow(*row) for row in table("result")],
    )
