"""Datasheets: devices by the names that people and drivers give them."""

import json

import pytest

from irene_build.errors import HardwareError
from irene_build.hardware.datasheets import all_datasheets, datasheet, from_system_yaml
from tests.test_cli import run


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("A100", "A100 SXM4 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM4 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5 80GB"),
        ("rtx4090d", "GeForce RTX 4090 D"),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
        ("3090", "GeForce RTX 3090"),
        ("M1 Pro", "Apple M1 Pro"),
        ("Tesla T4", "Tesla T4"),
    ],
)
def test_a_device_is_found_by_any_usual_name(asked, meant):
    assert datasheet(asked).name == meant


def test_every_device_is_found_by_its_own_name_and_is_physical():
    for sheet in all_datasheets():
        assert datasheet(sheet.name) is sheet
        assert 0.0 <= sheet.idle_w < sheet.power_limit_w
        assert 1e12 < sheet.peak("float32") <= sheet.peak("float16")
        assert 5e10 < sheet.bandwidth_bytes_per_s < 1e13
        assert sheet.max_clock_hz > 1e9
        assert "all" in sheet.source


def test_what_a_device_has_no_unit_for_runs_as_something_wider():
    turing = datasheet("T4")
    assert turing.peak("bfloat16") == turing.peak("float32")
    assert turing.peak("nf4") == turing.peak("float16")


def test_an_unknown_device_is_told_with_near_names():
    with pytest.raises(HardwareError, match=r"RTX 9999.*did you mean.*irene-build devices"):
        datasheet("RTX 9999")


def test_a_system_file_overrides_what_it_says(tmp_path):
    path = tmp_path / "h200_sxm.yaml"
    path.write_text("gpu:\n  mem_bw: 4.0e12\n  power: 650\n  bfloat16_tc_flops: 9.0e14\n")
    sheet = from_system_yaml(path)
    assert (sheet.name, sheet.bandwidth_bytes_per_s, sheet.power_limit_w) == ("H200 SXM5 141GB", 4e12, 650.0)
    assert sheet.peak("float16") == 9e14
    assert sheet.source["bandwidth"] == "h200_sxm.yaml"
    path.write_text("nothing: here")
    with pytest.raises(HardwareError, match="not a system file"):
        from_system_yaml(path)


def test_devices_are_listed_and_shown():
    assert "GeForce RTX 5090" in run("devices").stdout
    shown = json.loads(run("devices", "rtx 5090", "--json").stdout)
    assert shown["peak_flops_per_s"]["float16"] == pytest.approx(209.5e12)
    assert run("devices", "RTX 9999").returncode == 2
