"""Which GPU meter, sampler and watch take: the one that CUDA's device 0 is, or a refusal that names the variable."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from irene_build.hardware import this_pc
from irene_build.hardware.machine import check_gpu
from irene_build.measure.gpu import GpuWatch
from irene_build.meters.nvml import NvmlMeter
from irene_runtime.errors import HardwareError
from irene_runtime.gpu import find_gpu
from irene_runtime.sampler import Sampler
from tests.nvml import FakeNvml


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch, fake_nvml: FakeNvml) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    fake_nvml.set(gpus=3)
    pynvml.nvmlInit()


def chosen(which: Any = None) -> str:
    return str(pynvml.nvmlDeviceGetUUID(find_gpu(pynvml, which)))


def refused(which: Any = None) -> str:
    with pytest.raises(HardwareError) as told:
        find_gpu(pynvml, which)
    return str(told.value)


@pytest.mark.parametrize(
    ("visible", "which", "gpu"),
    [
        (None, None, 0),
        (None, "cuda:2", 2),
        ("2,0", "auto", 2),
        (" 2 , 0 ", "cuda:1", 0),
        ("GPU-fake-1", "cuda", 1),
        ("gpu-FAKE-2,0", "cuda:0", 2),
        ("1,-1,2", "cuda:0", 1),
        ("2", "1", 1),
        ("2", 0, 0),
        ("2", "GPU-fake-1", 1),
        ("2", "00000000:11:00.0", 1),
    ],
)
def test_equal_gpus_are_counted_as_cuda_counts_them(
    visible: str | None, which: Any, gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert chosen(which) == f"GPU-fake-{gpu}"


@pytest.mark.parametrize(
    ("visible", "which", "why"),
    [
        ("", None, "CUDA sees no GPU"),
        ("-1", None, "CUDA sees no GPU"),
        ("NoDevFiles", None, "CUDA_VISIBLE_DEVICES=NoDevFiles"),
        ("1", "cuda:1", "no device 1"),
        ("1,-1,2", "cuda:1", "no device 1"),
        ("7", None, "CUDA_VISIBLE_DEVICES=7: there are 3 GPUs"),
        ("GPU-fak", None, "fits 3 of the GPUs"),
        ("GPU-other", None, "is none of the GPUs here"),
        ("MIG-1234", None, "CUDA_VISIBLE_DEVICES=MIG-1234 is a slice"),
        (None, "cuda:x", "write cuda:0"),
        (None, "7", "GPU 7"),
        (None, "MIG-1234", "slice"),
    ],
)
def test_what_cuda_would_not_take_is_refused(
    visible: str | None, which: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert why in refused(which)


def test_gpus_that_differ_are_counted_by_speed_unless_cuda_is_told_to_go_by_address(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.set(differ=1)
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in refused()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in refused()
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert chosen() == "GPU-fake-2"
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-fake-1")
    assert chosen() == "GPU-fake-1"


def test_a_gpu_in_slices_is_no_cuda_device_but_can_be_named(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(mig=1)
    assert "MIG" in refused()
    assert chosen("GPU-fake-0") == "GPU-fake-0"


@pytest.mark.parametrize(
    "about", [{"uuid": "fake-2"}, {"pci_domain_id": 0, "pci_bus_id": 0x12, "pci_device_id": 0}]
)
def test_where_torch_uses_cuda_already_it_knows_best(
    about: dict[str, Any], fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no CUDA here to ask: a stand-in for torch's answer, the rest is real."""
    fake_nvml.set(differ=1)
    cuda = SimpleNamespace(
        is_initialized=lambda: True, get_device_properties=lambda n: SimpleNamespace(**about)
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert chosen() == "GPU-fake-2"


def test_meter_sampler_and_watch_take_the_same_gpu_and_refuse_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with NvmlMeter({}) as meter:
        assert meter.info.details["uuid"] == "GPU-fake-1"
    watch = GpuWatch("cuda")
    assert watch.missing == "" and watch.temperature_c() is not None
    watch.close()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(HardwareError, match="CUDA_VISIBLE_DEVICES"):
        NvmlMeter({}).__enter__()
    sampler = Sampler().open()
    assert "CUDA_VISIBLE_DEVICES" in sampler.missing["gpu_energy"] and sampler.gpu_name is None
    sampler.close()
    watch = GpuWatch("cuda")
    assert "CUDA_VISIBLE_DEVICES" in watch.missing and watch.others_share(0) is None
    watch.close()


def test_a_name_that_is_no_text_is_no_fault(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(differ=2, gpus=1)
    with NvmlMeter({}) as meter:
        assert meter.info.details["gpu"] == "GPU"
    sampler = Sampler().open()
    assert sampler.gpu_name == "GPU" and "gpu_energy" not in sampler.missing
    sampler.close()
    assert check_gpu()[0].status == "ok"
    assert this_pc({"driver": "nvml"}, "gpu").gpu["model"] == "GPU"
