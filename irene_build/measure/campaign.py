"""Runs a plan against a meter, journals it as it happens, and goes on where an earlier process stopped."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from irene_build.errors import IreneError, MeasurementError, MeterError
from irene_build.measure.clock import PATTERN, PulseFit
from irene_build.measure.conditions import SOFT, SUSPENDED_NS, Conditions, boot_id, clocks
from irene_build.measure.device import Device
from irene_build.measure.journal import Journal
from irene_build.measure.outcome import Outcome, outcome
from irene_build.measure.pace import Pace
from irene_build.measure.plan import MeasurementProtocol, Target
from irene_build.measure.recorder import MeterRecorder, Samples
from irene_build.measure.relabel import SEARCH_S, fit_pulses, read_readings, relabel
from irene_build.measure.rows import SessionRow, TrialRow
from irene_build.measure.trial import Runner, run_window, standby_gate
from irene_build.meters.base import Meter

#: Load pulses one after the other, until the meter shows one.
PULSE_ATTEMPTS = 2
#: Rounds beyond the last for nodes whose trials gave no label at all.
EXTRA_ROUNDS = 2


class Workload(Protocol):
    """Runs single nodes on the device."""

    def holds(self, sizes: Sequence[int]) -> bool:
        """Can models of these sizes (bytes) be kept ready at the same time?"""
        ...

    def runner(self, target: Target, node: int, wanted: list[int]) -> Runner:
        """A callable that runs one node once; ``wanted`` are all the nodes of that target to come."""
        ...


#: Called with done, total (of the whole campaign), what is being done, seconds left until its end.
Report = Callable[[float, float, str, float], None]


class Campaign:
    """One process' part of a campaign. The meter is open; the journal holds the plan."""

    def __init__(
        self,
        journal: Journal,
        meter: Meter,
        sampler: Samples,
        device: Device,
        workload: Workload,
        report: Report,
        info: Mapping[str, Any],
        gpu: str | None = None,
        say: Callable[[str], None] = lambda text: None,
        sysfs: Path = Path("/sys"),
    ) -> None:
        """``say`` is given what a person should know at once; it is in the journal as well."""
        self.journal, self.meter, self.device, self.workload = journal, meter, device, workload
        self.settings = MeasurementProtocol(**journal.get("protocol"))
        self.report, self.say = report, say
        self._info = json.dumps(dict(info))
        self.conditions = Conditions(sampler.sample, gpu, sysfs)
        self.recorder = MeterRecorder(
            meter, sampler, journal, self._open_session, say, self.conditions.watch, self.settings.silence_s
        )
        self.targets = {n: Target(**json.loads(t)) for n, t in journal.rows("SELECT id, target FROM tree")}
        # The last one wins, so the order is that the first place of a work is the one that is run.
        places = journal.rows("SELECT work, tree, node FROM node ORDER BY tree DESC, node DESC")
        self.place = {work: (tree, node) for work, tree, node in places}
        self.names = dict(journal.rows("SELECT id, name FROM work"))
        self.standby_w = 0.0
        self._gate_waited_s = 0.0
        self._pulsed_at = 0.0
        self._pulsed_session = 0
        self._began = time.monotonic()
        self.pace = Pace()
        # When the budget is spent and what the round still has to do, s; retries live on what is spare.
        self._spent_at: float | None = None
        self._to_do_s = 0.0

    @property
    def session(self) -> int:
        """Of the journal: where readings go to now."""
        return self.recorder.session

    def _open_session(self) -> int:
        meter = json.dumps(self.meter.info.as_dict())
        row = SessionRow(None, time.monotonic_ns(), time.time(), boot_id(), meter, self._info)
        return self.journal.insert("session", row)

    def run(self, stop_after_s: float | None = None) -> Outcome:
        """Measure until done, the budget is spent, or ``stop_after_s`` is over (then run again to go on)."""
        before = self._elapsed_before()
        budget = self.journal.get("budget_s")
        stop_at = None if stop_after_s is None else self._began + stop_after_s
        # The pulse at the end has its time put by.
        left_s = None if budget is None else max(0.0, budget - before - self.settings.pulse_s)
        self._spent_at = None if left_s is None else self._began + left_s
        finished = False
        self.journal.event(self.session, "start", {"pid": os.getpid()})
        try:
            with self.recorder:
                if unseen := self.conditions.unwatched:
                    self._note(f"throttling and other processes on the GPU are not seen: {unseen}")
                self._standby()
                self._pulses()
                finished = self._rounds(stop_at)
                self._pulses()
                counters, supply = dict(self.meter.counters()), self.meter.info.details.get("supply")
                ended = {"finished": finished, "meter_counters": counters, "supply": supply}
                self.journal.event(self.session, "stop", {**ended, "gate_waited_s": self._gate_waited_s})
        finally:
            self.conditions.close()
        left_out = relabel(self.journal).left_out
        if left_out:
            self._note(
                f"{left_out} readings stood alone, far from all those around them: they are not in any label"
            )
        if finished:
            self.journal.set("finished", True)
        return outcome(self.journal)

    def _elapsed_before(self) -> float:
        """Measuring time that earlier sessions spent, s."""
        spans = self.journal.rows(
            "SELECT (MAX(power.host_ns) - session.started_ns) / 1e9 FROM session JOIN power"
            " ON power.session = session.id WHERE session.id != ? GROUP BY session.id",
            (self.session,),
        )
        return sum(max(0.0, seconds) for (seconds,) in spans)

    def _standby(self) -> None:
        """Power with nothing running: what the gate before each trial compares with."""
        self.recorder.require_readings(max(3.0, 6.0 * self.recorder.period_s))
        start = time.monotonic_ns()
        time.sleep(self.settings.standby_s)
        self.recorder.check()
        watts = sorted(self.recorder.watts(start, time.monotonic_ns()))
        if not watts:
            self.recorder.require_readings(4.0 * self.settings.standby_s)
            watts = sorted(self.recorder.watts(start, time.monotonic_ns()))
        if not watts:
            raise MeasurementError(f"{self.meter.info.name}: too few readings to tell the standby power")
        if max(watts) <= 0.0:
            raise MeterError(
                f"{self.meter.info.name} reads 0 W while the PC runs: it does not meter this PC (a clamp that is not "
                "around the conductor, another channel, another GPU)"
            )
        # Somebody else's work only ever adds: the lower half is nearer to standby.
        measured = fmean(watts[: max(1, len(watts) // 2)])
        known = self.journal.get("standby_power_w")
        self.standby_w = measured if known is None else known
        detail = {"watts": self.standby_w, "measured_w": measured, "profile_w": known, "readings": len(watts)}
        self.journal.event(self.session, "standby", detail)
        if measured > self.standby_w * (1.0 + self.settings.gate_share):
            text = f"the PC draws {measured:.1f} W at rest where its profile says {self.standby_w:.1f} W"
            self._note(f"{text}: something else is running, which the standby gate cannot wait out")
            self.say(f"{text}: close what else is running on it")

    def _pulses(self) -> None:
        """A load pulse, again where the meter does not show it and there is time."""
        for _ in range(PULSE_ATTEMPTS):
            self._pulsed_session = self.session
            fit = self._pulse()
            detail = {"found": fit.found, "correlation": fit.correlation, "score": fit.score}
            self.journal.event(self.session, "pulse", detail)
            if fit.found or self._spare_s() <= 0.0:
                return

    def _pulse(self) -> PulseFit:
        """Busy and idle by turns: what the meter's clock is found by."""
        self.recorder.check()
        session, busy, began = self.session, [], time.monotonic()
        # Not as far away as the pulse before it, which looks the same.
        search_s = min(SEARCH_S, (began - self._pulsed_at) / 2.0)
        for on, units in PATTERN:
            seconds = units * self.settings.pulse_unit_s
            start = time.monotonic_ns()
            if on:
                self.device.burn(seconds)
                busy.append((start, time.monotonic_ns()))
            else:
                time.sleep(seconds)
        self.recorder.wait_past(time.monotonic_ns(), 4.0 * self.recorder.period_s)
        self.recorder.flush()
        self._pulsed_at = began
        if self.session != session:  # the meter's clock broke under it
            return PulseFit(began, 0.0, math.inf, 0.0, 0.0)
        self.journal.insert("pulse", (session, json.dumps(busy)))
        readings, arrival, _ = read_readings(
            self.recorder.readings_from(round((began - SEARCH_S) * 1e9)), asdict(self.meter.info)
        )
        idle_s = PATTERN[0][1] * self.settings.pulse_unit_s
        return fit_pulses(readings, [busy], arrival, idle_s, search_s)[0]

    def _rounds(self, stop_at: float | None) -> bool:
        """True when nothing is left to do."""
        number = self.journal.rows("SELECT MAX(number) FROM round")[0][0] or 0
        while True:
            if not number or not self._pending(number):
                works = self._next_round(number)
                if not works:
                    return True
                number += 1
                self.journal.insert("round", (number, json.dumps(self._shuffled(works, number))))
            pending, whole = self._pending(number), self._order(number)
            guesses = [self._guess(work) for work in pending]
            labelled = self._labelled()
            for position, work in enumerate(pending):
                now, done = time.monotonic(), len(whole) - len(pending) + position
                if stop_at is not None and now >= stop_at:
                    return False
                owed = not labelled.issuperset(pending[position:])
                if number > 1 and work in labelled and self._spent():
                    # Those that have no label yet get one all the same.
                    if owed:
                        continue
                    self._note(f"the budget ended in round {number}, after {done} of {len(whole)} nodes")
                    return True
                self._to_do_s = self.pace.seconds(guesses[position:])
                every, more = (
                    [self._guess(other) for other in whole],
                    max(0, self.settings.most_rounds - number),
                )
                budget = None if self._spent_at is None else max(0.0, self._spent_at - now)
                left_s = self.pace.left_s(guesses[position:], every, more, budget, owed)
                self.report(self.pace.share(left_s), 1.0, f"round {number}: {self.names[work]}", left_s)
                self._measure(work, number, pending[position:])
                self.pace.ended(guesses[position], time.monotonic() - now)

    def _labelled(self) -> set[int]:
        return {work for (work,) in self.journal.rows("SELECT work FROM result")}

    def _shuffled(self, works: list[int], number: int) -> list[int]:
        """Random order, by the seed; model after model where they do not all fit into memory."""
        chance = random.Random(f"{self.settings.seed}:{number}")
        order = list(works)
        chance.shuffle(order)
        if not self.workload.holds(self.journal.get("memory_bytes")):
            trees = sorted({self.place[work][0] for work in works})
            chance.shuffle(trees)
            order.sort(key=lambda work: trees.index(self.place[work][0]))
        return order

    def _spent(self) -> bool:
        return self._spent_at is not None and time.monotonic() >= self._spent_at

    def _spare_s(self) -> float:
        """Time that the budget leaves beyond what the round has to do."""
        return math.inf if self._spent_at is None else self._spent_at - time.monotonic() - self._to_do_s

    def _order(self, number: int) -> list[int]:
        works = self.journal.rows("SELECT works FROM round WHERE number = ?", (number,))[0][0]
        return list(json.loads(works))

    def _guess(self, work: int) -> float:
        estimate = self.journal.rows("SELECT estimate_s FROM work WHERE id = ?", (work,))[0][0]
        return self.settings.trial_s(estimate)

    def _note(self, text: str) -> None:
        notes = self.journal.get("notes", [])
        if text not in notes:  # a process that was killed after it had said so
            self.journal.set("notes", [*notes, text])

    def _pending(self, number: int) -> list[int]:
        """Works of a round that have no settled trial yet, in the round's order."""
        settled = {
            work
            for work, accepted, attempts in self.journal.rows(
                "SELECT work, MAX(accepted), COUNT(*) FROM trial WHERE round = ? GROUP BY work", (number,)
            )
            if accepted or attempts >= self.settings.max_attempts
        }
        failed = {work for (work,) in self.journal.rows("SELECT id FROM work WHERE failed IS NOT NULL")}
        return [work for work in self._order(number) if work not in settled and work not in failed]

    def _next_round(self, done: int) -> list[int]:
        """Works that need another round: all until ``min_rounds``, then those that are not precise enough."""
        usable = [w for (w,) in self.journal.rows("SELECT id FROM work WHERE failed IS NULL ORDER BY id")]
        if not done:
            return usable
        # The end of the last window is known when readings have come that lie behind it in the meter's time.
        for _ in range(2):
            self.recorder.wait_past(time.monotonic_ns(), 4.0 * self.recorder.period_s)
        self.recorder.flush()
        widths = {row.work: row.half_width for row in relabel(self.journal).result}
        missing = [work for work in usable if work not in widths]
        spent = self._spent()
        last = 1 if spent else self.settings.most_rounds
        if done >= last:
            return missing if done < last + EXTRA_ROUNDS else []
        if done < self.settings.min_rounds:
            return usable
        return [w for w in usable if not (widths.get(w) or 1.0) <= self.settings.precision]

    def _measure(self, work: int, number: int, wanted: list[int]) -> None:
        """One node's trial of a round, repeated while it is spoilt and patience lasts."""
        tree, node = self.place[work]
        nodes = [self.place[other][1] for other in wanted if self.place[other][0] == tree]
        try:
            run = self.workload.runner(self.targets[tree], node, nodes)
        except IreneError:
            raise
        except Exception as error:
            self._failed(work, error)
            return
        count = "SELECT COUNT(*) FROM trial WHERE round = ? AND work = ?"
        tried = self.journal.rows(count, (number, work))[0][0]
        settings = self.settings
        for attempt in range(tried + 1, settings.max_attempts + 1):
            due = time.monotonic() - self._pulsed_at >= settings.pulse_every_s
            if due or self.session != self._pulsed_session:
                self._pulses()
            session, asleep_ns = self.session, clocks()[0]
            if settings.jitter_s > 0.0:
                # A trial ends with a reading: without a pause, each would begin at the same phase of the meter.
                chance = random.Random(f"{settings.seed}:{number}:{work}:{attempt}")
                time.sleep(settings.jitter_s * chance.random())
            gate = standby_gate(
                self.recorder, self.conditions, settings, self.standby_w, self._gate_patience()
            )
            self._gate_waited_s += max(0.0, gate.waited_s - settings.settle_s - settings.idle_s)
            try:
                window = run_window(
                    run, self.device, self.recorder, self.conditions, settings, settings.window_s
                )
            except IreneError:
                raise
            except Exception as error:
                self._failed(work, error)
                return
            reasons = [*window.reasons]
            if not gate.passed:
                reasons.append("standby gate" if gate.watts is not None else "gap in the meter")
            reasons += self.recorder.doubts(gate.start_ns, window.end_ns)
            # Its idle window and its warm-up are as bad as its window then.
            if clocks()[0] - asleep_ns > SUSPENDED_NS and "suspended" not in reasons:
                reasons.append("suspended")
            if self.session != session and "suspended" not in reasons:
                reasons.append("meter clock stepped")
            retry = self._retry(reasons, attempt)
            self.recorder.flush()
            with self.journal.transaction():
                self.journal.insert("trial", TrialRow(
                    id=None, session=session, round=number, work=work, attempt=attempt, start_ns=window.start_ns,
                    end_ns=window.end_ns, runs=window.runs, idle_start_ns=gate.start_ns, idle_end_ns=gate.end_ns,
                    accepted=int(not retry), reasons=json.dumps(reasons), foreign_cores=window.foreign_cores,
                ))  # fmt: skip
                if not retry or attempt == settings.max_attempts:
                    self._settle(work, number)
            if not retry:
                return

    def _settle(self, work: int, number: int) -> None:
        """Of a round's attempts that nothing worse than a neighbour spoilt, the least disturbed one counts."""
        tried = self.journal.rows(
            "SELECT foreign_cores, id, reasons FROM trial WHERE round = ? AND work = ?", (number, work)
        )
        found = [(json.loads(why), foreign or 0.0, trial) for foreign, trial, why in tried]
        usable = [("foreign load" in why, foreign, n) for why, foreign, n in found if set(why) <= set(SOFT)]
        if usable:
            self.journal.database.execute(
                "UPDATE trial SET accepted = (id = ?) WHERE round = ? AND work = ?",
                (min(usable)[-1], number, work),
            )

    def _gate_patience(self) -> float:
        """What the standby gate may still wait: no campaign starves at it."""
        allowed = self.settings.gate_budget * (time.monotonic() - self._began) - self._gate_waited_s
        return max(0.0, min(self.settings.gate_timeout_s, allowed, self._spare_s()))

    def _retry(self, reasons: list[str], attempt: int) -> bool:
        """Hard faults are always repeated; a busy neighbour only as often as the plan can bear."""
        if any(reason not in SOFT for reason in reasons):
            return True
        if (
            not {"foreign load", "slower than its warm-up"} & set(reasons)
            or attempt >= self.settings.max_attempts
            or self._spare_s() <= 0.0
        ):
            return False
        trials, rejected = self.journal.rows("SELECT COUNT(*), SUM(NOT accepted) FROM trial")[0]
        return (rejected or 0) < self.settings.retry_share * max(8, trials)

    def _failed(self, work: int, error: Exception) -> None:
        text = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'}"
        with self.journal.transaction():
            self.journal.database.execute("UPDATE work SET failed = ? WHERE id = ?", (text, work))
            self.journal.event(self.session, "failed", {"work": work, "error": text})
