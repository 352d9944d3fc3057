"""Live features of a window: what is there, what is missing and why, and what follows for the tier."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from irene_runtime import monitor as monitor_module
from irene_runtime.errors import InputError
from irene_runtime.model import Estimator
from irene_runtime.monitor import Monitor, differences, machine_fingerprint
from irene_runtime.sampler import Sampler
from tests.nvml import FakeNvml
from tests.runtime.examples import estimator, reading, term, tree


@pytest.fixture
def est() -> Estimator:
    return Estimator(estimator())


def watched(est: Estimator, seconds: float = 0.3, runs: int = 5) -> Monitor:
    """A window on the GPU that ``fake_nvml`` plays."""
    with est.monitor(runs=runs, period_s=0.005) as live:
        time.sleep(seconds)
    return live


def test_latency_is_the_window_over_its_runs(est: Estimator) -> None:
    with est.monitor(runs=4, period_s=0.01) as live:
        time.sleep(0.2)
    assert live.features["latency"] * 4 == pytest.approx(live.seconds)
    assert live.seconds >= 0.2


def test_runs_can_be_set_inside_the_window(est: Estimator) -> None:
    with est.monitor() as live:
        time.sleep(0.05)
        live.runs = 10
    assert live.features["latency"] * 10 == pytest.approx(live.seconds)


def test_every_feature_is_there_or_missing_with_a_reason(est: Estimator) -> None:
    with est.monitor(period_s=0.01) as live:
        time.sleep(0.1)
    names = {"cpu_util", "mem_usg", "gpu_util", "gm_usg", "g_clk", "gm_clk", "latency", "gpu_energy"}
    assert set(live.features) | set(live.missing) == names
    assert not set(live.features) & set(live.missing)
    assert all(live.missing.values())


def test_a_gpu_without_permission_or_counter_is_named(est: Estimator, fake_nvml: FakeNvml) -> None:
    fake_nvml.set(energy_error=4, power_error=4, util_error=3)
    live = watched(est, seconds=0.1)
    assert "Insufficient Permissions" in live.missing["gpu_energy"]
    assert "Not Supported" in live.missing["gpu_util"]
    assert "g_clk" in live.features
    assert est.predict(tree(), live).tier == "static"


def test_a_gpu_that_is_lost_in_the_window_is_named(est: Estimator, fake_nvml: FakeNvml) -> None:
    with est.monitor(period_s=0.005) as live:
        time.sleep(0.05)
        fake_nvml.set(lost=1)
        time.sleep(0.15)
    p = est.predict(tree(), live)
    assert "lost" in live.missing["gpu_energy"] and p.tier == "static"


def test_a_driver_that_is_not_loaded_is_named(est: Estimator, fake_nvml: FakeNvml) -> None:
    fake_nvml.set(init_error=9)
    assert "Driver Not Loaded" in watched(est, seconds=0.02).missing["gpu_energy"]


def test_a_window_too_short_for_the_counter_says_so(est: Estimator, fake_nvml: FakeNvml) -> None:
    fake_nvml.set(step_ms=10_000)
    live = watched(est, seconds=0.05, runs=1)
    assert "too short" in live.missing["gpu_energy"] and "let it hold more runs" in live.missing["gpu_energy"]


def test_without_a_gpu_it_predicts_in_the_tier_that_is_left(est: Estimator) -> None:
    live = est.monitor(period_s=0.01, gpu="GPU-00000000-not-here")
    with live:
        time.sleep(0.05)
    assert "gpu_energy" in live.missing
    p = est.predict(tree(), live)
    assert p.tier == "static" and "fell-back" in p.flags
    assert any(note.startswith("gpu_energy is missing: ") for note in p.notes)
    assert "note: gpu_energy is missing" in p.table()
    assert not any("g_clk" in note for note in p.notes), "no tier asked for it"


def test_without_proc_it_says_so(est: Estimator, tmp_path: Path) -> None:
    """As on macOS and Windows, or in a container that hides it."""
    live = est.monitor(period_s=0.01)
    live.sampler = Sampler(period_s=0.01, proc=str(tmp_path))
    with live:
        time.sleep(0.03)
    assert "stat: No such file" in live.missing["cpu_util"] and "mem_usg" in live.missing
    assert "latency" in live.features


def test_with_a_gpu_it_predicts_in_the_live_tier(est: Estimator, fake_nvml: FakeNvml) -> None:
    live = watched(est, runs=5)
    assert live.missing == {}
    assert live.features["gpu_energy"] * 5 == pytest.approx(100.0 * live.seconds, rel=0.1)
    assert live.features["g_clk"] == pytest.approx(1500.0)
    p = est.predict(tree(), live)
    assert p.tier == "live" and "fell-back" not in p.flags
    assert p.energy_j == 2.0 * live.features["gpu_energy"] + 100.0 * live.features["latency"]


@pytest.mark.parametrize("runs", [0, -1, 1.5, True, "3"])
def test_runs_must_be_a_count(est: Estimator, runs: Any) -> None:
    with pytest.raises(InputError, match="runs is"), est.monitor(runs=runs):
        pass


def test_the_thread_ends_and_the_exception_goes_through(est: Estimator) -> None:
    before = threading.active_count()
    with pytest.raises(KeyError, match="mine"), est.monitor() as live:
        raise KeyError("mine")
    assert threading.active_count() == before
    with pytest.raises(InputError, match="not finished"):
        est.predict(tree(), live)


def test_an_open_window_has_no_features(est: Estimator) -> None:
    with est.monitor() as live, pytest.raises(InputError, match="not finished"):
        _ = live.features


def test_two_monitors_do_not_disturb_each_other(est: Estimator) -> None:
    with est.monitor(period_s=0.01) as outer:
        with est.monitor(period_s=0.01) as inner:
            time.sleep(0.05)
        time.sleep(0.05)
    assert outer.seconds > inner.seconds
    assert "cpu_util" in outer.features or "cpu_util" in outer.missing


def test_another_pc_is_named(fake_nvml: FakeNvml) -> None:
    est = Estimator(
        estimator(
            fingerprint={"cpu": "Elsewhere 9000", "gpu": "", "platform": machine_fingerprint()["platform"]}
        )
    )
    p = est.predict(tree(), watched(est))
    assert "other-hardware" in p.flags
    assert any("calibrated with Elsewhere 9000" in note for note in p.notes)
    assert "other-hardware" not in est.predict(tree()).flags


def test_the_same_pc_is_not_flagged_and_an_unknown_one_is_mentioned(
    est: Estimator, fake_nvml: FakeNvml
) -> None:
    own = Estimator(estimator(fingerprint=machine_fingerprint()))
    p = own.predict(tree(), watched(own))
    assert "other-hardware" not in p.flags and p.notes == []
    p = est.predict(tree(), watched(est))
    assert "other-hardware" not in p.flags and "left no fingerprint" in p.notes[0]


def test_differences_count_only_what_both_know() -> None:
    assert differences({"cpu": "a", "driver": "1"}, {"cpu": "a", "gpu": "g"}) == ""
    assert differences({"driver": "1"}, {"driver": "2"}) == "driver 2, calibrated with 1"


def gpu_estimator(**changes: Any) -> Estimator:
    """Calibrated on the GPU's own counter: 3 J a run of the example tree, whatever runs."""
    data = estimator(boundary="gpu", label_source="nvml", **changes)
    leaf = {"terms": [term("one", [], 1.0)], "floor": 0.0, "correction": None}
    data["tiers"]["static"].update(leaf={"Linear": leaf, "Softmax": leaf}, fallback=leaf)
    data["tiers"] = {"static": data["tiers"]["static"]}
    return Estimator(data)


