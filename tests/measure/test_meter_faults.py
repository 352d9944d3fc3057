"""Meters that fail in the middle of a campaign, each on the wire or the files that its driver reads.

The power that they show is the one that the PC draws, so that every label is held against the truth.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irene_build.hardware.virtual_pc import frame
from irene_build.measure.journal import Journal
from irene_build.measure.outcome import outcome
from tests.measure.rig import (
    STARVED,
    Feeder,
    Rig,
    events,
    labels_are_true,
    relabels_to_the_bit,
    rows,
    trials,
)
from tests.measure.wires import Counter, Line, spoiled
from tests.meters.test_plugs import GEN2, Device, shelly_2
from tests.meters.test_rapl import count, zone
from tests.meters.wire import classic
from tests.nvml import FakeNvml

NVML = {"window_s": 0.4, "pulse_unit_s": 0.1}


def rejected_for_a_gap(rig: Rig, *attempts: int) -> None:
    """These attempts (from 0), and no others, were rejected because readings are missing, and repeated."""
    found = trials(rig)
    for attempt in attempts:
        work, number, accepted, reasons = found[attempt]
        assert not accepted and "gap in the meter" in reasons
        assert found[attempt + 1][:2] == (work, number + 1)
    for attempt, (_, _, accepted, _) in enumerate(found):
        # On a busy machine there may be more, for other reasons as well.
        assert accepted or attempt in attempts or STARVED & set(found[attempt][3])


def accepted(rig: Rig) -> int:
    return sum(trial[2] for trial in trials(rig))


def faults(rig: Rig) -> dict[str, int]:
    """What the meter counted, from the events of its moments."""
    total: dict[str, int] = {}
    for new in events(rig, "meter faults"):
        for name, number in new.items():
            total[name] = total.get(name, 0) + number
    return total


def test_a_bad_line_that_is_pulled_and_plugged_in_again_under_a_campaign(
    line: Line, make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    quarantine = tmp_path / "rig" / "quarantine.txt"
    quarantine.parent.mkdir()
    rig = make_rig(line.meter(), {"window_s": 0.3}, held=[1])
    rig.environment["IRENE_ARTIFACTS"] = str(tmp_path)
    tick = itertools.count()

    def noisy(time_s: float, watts: float) -> None:
        line.send(spoiled(next(tick), frame(time_s, 120.0, watts / 120.0)))

    with Feeder(rig.curve, noisy) as feeder:
        feeder.clock_ahead_s = 10_000.0
        rig.start()
        with rig.at(1):
            feeder.silent = True
            feeder.wait(2)
            line.unplug()
            time.sleep(0.3)
            line.plug()
            # It has lost its supply as well: its clock begins anew.
            feeder.clock_ahead_s = 0.0
            feeder.silent = False
            until_back(rig)
        rig.finish()
    rejected_for_a_gap(rig, 1)
    found = faults(rig)
    assert found["disconnects"] == found["reconnects"] == 1
    assert min(found[name] for name in ("undecodable", "torn", "duplicated", "missing", "banner")) > 2
    kept = quarantine.read_text()
    assert "undecodable" in kept and "torn" in kept and "V=920" in kept
    # From the restart on the meter's clock is another one, found by its own pulse.
    clocks = rows(rig, "SELECT offset_s, pulses FROM clock WHERE pulses > 0 ORDER BY session")
    assert len(clocks) == 2 and clocks[1][0] - clocks[0][0] == pytest.approx(-10_000.0, abs=0.5)
    labels_are_true(rig)
    relabels_to_the_bit(rig)


def until_back(rig: Rig) -> None:
    """Until readings have come again after the plug."""
    end = time.monotonic() + 10.0
    before = time.monotonic_ns()
    while rows(rig, "SELECT MAX(host_ns) FROM power")[0][0] < before:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_classic_emonpi_among_other_nodes(line: Line, make_rig: Callable[..., Rig]) -> None:
    # A stock one is 250 times slower, and so would be the test.
    meter = {"driver": "emonpi", "port": str(line.port), "grammar": "classic", "node": 5, "period_s": 0.02}
    rig = make_rig(meter, {"window_s": 0.4, "pulse_unit_s": 0.08}, held=[2])
    tick = itertools.count()
    others = {
        3: "OK 10 62 10 0 0 62 10 1 90 (-47)\r\n",
        8: "? 61 200 14 88 (-97)\r\n",
        13: "[RF12demo.14] E i5 g210 @ 433 MHz\r\n",
        18: classic(3000, node=19, rssi=61) + "\r\n",
        21: " -> 8 b\r\n",
    }

    def busy_line(time_s: float, watts: float) -> None:
        line.send(others.get(next(tick) % 23, "") + classic(round(watts)) + "\r\n")

    with Feeder(rig.curve, busy_line) as feeder:
        rig.start()
        with rig.at(2):
            feeder.silent = True
            feeder.wait(12)
            feeder.silent = False
        rig.finish()
    rejected_for_a_gap(rig, 2)
    found = faults(rig)
    assert found["foreign"] > 2 and found["rejected"] > 2 and found["banner"] > 2
    # No clock of its own, and whole watts.
    assert rows(rig, "SELECT COUNT(meter_s) FROM power") == [(0,)]
    labels_are_true(rig, rel=0.05)
    relabels_to_the_bit(rig)


class _Plug(Device):
    """A plug that shows the curve's mean power of the last frame, or what a test makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.watts = 40.0
        self.says: Any = None

    def answer(self, path: str) -> Any:
        if path == "/shelly":
            return GEN2
        if self.says is None:
            return shelly_2(self.watts)
        return self.says() if callable(self.says) else self.says


