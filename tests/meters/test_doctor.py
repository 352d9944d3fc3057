"""``irene-build doctor``: meters side by side over an idle window, the machine, and what to change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from irene_build.errors import HardwareError
from irene_build.hardware import load_profile
from irene_build.meters.doctor import examine
from irene_build.meters.duty_cycle import Duty, store_duty
from irene_build.meters.emonpi import serial_ports
from irene_build.meters.nvml import NvmlMeter
from tests.nvml import FakeNvml

no_emonpi = pytest.mark.skipif(bool(serial_ports()), reason="a serial port is here")


def doctor(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "irene_build.cli", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_simulated_pc_is_examined_and_named_so() -> None:
    done = doctor("--hardware", "virtual", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stderr
    for word in (
        "frame period",
        "duty",
        "quantisation",
        "noise",
        "shortest window",
        "governor",
        "standby power",
    ):
        assert word in done.stdout


def test_its_json_has_the_figures() -> None:
    done = doctor("--hardware", "virtual", "--seconds", "1", "--json")
    found = json.loads(done.stdout)
    meter = found["meters"][0]
    assert (meter["name"], meter["provenance"]) == ("virtual", "simulated")
    assert 0.1 < meter["period_s"] < 1.0
    assert meter["coverage"] > 0.5
    assert meter["duty"] is not None or "readings" in meter["duty_reason"]
    assert meter["shortest_window_s"] > 5.0
    names = {check["name"] for check in found["checks"]}
    assert {"other load", "standby power", "governor", "cpu clocks", "temperature", "rapl"} <= names
    assert {check["status"] for check in found["checks"]} <= {"ok", "warn", "fail", "unknown"}


@no_emonpi
def test_a_pc_without_its_meter_is_wrong_input() -> None:
    done = doctor("--hardware", "pc1", "--seconds", "1")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "ttyUSB" in done.stderr


@no_emonpi
def test_without_any_meter_it_says_so() -> None:
    done = doctor("--seconds", "1")
    if "nvml:" in done.stdout.replace("no nvml:", "") or "rapl:" in done.stdout.replace("no rapl:", ""):
        pytest.skip("a real meter is here")
    assert done.returncode == 0
    assert "No meter was found" in done.stdout
    assert "--hardware virtual" in done.stdout


def test_a_gpu_is_examined_and_its_counter_remembered(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.set(power_w=100, temperature_c=91, throttle=0x40)
    environment = {**fake_nvml.environment(), "IRENE_ARTIFACTS": str(tmp_path / "artifacts")}
    done = doctor("--seconds", "1", "--no-pulses", "--json", environment=environment)
    found = json.loads(done.stdout)
    meter = next(m for m in found["meters"] if m["name"] == "nvml")
    assert meter["power_w"] == pytest.approx(100.0, rel=0.1)
    assert 0.01 < meter["period_s"] < 0.2
    assert found["nvml_counter"]["counter_to_power"] == pytest.approx(1.0, rel=0.1)
    assert (tmp_path / "artifacts" / "nvml.json").is_file()
    assert meter["duty"] is None and meter["duty_reason"] == "nothing loaded what it meters"
    gpu = next(check for check in found["checks"] if check["name"] == "gpu 0")
    assert gpu["status"] == "warn"
    for word in ("91 °C", "hardware thermal", "persistence mode off"):
        assert word in gpu["found"]
    assert "nvidia-smi -pm 1" in gpu["advice"]


def test_where_nothing_can_be_kept_the_counter_is_told_all_the_same(
    fake_nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path / "file"))
    found = examine(None, 1.0)["nvml_counter"]
    assert found["step_s"] > 0.0 and found["stored_in"].startswith("nothing: ")


def test_a_gpu_that_nothing_here_can_load_has_no_duty_and_says_why(
    fake_nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))

    def no_gpu(seconds: float) -> None:
        raise HardwareError("device 'cuda': this torch sees no GPU")

    found = examine(None, 1.0, burns={"gpu": no_gpu})
    meter = next(m for m in found["meters"] if m["name"] == "nvml")
    assert meter["duty"] is meter["shortest_window_swinging_s"] is None
    assert "sees no GPU" in meter["duty_reason"]


def test_a_duty_that_was_found_is_kept_for_when_it_cannot_be(
    fake_nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    with NvmlMeter({}) as open_meter:
        store_duty(open_meter.info, Duty(0.25, 0.2, 0.3, 0.025, 0.0, 0.1, 0.9))
    meter = next(m for m in examine(None, 1.0)["meters"] if m["name"] == "nvml")
    assert (meter["duty"], meter["duty_interval"]) == (0.25, [0.2, 0.3])
    assert "earlier look" in meter["duty_reason"] and "25 % of the time" in meter["advice"]
    assert meter["shortest_window_swinging_s"] > 10.0 * meter["shortest_window_s"]


def test_a_load_beside_is_named() -> None:
    load = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        found = examine(load_profile("virtual"), 1.5)
    finally:
        load.kill()
        load.wait()
    check = next(c for c in found["checks"] if c["name"] == "other load")
    assert check["status"] == "warn"
    assert "stop what runs beside" in check["advice"]