def test_no_drift_where_the_counter_agrees(fake_nvml: FakeNvml) -> None:
    est = gpu_estimator()
    fake_nvml.set(step_ms=1)
    live = watched(est, seconds=0.6, runs=20)  # 100 W x 0.6 s / 20
    live.features["gpu_energy"] = 3.0
    drift = live.drift(tree())
    assert (drift.source, drift.observed_j, drift.predicted_j, drift.ratio) == ("gpu counter", 3.0, 3.0, 1.0)
    assert not drift.recalibrate and drift.reasons == []
    assert drift.power_change == pytest.approx(0.0, abs=0.2)


def test_drift_of_the_energy_asks_for_a_calibration(fake_nvml: FakeNvml) -> None:
    est = gpu_estimator()
    live = watched(est)
    live.features["gpu_energy"] = 3.9
    drift = live.drift(tree())
    assert drift.recalibrate and "outside the static prediction's 90 % interval" in drift.reasons[0]
    assert drift.ratio == pytest.approx(1.3)


def test_drift_of_power_within_the_window(fake_nvml: FakeNvml) -> None:
    """Here the GPU has no counter, so that its power is integrated."""
    est = gpu_estimator()
    fake_nvml.set(energy_error=3, power_w=100)
    with est.monitor(runs=10, period_s=0.005) as live:
        time.sleep(0.2)
        fake_nvml.set(power_w=300)
        time.sleep(0.2)
    live.features["gpu_energy"] = 3.0
    drift = live.drift(tree())
    assert drift.source == "gpu power, integrated"
    assert drift.power_change is not None and drift.power_change > 0.5  # from 100 W to 300 W
    assert drift.recalibrate and any("GPU power moved by +" in reason for reason in drift.reasons)


