"""What the driver tells of a GPU beside its energy, by the real pynvml on a library with NVML's interface."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from irene_build.measure.gpu import GpuWatch
from tests.nvml import FakeNvml

SAMPLED_S = 0.06


@pytest.fixture
def gpu(fake_nvml: FakeNvml) -> Iterator[GpuWatch]:
    watch = GpuWatch("cuda")
    yield watch
    watch.close()


def test_what_other_processes_use_is_told_from_what_this_one_does(gpu: GpuWatch, fake_nvml: FakeNvml) -> None:
    seen = gpu.seen_us()
    assert seen > 0
    fake_nvml.set(own_sm=95)
    time.sleep(SAMPLED_S)
    assert gpu.others_share(seen) == 0.0
    fake_nvml.set(other_pid=4711, other_sm=30)
    time.sleep(SAMPLED_S)
    assert gpu.others_share(seen) == pytest.approx(0.3)
    assert gpu.others_share(gpu.seen_us()) == 0.0, "nothing is known since"


def test_others_are_not_known_where_this_process_is_not_among_those_listed(
    gpu: GpuWatch, fake_nvml: FakeNvml
) -> None:
    fake_nvml.set(own_listed=0, other_pid=4711, other_sm=30)
    assert gpu.others_share(0) is None


def test_a_throttle_counts_as_often_as_it_is_seen_and_ordinary_reasons_do_not(
    gpu: GpuWatch, fake_nvml: FakeNvml
) -> None:
    for ordinary in (0x1, 0x2, 0x4, 0x10, 0x100):  # idle, set clocks, power cap, sync boost, display
        fake_nvml.set(throttle=ordinary)
        assert gpu.look() == 0
    for seen, fault in enumerate((0x8, 0x20, 0x40, 0x80 | 0x4), start=1):
        fake_nvml.set(throttle=fault)
        assert gpu.look() == seen
    fake_nvml.set(throttle=0)
    assert gpu.look() == 4


def test_a_gpu_that_is_lost_or_never_was_there_is_not_known(gpu: GpuWatch, fake_nvml: FakeNvml) -> None:
    assert gpu.temperature_c() == 41.0
    fake_nvml.set(lost=1)
    nobody = GpuWatch("7")
    for watch in (gpu, nobody):
        assert watch.temperature_c() is None and watch.others_share(0) is None and watch.seen_us() == 0
        assert watch.look() == 0
    nobody.close()
