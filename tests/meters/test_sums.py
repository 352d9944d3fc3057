"""Sums of sources, here RAPL from a powercap tree and NVML from its library, both moving."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from irene_build.errors import HardwareError
from irene_build.meters.nvml import NvmlMeter
from irene_build.meters.rapl import RaplMeter
from irene_build.meters.sums import SumMeter, join_boundaries
from tests.meters.test_rapl import count, zone
from tests.nvml import FakeNvml


@contextmanager
def drawing(package: Path, power_w: Callable[[], float]) -> Iterator[None]:
    """A socket that draws ``power_w``."""
    stop = threading.Event()

    def run() -> None:
        energy_uj, last = 1_000_000.0, time.monotonic()
        while not stop.wait(0.01):
            now = time.monotonic()
            energy_uj += 1e6 * power_w() * (now - last)
            last = now
            count(package, int(energy_uj))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_rapl_and_nvml_add_up_with_their_boundaries_in_the_name(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    package = zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    fake_nvml.set(power_w=200)
    parts = [RaplMeter({"root": str(tmp_path / "powercap")}), NvmlMeter({})]
    with drawing(package, lambda: 50.0), SumMeter(parts) as meter:
        readings = []
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            readings += meter.read_new(0.1)
        info = meter.info
    assert (info.name, info.boundary, info.provenance) == ("rapl+nvml", "cpu+gpu", "measured")
    first, last = readings[0], readings[-1]
    assert first.value == 0.0
    assert all(a.host_time_ns < b.host_time_ns for a, b in itertools.pairwise(readings))
    power = (last.value - first.value) / ((last.host_time_ns - first.host_time_ns) / 1e9)
    assert power == pytest.approx(250.0, rel=0.08)


def test_a_sum_with_an_integrated_part_is_integrated(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    fake_nvml.set(energy_error=3)
    with SumMeter([RaplMeter({"root": str(tmp_path / "powercap")}), NvmlMeter({})]) as meter:
        assert meter.info.provenance == "integrated"


def test_no_news_from_one_is_no_news_from_the_sum(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    package = zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    fake_nvml.set(stuck=1)
    with (
        drawing(package, lambda: 50.0),
        SumMeter([RaplMeter({"root": str(tmp_path / "powercap")}), NvmlMeter({})]) as meter,
    ):
        time.sleep(0.3)
        assert meter.read_new(0.2) == []


def test_nothing_is_counted_twice() -> None:
    assert join_boundaries(["cpu+dram", "gpu"]) == "cpu+dram+gpu"
    for twice in (["cpu", "cpu+dram"], ["wall", "gpu"], ["platform", "gpu"]):
        with pytest.raises(HardwareError, match="twice"):
            join_boundaries(twice)