def test_drift_against_an_earlier_window(fake_nvml: FakeNvml) -> None:
    est = gpu_estimator()
    fake_nvml.set(step_ms=1)
    first, second = watched(est), watched(est)
    first.features["gpu_energy"], second.features["gpu_energy"] = 2.8, 3.2
    before = first.drift(tree())
    assert not before.recalibrate
    after = second.drift(tree(), before)
    assert after.recalibrate and "moved from 0.9333 to 1.0667" in after.reasons[0]


def test_drift_names_clocks_and_drivers(fake_nvml: FakeNvml) -> None:
    data = estimator(boundary="gpu", fingerprint={"gpu": "Fake GPU", "driver": "1.0"})
    data["tiers"]["live"]["ranges"] = {"model": {"g_clk": [1900.0, 1980.0]}}
    est = Estimator(data)
    live = watched(est)
    live.features["gpu_energy"] = 15.0
    live.differs = differences(est.fingerprint, {"gpu": "Fake GPU", "driver": "2.0"})
    reasons = "; ".join(live.drift(tree()).reasons)
    assert "driver 2.0, calibrated with 1.0" in reasons
    assert "g_clk ran at 1500 MHz, calibrated at 1900 to 1980" in reasons


def test_at_the_wall_the_live_tier_is_compared(est: Estimator, fake_nvml: FakeNvml) -> None:
    live = watched(est)
    live.features.update(gpu_energy=5.0, latency=0.02)
    drift = live.drift(tree())
    assert (drift.source, drift.observed_j, drift.predicted_j) == ("live tier", 12.0, 15.0)
    assert drift.recalibrate


def test_without_a_counter_there_is_no_drift_check(est: Estimator) -> None:
    live = est.monitor(gpu="GPU-00000000-not-here")
    with live:
        pass
    with pytest.raises(InputError, match=r"no counter to compare with .*gpu_energy"):
        live.drift(tree())


def test_a_live_tier_from_readings_that_the_window_lacks(est: Estimator) -> None:
    data = estimator()
    data["tiers"]["live"]["direct"] = {"model": {**reading(1.0), "terms": [term("time", [2], 100.0)]}}
    est = Estimator(data)
    with est.monitor() as live:
        time.sleep(0.01)
    p = est.predict(tree(), live)
    assert p.tier == "live" and p.energy_j == 100.0 * live.features["latency"]


def test_torch_work_is_waited_for(est: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends of the window synchronise a GPU that torch has started."""
    calls: list[str] = []

    class Cuda:
        is_available = staticmethod(lambda: True)
        is_initialized = staticmethod(lambda: True)
        synchronize = staticmethod(lambda: calls.append("sync"))

    class Torch:
        cuda = Cuda

    monkeypatch.setitem(monitor_module.sys.modules, "torch", Torch)  # type: ignore[arg-type]
    with est.monitor():
        calls.append("work")
    assert calls == ["sync", "work", "sync"]
