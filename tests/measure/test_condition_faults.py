"""Heat, throttling and somebody else's load while a campaign runs, each where the machine would show it.

The processor's are files of a sysfs tree, the GPU's come from a library with NVML's interface through the real
pynvml, and the foreign load is another process that burns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.measure.rig import Feeder, Rig, labels_are_true, relabels_to_the_bit, rows, trials
from tests.measure.wires import Counter, Line
from tests.nvml import FakeNvml

_BURN = "while True: sum(range(1000))"


def spoilt(rig: Rig, attempt: int, reason: str) -> None:
    """The attempt of that number (from 0) was rejected for this reason, kept, and repeated; no other had it."""
    found = trials(rig)
    work, number, accepted, reasons = found[attempt]
    assert not accepted and reason in reasons
    assert found[attempt + 1][:2] == (work, number + 1)
    assert [reason in why for *_, why in found].count(True) == 1


def began_after(rig: Rig, attempt: int, moment_ns: int) -> bool:
    """Did the idle window before that attempt end after a moment?"""
    ends = rows(rig, "SELECT idle_end_ns FROM trial ORDER BY id")
    return bool(ends[attempt][0] > moment_ns)


def test_a_processor_that_throttles_and_one_that_is_hot(
    line: Line, make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    throttles = tmp_path / "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count"
    zone, sensor = (
        tmp_path / "sys/class/thermal/thermal_zone0/temp",
        tmp_path / "sys/class/hwmon/hwmon3/temp1_input",
    )
    phantom = tmp_path / "sys/class/hwmon/hwmon0/temp2_input"
    for file, text in ((throttles, "4"), (zone, "48000"), (sensor, "51000"), (phantom, "127500")):
        file.parent.mkdir(parents=True)
        file.write_text(text + "\n")
    (sensor.parent / "name").write_text("k10temp\n")
    (phantom.parent / "name").write_text("nct6798\n")
    rig = make_rig(line.meter(), held=[0, 2, 3], sysfs=str(tmp_path / "sys"))
    cooled = []
    with Feeder(rig.curve, line.frame):
        rig.start()
        with rig.at(0):
            throttles.write_text("5\n")
        for window, file in ((2, zone), (3, sensor)):
            with rig.at(window):
                file.write_text("93000\n")
            time.sleep(0.6)
            cooled.append(time.monotonic_ns())
            file.write_text("60000\n")
        rig.finish()
    spoilt(rig, 0, "throttled")
    assert began_after(rig, 3, cooled[0]) and began_after(rig, 4, cooled[1])
    labels_are_true(rig)
    relabels_to_the_bit(rig)


def test_a_gpu_that_throttles_for_a_moment_is_hot_or_is_used_by_somebody_else(
    fake_nvml: FakeNvml, make_rig: Callable[..., Rig]
) -> None:
    settings = {"window_s": 0.4, "pulse_unit_s": 0.1}
    rig = make_rig({"driver": "nvml"}, settings, held=[0, 2, 3, 4], gpu=0)
    counter = Counter(fake_nvml, rig.curve)
    rig.environment = fake_nvml.environment()
    with Feeder(rig.curve, counter) as feeder:
        feeder.wait(2)
        rig.start()
        with rig.at(0):  # over before the window is
            counter.state = {"throttle": 0x40}
            feeder.wait(15)
            counter.state = {"throttle": 0}
            feeder.wait(2)
        with rig.at(2):
            counter.state = {"other_pid": 4711, "other_sm": 30}
            feeder.wait(6)
        with rig.at(3):
            counter.state = {"other_pid": 0, "other_sm": 0}
            feeder.wait(6)
        with rig.at(4):
            counter.state = {"temperature_c": 94}
            feeder.wait(2)
        time.sleep(0.6)
        cooled = time.monotonic_ns()
        counter.state = {"temperature_c": 60}
        rig.finish()
    spoilt(rig, 0, "throttled")
    spoilt(rig, 2, "foreign load")
    assert began_after(rig, 5, cooled)
    labels_are_true(rig, rel=0.06)
    relabels_to_the_bit(rig)


def test_another_process_that_burns_during_a_trial(line: Line, make_rig: Callable[..., Rig]) -> None:
    quiet = {"foreign_cores": 0.15, "retry_share": 1.0, "max_attempts": 3}
    rig = make_rig(line.meter(), quiet, held=[0], leaves=2)
    with Feeder(rig.curve, line.frame):
        rig.start()
        with rig.at(0):
            burner = subprocess.Popen([sys.executable, "-c", _BURN])
            burnt(burner.pid, 0.6)
            burner.kill()
            burner.wait()
        rig.finish()
    query = "SELECT work, attempt, accepted, reasons, foreign_cores FROM trial WHERE round = 1 ORDER BY id"
    found = rows(rig, query)
    first = found[0]
    assert "foreign load" in first[3] and first[4] > 0.15
    # On a machine that is busy anyhow the others are no better: then the least disturbed one counts.
    attempts = [row for row in found if row[0] == first[0]]
    assert len(attempts) > 1
    usable = [row for row in attempts if set(json.loads(row[3])) <= {"foreign load", "standby gate"}]
    assert [row for row in attempts if row[2]] == [min(usable, key=lambda row: row[4])]
    assert first[2] == 0 or any("foreign load" in row[3] for row in attempts[1:])
    labels_are_true(rig)
    relabels_to_the_bit(rig)


def burnt(pid: int, seconds: float) -> None:
    """Until a process has used so much processor time."""
    ticks = seconds * os.sysconf("SC_CLK_TCK")
    while sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) < ticks:
        time.sleep(0.01)
