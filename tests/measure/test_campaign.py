"""A campaign from plan to labels, and every fault on the way, against a PC whose true energy is known."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from irene_build.errors import DatasetError, InputError, MeterError
from irene_build.measure import campaign as module
from irene_build.measure import recorder as recorder_module
from irene_build.measure.conditions import Conditions
from irene_build.measure.journal import Journal, require_same
from irene_build.measure.relabel import derive, relabel, stored
from irene_build.meters.base import Reading
from irene_runtime.sampler import Sample
from tests.measure.doubles import (
    FAST,
    IDLE_W,
    DoubleMeter,
    DoubleSampler,
    DoubleWorkload,
    Power,
    PowerlessDevice,
    double_plan,
    run_campaign,
)
from tests.measure.rig import Feeder, Rig, labels_are_true, rows
from tests.measure.wires import Line

_ROOT = Path(__file__).resolve().parents[2]
#: A thread that starves looks like a meter that is silent.
STARVED = ("gap in the meter", "stalled", "slower than its warm-up", "swapped")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "campaign.sqlite"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign's folder after its end; to be copied, not written."""
    folder = tmp_path_factory.mktemp("finished")
    run_campaign(folder / "campaign.sqlite")
    return folder


def query(path: Path, text: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as database:
        rows = database.execute(text).fetchall()
    database.close()
    return rows


def reasons(path: Path, where: str = "1") -> list[list[str]]:
    """Of each trial, without what a busy machine alone makes of one."""
    found = query(path, f"SELECT reasons FROM trial WHERE {where} ORDER BY id")
    return [[why for why in json.loads(text) if why not in STARVED] for (text,) in found]


def test_labels_are_the_true_joules_of_each_distinct_node_by_a_meter_whose_clock_is_off_and_drifts(
    line: Line, make_rig: Callable[..., Rig]
) -> None:
    rig = make_rig(line.meter(), {"min_rounds": 2, "max_rounds": 2}, models=2)
    with Feeder(rig.curve, line.frame, drift=200e-6) as feeder:
        feeder.clock_ahead_s = 3.0
        rig.start()
        rig.finish()
    # Three leaves that both models have, and the two models.
    assert len(rows(rig, "SELECT DISTINCT trial.work FROM label JOIN trial ON trial.id = label.trial")) == 5
    labels_are_true(rig)
    labels = rows(rig, "SELECT energy_j, above_idle_j, idle_w, latency_s, clock_residual_s, start_ns, end_ns, runs"
                       " FROM label JOIN trial ON trial.id = label.trial")  # fmt: skip
    for energy, above, idle_w, latency, residual_s, start, end, runs in labels:
        assert latency == pytest.approx((end - start) / 1e9 / runs)
        assert idle_w == pytest.approx(IDLE_W, rel=0.03)
        assert above == pytest.approx(energy - idle_w * latency, abs=1e-9)
        assert residual_s < 0.004
    offset, reference, pulses = rows(rig, "SELECT offset_s, reference_s, pulses FROM clock")[0]
    assert pulses == 2
    # The middle of a frame is half a frame before its stamp.
    true = 3.0 - feeder.began_s + 200e-6 * (reference - feeder.began_s) + feeder.period_s / 2.0
    assert offset == pytest.approx(true, abs=0.005)


def test_relabel_gives_the_same_bits_here_and_in_a_copy_of_the_one_file(
    finished: Path, path: Path, tmp_path: Path
) -> None:
    assert [p.name for p in finished.iterdir()] == ["campaign.sqlite"]
    copy = tmp_path / "elsewhere" / "moved.sqlite"
    copy.parent.mkdir()
    for to in (path, copy):
        shutil.copy(finished / "campaign.sqlite", to)
    for file in (path, copy):
        with Journal(file) as journal:
            before = stored(journal)
            assert before.label and before.result and before.clock
            journal.replace_derived({"label": [], "result": [], "clock": []})
            assert stored(journal).label == []
            relabel(journal)
            assert stored(journal) == before


def test_labels_come_from_raw_samples_and_from_nothing_else(finished: Path, path: Path) -> None:
    shutil.copy(finished / "campaign.sqlite", path)
    with Journal(path) as journal:
        before = stored(journal).result
        with journal.transaction():
            journal.database.execute("UPDATE power SET value = value * 2.0")
        doubled = derive(journal).result
    for old, new in zip(before, doubled, strict=True):
        assert new[1] == pytest.approx(2.0 * old[1], rel=1e-9)


def test_stop_after_leaves_a_campaign_that_goes_on(path: Path) -> None:
    plan = double_plan(models=2, leaves=6)
    first = run_campaign(path, plan, stop_after_s=1.0)
    parts = 1
    while not first.trials:
        first, parts = run_campaign(path, stop_after_s=1.0), parts + 1
    assert not first.finished and first.trials < 16
    second = run_campaign(path)
    assert second.finished and second.labelled == second.works == 8
    assert query(path, "SELECT COUNT(*) FROM session") == [(parts + 1,)]
    assert query(
        path, "SELECT MAX(c) FROM (SELECT COUNT(*) AS c FROM trial WHERE accepted GROUP BY round, work)"
    ) == [(1,)]


def test_ctrl_c_leaves_a_campaign_that_goes_on(path: Path) -> None:
    begun: list[str] = []

    def interrupt(done: float, total: float, what: str, left_s: float) -> None:
        begun.append(what)
        if len(begun) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_campaign(path, report=interrupt)
    assert query(path, "SELECT COUNT(*) FROM trial WHERE accepted") == [(2,)]
    assert run_campaign(path).finished


def killed_and_resumed(path: Path, kills: int, seed: int) -> None:
    """Kill a campaign ``kills`` times at random moments, finish it, and look at what it left."""
    moments = random.Random(seed)
    command = [sys.executable, "-m", "tests.measure.doubles", str(path)]
    trials = 0
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(0.7 + 1.5 * moments.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if path.exists() and query(path, "SELECT name FROM sqlite_master WHERE name = 'trial'"):
            now = query(path, "SELECT COUNT(*) FROM trial")[0][0]
            assert now >= trials, "a finished trial was lost"
            trials = now
    run = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert run.stdout == "finished\n", run.stderr
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    works = query(path, "SELECT id FROM work ORDER BY id")
    assert len(works) == 6
    assert query(path, "SELECT work FROM result ORDER BY work") == works
    twice = query(
        path, "SELECT round, work FROM trial WHERE accepted GROUP BY round, work HAVING COUNT(*) > 1"
    )
    assert twice == []
    assert (
        query(path, "SELECT session, host_ns FROM power GROUP BY session, host_ns HAVING COUNT(*) > 1") == []
    )
    with Journal(path) as journal:
        assert derive(journal) == stored(journal)


def test_kill_9_at_random_moments_loses_nothing_and_counts_nothing_twice(path: Path) -> None:
    killed_and_resumed(path, kills=int(os.environ.get("IRENE_KILLS", "3")), seed=11)


def test_a_second_process_on_the_same_journal_is_refused(path: Path) -> None:
    with Journal(path), pytest.raises(InputError, match=r"another irene-build \(process \d+\)"):
        Journal(path)
    Journal(path).close()


def test_a_silent_meter_is_named(path: Path) -> None:
    power = Power()
    meter = DoubleMeter(power, period_s=0.01)
    meter.silent = True
    with pytest.raises(MeterError, match="no reading"):
        run_campaign(path, power=power, meter=meter)


def test_a_meter_that_falls_silent_is_told_once_after_a_stated_time(path: Path) -> None:
    """And not as trials that began above standby."""
    power = Power()
    meter = DoubleMeter(power)

    def fall_silent(done: float, *_: object) -> None:
        meter.silent = meter.silent or done > 0

    protocol = replace(FAST, silence_s=0.6)
    began = time.monotonic()
    with pytest.raises(MeterError, match=r"double: silent for 1 s.*run the same command again"):
        run_campaign(path, double_plan(protocol=protocol), power, meter, report=fall_silent)
    assert time.monotonic() - began < 20.0
    spoilt = [json.loads(why) for (why,) in query(path, "SELECT reasons FROM trial WHERE NOT accepted")]
    assert all(why != ["standby gate"] for why in spoilt)
    assert run_campaign(path).finished


class _StuckMeter(DoubleMeter):
    """Shows its last value again and again while ``stuck``."""

    stuck = False
    last = 41.5

    def read_new(self, timeout_s: float) -> list[Reading]:
        readings = super().read_new(timeout_s)
        if readings and not self.stuck:
            self.last = readings[-1].value
        return [replace(reading, value=self.last) for reading in readings]


def test_a_meter_that_is_stuck_gives_no_label(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "FROZEN_S", 0.05)
    power = Power()
    meter = _StuckMeter(power)
    begun: list[float] = []

    def stick(*_: object) -> None:
        begun.append(time.monotonic())
        meter.stuck = len(begun) == 3

    run_campaign(path, double_plan(models=2, leaves=3), power, meter, report=stick)
    found = query(path, "SELECT accepted, reasons FROM trial ORDER BY id")
    frozen = [accepted for accepted, why in found if "frozen meter" in why]
    assert len(frozen) >= 1 and not any(frozen)


def test_a_meter_of_something_else_shows_no_power_at_all(path: Path) -> None:
    power = Power()
    meter = _StuckMeter(power)
    meter.stuck, meter.last = True, 0.0
    with pytest.raises(MeterError, match="0 W while the PC runs"):
        run_campaign(path, power=power, meter=meter)


def test_a_node_that_cannot_run_is_named_and_the_others_are_measured(path: Path) -> None:
    power = Power()
    outcome = run_campaign(
        path, double_plan(models=1, leaves=3), power, workload=DoubleWorkload(power, frozenset({2}))
    )
    assert outcome.finished and outcome.labelled == outcome.works - 1
    assert outcome.failed == ("toy0 l1:Linear: RuntimeError: out of memory",)


class _BusySampler(DoubleSampler):
    """A machine on which somebody else keeps three cores busy."""

    def sample(self) -> Sample:
        now = time.monotonic_ns()
        self._kept.append(Sample(now, now * 3 // 10**7, now * 4 // 10**7, 75.0, 25.0))
        return self._kept[-1]


def test_a_foreign_load_is_rejected_and_repeated_but_never_starves_a_campaign(path: Path) -> None:
    outcome = run_campaign(path, double_plan(models=2, leaves=3), sampler=_BusySampler())
    assert outcome.finished and outcome.labelled == outcome.works
    rejected = [why for why in reasons(path, "NOT accepted") if why == ["foreign load"]]
    assert 0 < len(rejected) <= 0.25 * outcome.trials + 3


class _RelentingSampler(DoubleSampler):
    """Somebody else's load, in cores of 100 ticks a second, per pair of looks (a window has two)."""

    def __init__(self, cores: list[float]) -> None:
        super().__init__()
        self._cores, self._busy, self._at, self._looks = cores, 0.0, time.monotonic(), 0

    def sample(self) -> Sample:
        now = time.monotonic()
        cores = self._cores[min(max(0, self._looks - 1) // 2, len(self._cores) - 1)]
        self._looks += 1
        self._busy += (now - self._at) * 100.0 * cores
        self._at = now
        self._kept.append(Sample(time.monotonic_ns(), round(self._busy), 10**9, 50.0, 25.0))
        return self._kept[-1]


def test_of_attempts_that_a_foreign_load_all_spoilt_the_least_disturbed_one_counts(path: Path) -> None:
    quiet_second = [9.0, 3.0, 7.0, 0.0]
    protocol = replace(FAST, min_rounds=1, max_rounds=1, max_attempts=3)
    while True:
        outcome = run_campaign(
            path, double_plan(models=1, leaves=0, protocol=protocol), sampler=_RelentingSampler(quiet_second)
        )
        trials = query(path, "SELECT attempt, accepted, foreign_cores, reasons FROM trial ORDER BY attempt")
        if all(json.loads(why) == ["foreign load"] for *_, why in trials):
            break
        path.unlink()  # this machine held up the double of a meter
    assert [attempt for attempt, *_ in trials] == [1, 2, 3]
    least = min(trials, key=lambda trial: trial[2])
    assert least[0] == 2 and [t for t in trials if t[1]] == [least]
    assert outcome.labelled == 1 and outcome.disturbed == 1
    assert outcome.foreign_cores == pytest.approx(least[2])


def test_the_gate_goes_by_the_profiles_standby_power_where_there_is_one(path: Path, tmp_path: Path) -> None:
    measured, given = tmp_path / "measured.sqlite", path
    run_campaign(measured, stop_after_s=0.0)
    outcome = run_campaign(given, header={"standby_power_w": 30.0})
    detail = json.loads(query(given, "SELECT detail FROM event WHERE kind = 'standby'")[0][0])
    assert detail["watts"] == detail["profile_w"] == 30.0
    assert detail["measured_w"] == pytest.approx(IDLE_W, rel=0.1)
    found = json.loads(query(measured, "SELECT detail FROM event WHERE kind = 'standby'")[0][0])
    assert found["profile_w"] is None and found["watts"] == found["measured_w"]
    # The double never draws as little: each trial says so, and none waits for ever.
    assert outcome.finished and outcome.labelled == outcome.works
    assert all(why == ["standby gate"] for why in reasons(given))
    assert any("where its profile says 30.0 W" in note for note in outcome.notes)
    assert any("trials began above standby power" in note for note in outcome.notes)


def test_a_meter_that_shows_no_pulse_is_pulsed_again_and_the_fallback_told(path: Path) -> None:
    power = Power()
    outcome = run_campaign(
        path, power=power, meter=DoubleMeter(power, noise_w=20.0), device=PowerlessDevice(power)
    )
    pulses = [json.loads(d) for (d,) in query(path, "SELECT detail FROM event WHERE kind = 'pulse'")]
    assert len(pulses) == 2 * module.PULSE_ATTEMPTS and not any(pulse["found"] for pulse in pulses)
    assert query(path, "SELECT pulses, sent, score FROM clock") == [(0, len(pulses), 0.0)]
    assert any(f"none of {len(pulses)} load pulses" in note and "arrive" in note for note in outcome.notes)


def test_a_journal_of_version_1_is_opened_and_goes_on(path: Path) -> None:
    run_campaign(path, stop_after_s=0.4)
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE trial DROP COLUMN foreign_cores")
        database.execute("UPDATE campaign SET value = '1' WHERE key = 'version'")
        for name, columns in (("clock", "score, sent"), ("label", ""), ("result", "")):
            database.execute(f"DELETE FROM {name}")
            for column in filter(None, columns.split(", ")):
                database.execute(f"ALTER TABLE {name} DROP COLUMN {column}")
    database.close()
    assert run_campaign(path).finished
    assert query(path, "SELECT value FROM campaign WHERE key = 'version'") == [("2",)]


def test_above_standby_power_the_gate_waits_but_not_for_ever(path: Path) -> None:
    power = Power()

    begun: list[str] = []

    def heat(done: float, total: float, what: str, left_s: float) -> None:
        begun.append(what)
        if len(begun) == 2:
            power.extra_w = 30.0

    plan = double_plan(protocol=replace(FAST, gate_timeout_s=2.0))
    outcome = run_campaign(path, plan, power=power, report=heat)
    assert outcome.finished and outcome.labelled == outcome.works
    found = reasons(path)
    hot = reasons(path, "id > (SELECT MIN(id) FROM trial WHERE accepted)")
    assert found[0] == [] and len(hot) > 3
    assert all(why == ["standby gate"] for why in hot[1:])
    # Patience is a share of the time so far, not a wait before each trial.
    start, end, detail = query(
        path,
        "SELECT a.host_ns, b.host_ns, b.detail FROM event a, event b WHERE a.kind = 'start' AND b.kind = 'stop'",
    )[0]
    waited_s, late_s = json.loads(detail)["gate_waited_s"], 0.1 * len(found)
    assert 0.0 < waited_s < FAST.gate_budget * (end - start) / 1e9 + late_s


def test_conditions_see_throttling_suspend_and_foreign_load(tmp_path: Path) -> None:
    counter = tmp_path / "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    counter.parent.mkdir(parents=True)
    counter.write_text("4\n")
    zone = tmp_path / "class/thermal/thermal_zone0/temp"
    zone.parent.mkdir(parents=True)
    zone.write_text("71500\n")
    conditions = Conditions(DoubleSampler().sample, root=tmp_path)
    assert conditions.temperature_c() == 71.5
    before = conditions.snapshot()
    counter.write_text("5\n")
    assert conditions.reasons(before, conditions.snapshot(), 0.1)[0] == ["throttled"]
    asleep = replace(before, asleep_ns=before.asleep_ns + 10**9, host_ns=before.host_ns + 10**9)
    assert conditions.reasons(before, asleep, 0.1)[0] == ["suspended"]
    busy = replace(before, busy_s=10.0)
    later = replace(busy, busy_s=11.0, own_cpu_s=busy.own_cpu_s + 0.5, host_ns=busy.host_ns + 10**9)
    assert conditions.reasons(busy, later, 0.1)[0] == ["foreign load"]
    assert conditions.reasons(busy, later, 0.6)[0] == []


def test_other_arguments_than_the_plan_was_made_with_are_refused(path: Path) -> None:
    run_campaign(path, replace(double_plan(), arguments={"grid": "8x32", "seed": 3}), stop_after_s=0.2)
    with Journal(path) as journal:
        require_same(journal, {"grid": "8x32", "seed": 3})
        with pytest.raises(InputError, match=r"grid was '8x32', now '8x64'.*--resume"):
            require_same(journal, {"grid": "8x64", "seed": 3})


def test_labels_are_finite_or_absent(finished: Path) -> None:
    for energy, std in query(finished / "campaign.sqlite", "SELECT energy_j, std_j FROM result"):
        assert math.isfinite(energy) and energy > 0.0
        assert std is None or std >= 0.0


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE power SET value = 'x' WHERE rowid = 5",
        "UPDATE session SET meter = '{}'",
        "UPDATE pulse SET busy = '[1, 2]'",
        "UPDATE resource SET mem_usg = '{}' WHERE rowid = 3",
        "UPDATE trial SET session = 99 WHERE id = 1",
        "UPDATE campaign SET value = '[]' WHERE key = 'protocol'",
    ],
)
def test_a_damaged_journal_is_told_in_one_line(damage: str, finished: Path, path: Path) -> None:
    shutil.copy(finished / "campaign.sqlite", path)
    with sqlite3.connect(path) as database:
        database.execute(damage)
    database.close()
    with Journal(path) as journal, pytest.raises(DatasetError, match="is damaged"):
        derive(journal)
