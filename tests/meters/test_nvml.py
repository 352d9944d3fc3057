"""The NVML driver: the real pynvml on a library with NVML's interface, whose GPU misbehaves on demand."""

from __future__ import annotations

import ctypes
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irene_build.errors import HardwareError, MeterError
from irene_build.meters.nvml import NvmlMeter, characterise, store_counter
from tests.meters.wire import collect, until
from tests.nvml import FakeNvml


def joules(meter: NvmlMeter, seconds: float) -> tuple[float, float]:
    """Energy and time between the first and the last reading of a while."""
    end = time.monotonic() + seconds
    readings = []
    while time.monotonic() < end:
        readings += meter.read_new(0.1)
    first, last = readings[0], readings[-1]
    return last.value - first.value, (last.host_time_ns - first.host_time_ns) / 1e9


def test_the_counter_gives_the_boards_energy(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(power_w=200)
    with NvmlMeter({}) as meter:
        assert collect(meter, 1)[0].value == 0.0
        energy, seconds = joules(meter, 0.6)
        info = meter.info
    assert energy / seconds == pytest.approx(200.0, rel=0.08)
    assert (info.kind, info.boundary, info.provenance, info.power_kind) == (
        "energy",
        "gpu",
        "measured",
        "board",
    )
    assert info.details["gpu"] == "Fake GPU"


def test_its_period_is_how_often_the_counter_brings_news(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(step_ms=60)
    with NvmlMeter({}) as meter:
        assert meter.info.period_s == pytest.approx(0.06, rel=0.25)
        assert meter.info.details["step_s"] == meter.info.period_s
        assert meter.info.quantum == pytest.approx(6.0, rel=0.25)
        assert meter.info.details["counter_to_power"] == pytest.approx(1.0, rel=0.2)


def test_an_unchanged_counter_is_no_news(fake_nvml: FakeNvml) -> None:
    with NvmlMeter({}) as meter:
        collect(meter, 3)
        fake_nvml.set(stuck=1)
        time.sleep(0.1)
        meter.read_new(0.0)
        assert meter.read_new(0.3) == []
        fake_nvml.set(stuck=0)
        assert collect(meter, 1)[0].value > 0.0


def test_without_a_counter_instant_power_is_integrated_and_says_so(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(energy_error=3, power_w=150)
    with NvmlMeter({}) as meter:
        assert {r.value for r in collect(meter, 3)} == {150.0}
        assert (meter.info.kind, meter.info.provenance) == ("power", "integrated")
        assert "Not Supported" in meter.info.details["no_counter"]


def test_instant_power_comes_without_the_field_value_too(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(energy_error=3, field_supported=0, power_w=90)
    with NvmlMeter({}) as meter:
        assert collect(meter, 1)[0].value == 90.0


def test_a_gpu_that_tells_nothing_is_not_a_meter(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(energy_error=3, power_error=4)
    with pytest.raises(
        HardwareError, match=r"no energy counter \(Not Supported\) and no power \(Insufficient"
    ):
        NvmlMeter({}).__enter__()


def test_a_reading_that_is_asked_for_must_be_there(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(energy_error=3)
    with pytest.raises(HardwareError, match="no counter reading"):
        NvmlMeter({"reading": "counter"}).__enter__()
    with pytest.raises(HardwareError, match=r"meter\.reading"):
        NvmlMeter({"reading": "tea leaves"}).__enter__()


def test_no_driver_is_told(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(init_error=9)
    with pytest.raises(HardwareError, match="no NVIDIA driver answers"):
        NvmlMeter({}).__enter__()


def test_an_unknown_gpu_is_told(fake_nvml: FakeNvml) -> None:
    for which in ("7", "GPU-of-somebody-else"):
        with pytest.raises(HardwareError, match=f"GPU {which}"):
            NvmlMeter({"gpu": which}).__enter__()
    fake_nvml.set(gpus=2)
    with NvmlMeter({"gpu": "GPU-fake-1"}) as meter:
        assert meter.info.details["uuid"] == "GPU-fake-1"


def test_the_first_visible_device_is_the_one(fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.set(gpus=3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    with NvmlMeter({}) as meter:
        assert meter.info.details["uuid"] == "GPU-fake-2"


def test_a_lost_gpu_ends_the_meter(fake_nvml: FakeNvml) -> None:
    with NvmlMeter({}) as meter:
        collect(meter, 2)
        fake_nvml.set(lost=1)
        with pytest.raises(MeterError, match=r"was lost .*restart the machine"):
            for _ in range(20):
                meter.read_new(0.2)


def test_failing_calls_are_counted_and_lose_no_joule(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(power_w=100, calls_fail_every=3)
    with NvmlMeter({}) as meter:
        energy, seconds = joules(meter, 0.6)
        assert meter.counters()["read_failed"] > 5
    assert energy / seconds == pytest.approx(100.0, rel=0.12)


def test_the_counters_step_and_ratio_are_measured_and_remembered(
    fake_nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path / "artifacts"))
    fake_nvml.set(power_w=100, counter_ratio=0.8, step_ms=50)
    found = characterise({}, 1.0)
    assert found["step_s"] == pytest.approx(0.05, rel=0.2)
    assert found["step_j"] == pytest.approx(4.0, rel=0.2)
    assert found["counter_to_power"] == pytest.approx(0.8, rel=0.06)
    stored = json.loads(store_counter(found).read_text())
    assert set(stored) == {"Fake GPU | driver 000.00"}
    with NvmlMeter({}) as meter:
        assert meter.info.details["counter"]["step_j"] == found["step_j"]
        assert meter.info.details["counter"]["counter_to_power"] == found["counter_to_power"]


def test_a_gpu_without_counter_has_no_step(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(energy_error=3)
    found = characterise({}, 0.2)
    assert "step_s" not in found and "counter_to_power" not in found
    assert "Not Supported" in found["no_counter"]


def test_it_works_in_a_process_of_its_own(fake_nvml: FakeNvml) -> None:
    code = (
        "from irene_build.meters import find_meters as f; m = f(1)[0]; print(m.name, m.available, m.boundary)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=fake_nvml.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["nvml", "True", "gpu"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.integers(0, 2**52), min_size=2, max_size=12))
def test_no_counter_values_yield_joules_that_were_not_there(fake_nvml: FakeNvml, values: list[int]) -> None:
    """Whatever the counter says: readings never fall, and rise by no more than a GPU can draw."""
    meter = NvmlMeter({"poll_s": 3600.0, "step_s": 0.02})
    fake_nvml.set(counter_mj=values[0])
    with meter:
        until(lambda: bool(meter.read_new(0.0)))
        assert meter._thread is not None
        meter._stop.set()  # from here on this test is the one that looks
        meter._thread.join()
        total, last_s = 0.0, time.monotonic()
        for before, value in itertools.pairwise(values):
            fake_nvml.set(counter_mj=value)
            reading = meter._poll()
            now_s = time.monotonic()
            assert (reading is None) == (value == before)
            if reading is not None:
                assert total <= reading.value <= total + 20_000.0 * max(now_s - last_s, 3600.0) + 1e-6
                total, last_s = reading.value, now_s


def test_the_library_is_the_one_that_pynvml_calls(fake_nvml: FakeNvml) -> None:
    import pynvml

    assert isinstance(pynvml.nvmlLib, ctypes.CDLL)
    assert pynvml.nvmlLib._name == str(fake_nvml.library)


def test_power_far_above_the_boards_limit_is_no_reading(fake_nvml: FakeNvml) -> None:
    """Its limit is 250 W here; a driver was seen to tell 15 kW."""
    fake_nvml.set(power_w=200)
    with NvmlMeter({"reading": "power"}) as meter:
        collect(meter, 3)
        fake_nvml.set(power_w=15_000)
        until(lambda: meter.counters().get("implausible", 0) > 2)
        assert {r.value for r in meter.read_new(0.0)} <= {200.0}


def test_a_counter_that_jumps_adds_no_joule(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(counter_mj=1_000_000)
    with NvmlMeter({"step_s": 0.02}) as meter:
        collect(meter, 1)
        fake_nvml.set(counter_mj=9_000_000)
        until(lambda: meter.counters().get("implausible", 0) == 1)
        fake_nvml.set(counter_mj=9_001_000)
        until(lambda: any(r.value == pytest.approx(1.0) for r in meter.read_new(0.1)))
