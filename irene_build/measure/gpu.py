"""What NVML says of the GPU that is measured beside its energy: heat, throttling, other processes on it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from irene_build.errors import HardwareError
from irene_runtime.gpu import find_gpu

#: Clock event reasons that are a fault: hardware slowdown, thermal (software, hardware), power brake.
THROTTLE_MASK = 0x8 | 0x20 | 0x40 | 0x80


class GpuWatch:
    """One GPU, as ``irene_runtime.gpu.find_gpu`` takes it. What the driver does not tell is ``None`` or not seen.

    ``missing``: why nothing is known of it at all; empty where something is.
    """

    def __init__(self, which: str) -> None:
        import pynvml

        self._nvml: Any = pynvml
        self._handle: Any = None
        self._throttles = 0
        self.missing = ""
        try:
            pynvml.nvmlInit()
            self._handle = find_gpu(pynvml, which)
        except (HardwareError, pynvml.NVMLError) as error:
            self.missing = str(error)

    def close(self) -> None:
        self._handle = None
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def look(self) -> int:
        """Looks whether it throttles now; how often that was seen so far.

        The driver tells only the present, so whoever wants to know about a stretch of time looks often.
        """
        with suppress(self._nvml.NVMLError):
            if self._handle is not None:
                reasons = int(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle))
                self._throttles += int(bool(reasons & THROTTLE_MASK))
        return self._throttles

    def temperature_c(self) -> float | None:
        with suppress(self._nvml.NVMLError):
            if self._handle is not None:
                sensor = self._nvml.NVML_TEMPERATURE_GPU
                return float(self._nvml.nvmlDeviceGetTemperature(self._handle, sensor))
        return None

    def seen_us(self) -> int:
        """The driver's time stamp of its newest sample of a process; 0 where it has none."""
        return max((int(sample.timeStamp) for sample in self._samples(0)), default=0)

    def others_share(self, since_us: int) -> float | None:
        """Share of the GPU's processors that other processes used since a time stamp of ``seen_us``.

        None where it cannot be known: no such samples (MIG, some virtual GPUs), or process ids of another
        namespace, in which this process cannot find itself.
        """
        if self._handle is None:
            return None
        samples = self._samples(since_us)
        try:
            listed = {int(p.pid) for p in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)}
        except self._nvml.NVMLError:
            return None
        if os.getpid() not in listed:
            return None
        shares: dict[int, list[int]] = {}
        for sample in samples:
            if int(sample.pid) not in (0, os.getpid()) and int(sample.timeStamp) > since_us:
                shares.setdefault(int(sample.pid), []).append(int(sample.smUtil))
        return sum(sum(own) / len(own) for own in shares.values()) / 100.0

    def _samples(self, since_us: int) -> list[Any]:
        if self._handle is None:
            return []
        try:
            found = self._nvml.nvmlDeviceGetProcessUtilization(self._handle, since_us)
        except self._nvml.NVMLError:  # that there is none is an error, too
            return []
        return list(found)