def test_a_plug_that_stalls_fails_and_talks_nonsense(make_rig: Callable[..., Rig]) -> None:
    plug = _Plug()
    meter = {"driver": "shelly", "host": plug.host, "poll_s": 0.02, "window_s": 0.02, "timeout_s": 0.15}
    rig = make_rig(meter, {"window_s": 0.4, "pulse_unit_s": 0.08}, held=[0, 2, 4])

    def show(time_s: float, watts: float) -> None:
        plug.watts = watts

    try:
        with Feeder(rig.curve, show) as feeder:
            rig.start()
            for window, says in ((0, 500), (2, b"<html>busy</html>"), (4, lambda: time.sleep(0.4))):
                with rig.at(window):
                    plug.says = says
                    feeder.wait(25)
                    plug.says = None
                    feeder.wait(10)
            rig.finish()
    finally:
        plug.stop()
    rejected_for_a_gap(rig, 0, 2, 4)
    found = faults(rig)
    assert found["rejected"] > 4 and found["read_failed"] > 0 and found["reconnects"] > 0
    labels_are_true(rig, rel=0.05)
    relabels_to_the_bit(rig)


def test_rapl_counters_that_wrap_may_not_be_read_and_vanish(
    make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    root = tmp_path / "powercap"
    wrap_uj = 100_000_000
    package, memory = (
        zone(root, "intel-rapl:0", "package-0", range_uj=wrap_uj),
        zone(root, "intel-rapl:0:1", "dram", range_uj=wrap_uj),
    )
    core, platform = zone(root, "intel-rapl:0:0", "core"), zone(root, "intel-rapl:1", "psys")
    settings = {"window_s": 0.4, "pulse_unit_s": 0.1}
    rig = make_rig({"driver": "rapl", "root": str(root)}, settings, held=range(100))
    broken: list[bool] = []

    def show(time_s: float, watts: float) -> None:
        joules = 50.0 + rig.curve.joules()
        for folder, share in ((package, 0.8), (memory, 0.2), (core, 0.5), (platform, 1.3)):
            if not broken:
                count(folder, int(1e6 * share * joules) % (wrap_uj + 1))

    with Feeder(rig.curve, show, period_s=0.005):
        for folder in (package, memory):
            (folder / "energy_uj").chmod(0o200)
        rig.start(ordinary_user=True)
        said = rig.fails()
        assert (
            "sudo chmod -R a+r /sys/class/powercap/*/energy_uj" in said and "may be read by root only" in said
        )
        for folder in (package, memory):
            (folder / "energy_uj").chmod(0o644)
        rig.start(ordinary_user=True)
        with rig.after(accepted=2):
            before = accepted(rig)
            broken.append(True)
            os.truncate(package / "energy_uj", 0)
        said = rig.fails()
        assert "MeterError: RAPL: not readable for 5 s" in said and "energy_uj" in said
    assert accepted(rig) == before
    assert faults(rig)["wraps"] >= 1 and "implausible" not in faults(rig)
    labels_are_true(rig, all_works=False)
    relabels_to_the_bit(rig)


def test_a_meter_that_shows_10_kw_or_nothing_in_one_frame_of_forty(
    line: Line, make_rig: Callable[..., Rig]
) -> None:
    """The checksum of the frame holds: it is the meter that is wrong, not the line."""
    rig = make_rig(line.meter(), {"window_s": 1.0})
    tick = itertools.count()

    def wrong(time_s: float, watts: float) -> None:
        place = next(tick) % 80
        line.frame(time_s, 10_000.0 if place == 7 else 0.0 if place == 47 else watts)

    with Feeder(rig.curve, wrong):
        rig.start()
        rig.finish()
    labels_are_true(rig)
    relabels_to_the_bit(rig)
    with Journal(rig.path) as journal:
        notes = outcome(journal).notes
    assert any("stood alone, far from all those around them" in note for note in notes)


def test_an_nvml_counter_that_freezes_fails_and_is_lost(
    fake_nvml: FakeNvml, make_rig: Callable[..., Rig]
) -> None:
    rig = make_rig({"driver": "nvml"}, NVML, held=range(100))
    counter = Counter(fake_nvml, rig.curve)
    rig.environment = fake_nvml.environment()
    with Feeder(rig.curve, counter) as feeder:
        feeder.wait(2)
        rig.start()
        with rig.at(0):
            counter.frozen = True
            feeder.wait(15)
            counter.frozen = False
            feeder.wait(5)
        with rig.at(1):
            pass
        with rig.at(2):
            counter.state = {"energy_error": 999}
            feeder.wait(15)
            counter.state = {"energy_error": 0}
            feeder.wait(5)
        with rig.after(accepted=2, window=3):
            before = len(trials(rig))
            counter.state = {"lost": 1}
            feeder.wait(5)
        said = rig.fails()
        assert "MeterError: NVML: Fake GPU was lost" in said and "restart the machine" in said
    assert len(trials(rig)) == before >= 4
    rejected_for_a_gap(rig, 0, 2)
    assert faults(rig)["read_failed"] > 4
    labels_are_true(rig, rel=0.06, all_works=False)
    relabels_to_the_bit(rig)


def test_a_wall_meter_that_leaves_its_parts_is_told_at_once(
    line: Line, make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    package = zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    meter = line.meter(reconcile="rapl", rapl={"root": str(tmp_path / "powercap")})
    # The PC never draws standby power again: its gate must not wait for that.
    settings = {"max_rounds": 3, "min_rounds": 3, "gate_timeout_s": 0.0}
    rig = make_rig(meter, settings, held=[9], span_s=0.06)
    moved_w, joules = 0.0, 50.0

    def show(time_s: float, watts: float) -> None:
        nonlocal joules
        joules += watts * 0.02
        count(package, int(1e6 * joules))
        line.frame(time_s, 12.0 + watts / 0.9 + moved_w)

    with Feeder(rig.curve, show) as feeder:
        rig.start()
        with rig.at(9):
            before = len(events(rig, "residual jump"))
            if before:  # a busy machine held up one of both: an alarm ends with what raised it
                feeder.wait(200)
            moved_w, moved_ns = 60.0, time.monotonic_ns()
            # Half a second of frames, and more where a busy machine reads them late.
            feeder.wait(30)
            while len(events(rig, "residual jump")) == before and time.monotonic_ns() < moved_ns + 10**10:
                feeder.wait(5)
        said = rig.finish()
    found = rows(rig, "SELECT host_ns, detail FROM event WHERE kind = 'residual jump' ORDER BY rowid")[
        before:
    ]
    assert found and found[0][0] > moved_ns
    assert json.loads(found[0][1])["residual_w"] == pytest.approx(60.0, abs=20.0)
    assert "wall and parts disagree by +" in said
    ended, detail = rows(rig, "SELECT host_ns, detail FROM event WHERE kind = 'stop'")[0]
    assert found[0][0] < ended, "while it measures"
    supply = json.loads(detail)["supply"]
    assert 0.5 < supply["efficiency"] < 1.5 and 0.0 < supply["board_w"] < 45.0
    with Journal(rig.path) as journal:
        assert any("the parts' power /" in note for note in outcome(journal).notes)
