"""A laptop that sleeps and a wall clock that jumps, in the process that measures.

The clocks are libc's, moved under a real campaign by a preloaded library; the meter is a real serial line.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.clocks import ShiftedClocks
from tests.measure.rig import STARVED, Feeder, Rig, events, labels_are_true, relabels_to_the_bit, rows, trials
from tests.measure.wires import Line

SLEPT_S, REALLY_S = 3600.0, 0.4


def asleep(clocks: ShiftedClocks, rig: Rig, feeder: Feeder, line: Line, unplugged: bool) -> None:
    """The machine sleeps for an hour of its own; the meter goes on, and its port is gone or its line fills up."""
    assert rig.process is not None

    def doze() -> None:
        feeder.asleep, feeder.silent = True, unplugged
        feeder.wait(2)
        if unplugged:
            line.unplug()

    slept_s = clocks.sleep(rig.process, SLEPT_S, REALLY_S, doze)
    if unplugged:
        line.plug()
    feeder.clock_ahead_s += SLEPT_S - slept_s
    feeder.asleep = feeder.silent = False


def test_a_wall_clock_that_is_set_spoils_nothing(
    line: Line, make_rig: Callable[..., Rig], shifted_clocks: ShiftedClocks
) -> None:
    rig = make_rig(line.meter(), held=[1, 3])
    rig.environment = shifted_clocks.environment()
    with Feeder(rig.curve, line.frame):
        rig.start()
        with rig.at(1):
            shifted_clocks.set_wall(-3600.0)
        with rig.at(3):
            shifted_clocks.set_wall(+3600.0)
        rig.finish()
    assert [round(event["by_s"]) for event in events(rig, "wall clock set")] == [-3600, 7200]
    wall = [w for (w,) in rows(rig, "SELECT wall_s - host_ns / 1e9 FROM event ORDER BY rowid")]
    assert max(wall) - min(wall) == pytest.approx(7200.0, abs=1.0), "the process saw its clocks move"
    assert not {reason for *_, why in trials(rig) for reason in why} - STARVED
    labels_are_true(rig)
    relabels_to_the_bit(rig)


def test_a_machine_that_sleeps_spoils_a_trial_and_the_meters_clock_is_found_again(
    line: Line, make_rig: Callable[..., Rig], shifted_clocks: ShiftedClocks
) -> None:
    rig = make_rig(line.meter(), held=[1, 3])
    rig.environment = shifted_clocks.environment()
    before: list[list[tuple[object, ...]]] = []
    with Feeder(rig.curve, line.frame) as feeder:
        rig.start()
        for window, unplugged in ((1, True), (3, False)):
            with rig.at(window):
                before.append(rows(rig, "SELECT * FROM trial ORDER BY id"))
                asleep(shifted_clocks, rig, feeder, line, unplugged)
                feeder.wait(30 if unplugged else 5)
        rig.finish()
    for finished, count in zip(before, (1, 3), strict=True):
        assert len(finished) == count and rows(rig, "SELECT * FROM trial ORDER BY id")[:count] == finished
    found = trials(rig)
    for hit in (1, 3):
        work, attempt, accepted, reasons = found[hit]
        assert not accepted and "suspended" in reasons
        assert found[hit + 1][:2] == (work, attempt + 1), "it is repeated at once"
    others = [why for n, (*_, why) in enumerate(found) if n not in (1, 3)]
    assert not {reason for why in others for reason in why} - STARVED
    assert [round(event["for_s"]) for event in events(rig, "suspended")] == [3600, 3600]
    assert sum(event.get("reconnects", 0) for event in events(rig, "meter faults")) == 1
    # The meter's clock went on while the host's rested: what followed has a clock of its own, from its own pulse.
    clocks = rows(rig, "SELECT offset_s, session FROM clock WHERE pulses > 0 ORDER BY session")
    steps = [b[0] - a[0] for a, b in pairwise(clocks)]
    assert steps == pytest.approx([SLEPT_S, SLEPT_S], abs=0.5)
    labelled = rows(rig, "SELECT DISTINCT session FROM trial WHERE accepted ORDER BY session")
    assert labelled == [(session,) for _, session in clocks]
    labels_are_true(rig)
    relabels_to_the_bit(rig)


def test_a_process_that_is_stopped_spoils_one_trial(line: Line, make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(line.meter(), held=[1])
    with Feeder(rig.curve, line.frame):
        process = rig.start()
        with rig.at(1):
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(1.5)
            os.killpg(process.pid, signal.SIGCONT)
        rig.finish()
    work, attempt, accepted, reasons = trials(rig)[1]
    assert not accepted and "stalled" in reasons and "suspended" not in reasons
    assert trials(rig)[2][:2] == (work, attempt + 1)
    assert events(rig, "suspended") == [] == events(rig, "wall clock set")
    labels_are_true(rig)
    relabels_to_the_bit(rig)
