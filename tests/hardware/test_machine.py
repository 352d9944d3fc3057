"""Checks of the machine, on a tree of sysfs files laid out as the kernel does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irene_build.hardware import machine


def put(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")
    return file


def test_the_governor_should_hold_the_clocks(tmp_path: Path) -> None:
    for cpu in range(2):
        put(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "powersave")
    check = machine.check_governor(tmp_path)
    assert (check.status, check.found) == ("warn", "powersave on 2 CPUs")
    assert "cpupower frequency-set -g performance" in check.advice
    for cpu in range(2):
        put(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "performance")
    assert machine.check_governor(tmp_path).status == "ok"


def test_turbo_clocks_are_told(tmp_path: Path) -> None:
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1200000")
    put(tmp_path, "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "4300000")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "4300000")
    assert machine.check_clocks(tmp_path).found == "1200 to 4300 MHz of at most 4300 MHz"
    put(tmp_path, "sys/devices/system/cpu/intel_pstate/no_turbo", "0")
    check = machine.check_clocks(tmp_path)
    assert (check.status, "turbo on" in check.found) == ("warn", True)


@pytest.mark.parametrize(("millidegrees", "status"), [("45000", "ok"), ("93000", "warn")])
def test_heat(tmp_path: Path, millidegrees: str, status: str) -> None:
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "30000")
    put(tmp_path, "sys/class/hwmon/hwmon1/temp2_input", millidegrees)
    assert machine.check_temperature(tmp_path).status == status


def test_throttling_since_boot(tmp_path: Path) -> None:
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    put(tmp_path, counter, "0")
    assert machine.check_throttling(tmp_path).status == "ok"
    put(tmp_path, counter, "12")
    assert machine.check_throttling(tmp_path).found == "12 times since boot"


def test_counters_that_root_alone_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "1")
    assert machine.check_rapl(tmp_path).status == "ok"
    file.chmod(0)
    if os.geteuid() == 0:  # root may read everything: play another user's answer
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    check = machine.check_rapl(tmp_path)
    assert check.status == "fail"
    assert "sudo chmod -R a+r /sys/class/powercap/*/energy_uj" in check.advice


def test_a_serial_port_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "dev/ttyUSB0", "")
    assert machine.check_serial(tmp_path).status == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "usermod -aG dialout" in machine.check_serial(tmp_path).advice


def test_a_machine_that_shows_nothing_is_unknown_not_ok(tmp_path: Path) -> None:
    for check in (
        machine.check_governor(tmp_path),
        machine.check_clocks(tmp_path),
        machine.check_temperature(tmp_path),
        machine.check_throttling(tmp_path),
        machine.check_rapl(tmp_path),
        machine.check_serial(tmp_path),
    ):
        assert check.status == "unknown"
        assert check.found


def test_standby_power_against_the_profile() -> None:
    assert machine.check_standby(48.0, 47.0, "").status == "ok"
    assert machine.check_standby(60.0, 47.0, "").status == "warn"
    assert machine.check_standby(None, 47.0, "").status == "unknown"
    assert machine.check_standby(60.0, None, "").advice == "standby_power_w = 60.0"


def test_other_load_names_who() -> None:
    assert machine.check_load(0.05, []).status == "ok"
    assert machine.check_load(None, []).status == "unknown"
    check = machine.check_load(30.0, [("cc1plus[77]", 0.6)])
    assert (check.status, "cc1plus[77]" in check.advice) == ("warn", True)


_BUSY = "import time\nend = time.time() + 60\nwhile time.time() < end: sum(range(10_000))"


def test_the_busiest_process_is_found_and_doctor_does_not_accuse_itself() -> None:
    mine = subprocess.Popen([sys.executable, "-c", _BUSY])
    # Its parent ends at once, so that it is nobody's child here.
    start = (
        "import subprocess, sys\n"
        f"quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        f"print(subprocess.Popen([sys.executable, '-c', {_BUSY!r}], **quiet).pid)"
    )
    made = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True)
    other = int(made.stdout)
    try:
        before, own_before = machine.process_times()
        end = time.monotonic() + 20.0
        while True:  # both have had a turn
            after, own_after = machine.process_times()
            busy = [key for key, ticks in after.items() if key[0] == other and ticks > before.get(key, 0)]
            if (busy and own_after > own_before) or time.monotonic() > end:
                break
            time.sleep(0.05)
    finally:
        mine.kill()
        mine.wait()
        os.kill(other, signal.SIGKILL)
    busiest = dict(machine.busiest_processes(before, after, 0.5))
    assert any(name.endswith(f"[{other}]") and cores > 0.0 for name, cores in busiest.items())
    assert not any(name.endswith((f"[{mine.pid}]", f"[{os.getpid()}]")) for name in busiest)
    assert own_after > own_before


def test_kernel_threads_are_nobodys_programs(tmp_path: Path) -> None:
    for pid, name, flags in ((9, "kworker/0:1", 0x04208060), (77, "cc1 plus)", 0x00400000)):
        (tmp_path / str(pid)).mkdir()
        stat = f"{pid} ({name}) R 2 0 0 0 -1 {flags} 0 0 0 0 30 12 0 0 20 0 1 0 5 0 0"
        (tmp_path / str(pid) / "stat").write_text(stat)
    assert machine.process_times(tmp_path) == ({(77, "cc1 plus)"): 42}, 0)
