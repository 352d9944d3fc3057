"""Which meter a profile gets, and what a user is told where it is not here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from irene_build.errors import HardwareError
from irene_build.hardware import load_profile, this_pc
from irene_build.meters import DRIVERS, best_profile, find_meters, open_meter, registry
from irene_build.meters.duty_cycle import Duty, store_duty
from irene_build.meters.emonpi import serial_ports
from irene_build.meters.settings import SETTINGS
from tests.meters.test_rapl import zone
from tests.nvml import FakeNvml

no_emonpi = pytest.mark.skipif(bool(serial_ports()), reason="a serial port is here")


@no_emonpi
def test_pc1_without_its_meter_fails_in_one_line_that_says_what_would_work() -> None:
    with pytest.raises(HardwareError) as caught:
        open_meter(load_profile("pc1")).__enter__()
    text = str(caught.value)
    assert "\n" not in text
    assert "hardware 'pc1'" in text
    assert "/dev/ttyUSB*" in text
    assert "here would work: --" in text
    assert caught.value.exit_code == 2


@no_emonpi
def test_what_would_work_is_a_real_meter_where_there_is_one(fake_nvml: FakeNvml) -> None:
    with pytest.raises(HardwareError, match="here would work: --meter nvml"):
        open_meter(load_profile("pc1")).__enter__()


def test_a_meter_can_be_named_on_any_pc(fake_nvml: FakeNvml) -> None:
    with open_meter(load_profile("pc1"), "nvml") as meter:
        assert meter.info.boundary == "gpu"
        assert meter.info.provenance == "measured"


def test_an_unknown_meter_lists_the_known_ones() -> None:
    with pytest.raises(HardwareError, match=r"unknown meter 'sundial': known are emonpi, .*rapl\+nvml"):
        open_meter(load_profile("pc1"), "sundial")


def test_a_sum_is_a_meter(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    profile = replace(load_profile("pc1"), meter={"driver": "rapl+nvml", "rapl": {"root": str(tmp_path)}})
    with open_meter(profile) as meter:
        assert meter.info.boundary == "cpu+gpu"


def test_what_a_profile_asks_to_be_reconciled_is(fake_nvml: FakeNvml) -> None:
    profile = load_profile("virtual")
    profile = replace(profile, meter={**profile.meter, "reconcile": "nvml"})
    with open_meter(profile) as meter:
        assert meter.info.details["reconciled_with"] == "nvml"
        assert meter.counters()["residual_jumps"] == 0


def test_info_is_there_before_a_meter_is_opened() -> None:
    for name in DRIVERS:
        info = open_meter(load_profile("virtual"), name).info
        assert info.name == name
        assert info.period_s > 0.0


def test_a_simulated_source_is_never_found() -> None:
    assert "virtual" not in {finding.name for finding in find_meters(0.1)}


def test_the_best_meter_is_found_and_its_pc_described(
    fake_nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    monkeypatch.setitem(
        registry.DRIVERS, "rapl", lambda config: DRIVERS_RAPL({**config, "root": str(tmp_path)})
    )
    profile, findings = best_profile(0.1)
    assert [f.name for f in findings if f.available] == ["rapl+nvml", "nvml", "rapl"]
    assert (profile.meter["driver"], profile.boundary, profile.device) == ("rapl+nvml", "cpu+gpu", "cuda")
    assert profile.gpu["model"] == "Fake GPU"


DRIVERS_RAPL = DRIVERS["rapl"]


@no_emonpi
def test_without_any_real_meter_the_simulated_pc_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ORDER", ("emonpi",))
    profile, findings = best_profile(0.1)
    assert profile.name == "virtual"
    assert [f.available for f in findings] == [False]
    assert "ttyUSB" in findings[0].reason


def test_rejected_lines_are_kept_beside_the_hardwares_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    (tmp_path / "virtual").mkdir()
    with open_meter(load_profile("virtual")) as meter:
        meter.read_new(1.0)
    assert "simulated meter" in (tmp_path / "virtual" / "quarantine.txt").read_text()


def test_a_meters_details_hold_the_duty_that_doctor_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    profile = load_profile("virtual")
    with open_meter(profile) as meter:
        assert "duty" not in meter.info.details
        store_duty(meter.info, Duty(0.25, 0.2, 0.3))
    with open_meter(profile) as meter:
        assert meter.info.details["duty"] == 0.25


def test_an_installed_package_brings_a_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_meter.py").write_text(
        "from irene_build.meters.replay import ReplayMeter\n"
        "from irene_build.meters.settings import text\n"
        "class TheirMeter(ReplayMeter):\n"
        "    settings = {'file': text}\n"
    )
    about = tmp_path / "their_meter-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-meter\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[irene_build.meters]\ntheirs = their_meter:TheirMeter\n")
    monkeypatch.syspath_prepend(tmp_path)
    for table in (DRIVERS, SETTINGS):
        monkeypatch.delitem(table, "theirs", raising=False)
    assert open_meter(this_pc({"driver": "theirs", "file": "a"}, "wall")).info.name == "replay"
    with pytest.raises(HardwareError, match=r"meter\.colour is no setting of theirs"):
        open_meter(this_pc({"driver": "theirs", "colour": "red"}, "wall"))
    for table in (DRIVERS, SETTINGS):
        del table["theirs"]
