"""The simulated PC: an emonPi on a pseudo-terminal that follows this machine's load, and says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.errors import MeterError
from irene_build.hardware import HardwareProfile, load_profile, virtual_pc
from irene_build.meters import open_meter
from irene_build.meters.virtual import VirtualMeter
from tests.meters.wire import collect, until

SETTINGS = load_profile("virtual").meter["model"]
PARENT = """
import sys, time
from irene_build.hardware import load_profile
from irene_build.meters.virtual import VirtualMeter
meter = VirtualMeter(load_profile("virtual").meter).__enter__()
print(meter.pid, flush=True)
time.sleep(60)
"""


def quick(**model: Any) -> dict[str, Any]:
    meter = load_profile("virtual").meter
    return {**meter, "period_s": 0.02, "window_s": 0.02, "model": {**meter["model"], **model}}


def running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except OSError:
        return False


def test_its_joules_say_that_they_are_simulated() -> None:
    with open_meter(load_profile("virtual")) as meter:
        assert meter.info.provenance == "simulated"
        assert "simulated" in meter.info.source
        assert meter.info.boundary == "wall"
        readings = collect(meter, 3)
    assert all(40.0 < r.value < 160.0 for r in readings)
    assert all(r.meter_time_s is not None for r in readings)


def test_it_follows_the_machines_load() -> None:
    with VirtualMeter({**quick(), "period_s": 0.1}) as meter:
        load = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            collect(meter, 2)
            busy = max(r.value for r in collect(meter, 6))
        finally:
            load.kill()
            load.wait()
    # One core of this machine is busy at least, whatever else runs here.
    share = 1.0 / (os.cpu_count() or 1)
    model = virtual_pc.Model(SETTINGS)
    assert busy > model.wall_w(0.0, 0.0, 0.1) + 0.5 * (
        model.wall_w(share, 0.0, 0.1) - model.wall_w(0.0, 0.0, 0.1)
    )


def test_its_clock_can_be_wrong_by_offset_and_drift() -> None:
    with VirtualMeter(quick(clock_offset_s=3.0, clock_drift_ppm=200_000.0)) as meter:
        readings = collect(meter, 40)
    first, last = readings[0], readings[-1]
    assert first.meter_time_s > 3.0
    rate = (last.meter_time_s - first.meter_time_s) / ((last.host_time_ns - first.host_time_ns) / 1e9)
    assert rate == pytest.approx(1.2, abs=0.06)


def test_it_ends_with_the_meter_and_leaves_no_zombie() -> None:
    with VirtualMeter(quick()) as meter:
        pid = meter.pid
        assert pid is not None and running(pid)
    assert not Path(f"/proc/{pid}").exists()


def test_it_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert running(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until(lambda: not running(pid), 5.0)


def test_a_simulated_pc_that_is_killed_is_a_meter_error() -> None:
    with VirtualMeter(quick()) as meter:
        collect(meter, 2)
        assert meter.pid is not None
        os.kill(meter.pid, signal.SIGKILL)
        with pytest.raises(MeterError, match="gone"):
            end = time.monotonic() + 5.0
            while time.monotonic() < end:
                meter.read_new(0.2)
        assert meter.counters()["disconnects"] == 1


def test_another_profile_can_change_the_model() -> None:
    base = load_profile("virtual")
    profile: HardwareProfile = replace(base, name="hungry", meter=quick(idle_w=500.0))
    with open_meter(profile) as meter:
        assert min(r.value for r in collect(meter, 3)) > 500.0


def test_the_same_seed_and_load_give_the_same_readings() -> None:
    def play(seed: int) -> list[tuple[float, float]]:
        model = virtual_pc.Model({**SETTINGS, "seed": seed})
        return [model.meter(model.wall_w(user / 10, 0.05, 0.17)) for user in range(10)]

    assert play(1) == play(1) != play(2)


def test_readings_come_in_the_meters_steps() -> None:
    model = virtual_pc.Model(SETTINGS)
    for _ in range(50):
        volts, amperes = model.meter(model.wall_w(0.3, 0.1, 0.17))
        assert volts == pytest.approx(round(volts, 2), abs=1e-9)
        assert amperes == pytest.approx(round(amperes, 3), abs=1e-9)


@given(a=st.floats(0, 1), b=st.floats(0, 1), system=st.floats(0, 0.5))
def test_more_load_is_more_power_between_idle_and_full(a: float, b: float, system: float) -> None:
    low, high = sorted((a, b))
    powers = [virtual_pc.Model(SETTINGS).wall_w(user, system, 0.17) for user in (low, high)]
    full = virtual_pc.Model({**SETTINGS, "drift_time_s": 1e-9}).wall_w(1.0, 1.0, 0.17)
    idle = SETTINGS["supply_loss_w"] + SETTINGS["idle_w"] / SETTINGS["supply_efficiency"]
    assert idle - 1e-9 <= powers[0] <= powers[1] + 1e-9 <= full + 2e-9


def test_it_warms_up_under_load() -> None:
    model = virtual_pc.Model(SETTINGS)
    powers = [model.wall_w(1.0, 0.0, 1.0) for _ in range(600)]
    warm = SETTINGS["drift_share"] * SETTINGS["user_w"] / (SETTINGS["user_w"] + SETTINGS["system_w"])
    parts = (SETTINGS["idle_w"] + SETTINGS["user_w"]) / SETTINGS["supply_efficiency"]
    assert powers[-1] - powers[0] == pytest.approx(warm * parts, rel=0.02)
    assert powers == sorted(powers)


def test_its_settings_are_all_in_the_profile() -> None:
    assert json.loads(json.dumps(SETTINGS)) == SETTINGS
