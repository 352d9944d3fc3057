"""What may spoil a trial: throttling, somebody else's load, heat, a suspended machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Reasons that a last attempt may be accepted with, because waiting longer need not help.
SOFT = ("foreign load", "standby gate")
#: NVML clock event reasons that are a fault: hardware slowdown, thermal (software, hardware), power brake.
THROTTLE_MASK = 0x8 | 0x20 | 0x40 | 0x80
_SUSPENDED_NS = 50_000_000
_WALL_JUMP_S = 0.5


@dataclass(frozen=True)
class Snapshot:
    """The counters that are compared over a window."""

    host_ns: int
    asleep_ns: int
    wall_minus_host_s: float
    own_cpu_s: float
    busy_s: float | None
    throttled: int


class Conditions:
    """Looks at the machine.

    ``sample`` takes a resource sample, whose CPU ticks are compared; ``gpu``: NVML index; ``root``: sysfs.
    """

    def __init__(self, sample: Callable[[], Any], gpu: Any = None, root: Path = Path("/sys")) -> None:
        self._sample = sample
        self._tick = os.sysconf("SC_CLK_TCK")
        cpus = root / "devices/system/cpu"
        self._throttle_files = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
        self._heat_files = sorted(root.glob("class/thermal/thermal_zone*/temp"))
        self._nvml: Any = None
        self._handle: Any = None
        if gpu is not None:
            self._open_gpu(gpu)

    def _open_gpu(self, index: int) -> None:
        import pynvml

        try:
            pynvml.nvmlInit()
            self._nvml, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError:
            self._handle = None

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = self._handle = None

    def snapshot(self) -> Snapshot:
        sample = self._sample()
        host = time.monotonic_ns()
        times = os.times()
        busy = sample.cpu_busy_ticks
        return Snapshot(
            host,
            time.clock_gettime_ns(time.CLOCK_BOOTTIME) - host,
            time.time() - host / 1e9,
            times.user + times.system,
            None if busy is None else busy / self._tick,
            sum(map(_number, self._throttle_files)),
        )

    def foreign_cores(self, before: Snapshot, after: Snapshot) -> float | None:
        """Cores that other processes kept busy between two snapshots; None where it cannot be known."""
        seconds = (after.host_ns - before.host_ns) / 1e9
        if before.busy_s is None or after.busy_s is None or seconds <= 0.0:
            return None
        # Both counters move in ticks: what two ticks could feign is not held against anybody.
        own = after.own_cpu_s - before.own_cpu_s
        return max(0.0, after.busy_s - before.busy_s - own - 2.0 / self._tick) / seconds

    def reasons(self, before: Snapshot, after: Snapshot, foreign_cores: float) -> list[str]:
        """Why a window between two snapshots is not to be trusted; empty if it is."""
        found = []
        if after.asleep_ns - before.asleep_ns > _SUSPENDED_NS:
            found.append("suspended")
        if after.throttled > before.throttled or self._gpu_throttled():
            found.append("throttled")
        if (self.foreign_cores(before, after) or 0.0) > foreign_cores:
            found.append("foreign load")
        return found

    @staticmethod
    def wall_jump_s(before: Snapshot, after: Snapshot) -> float | None:
        """By how much the wall clock was set meanwhile, if it was; nothing here depends on it."""
        slept = (after.asleep_ns - before.asleep_ns) / 1e9
        jump = after.wall_minus_host_s - before.wall_minus_host_s - slept
        return jump if abs(jump) > _WALL_JUMP_S else None

    def temperature_c(self) -> float | None:
        """The hottest sensor; None where there is none."""
        found = [value / 1000.0 for value in map(_number, self._heat_files) if value > 0]
        if self._handle is not None:
            n = self._nvml
            with suppress(n.NVMLError):
                found.append(float(n.nvmlDeviceGetTemperature(self._handle, n.NVML_TEMPERATURE_GPU)))
        return max(found, default=None)

    def _gpu_throttled(self) -> bool:
        if self._handle is None:
            return False
        try:
            reasons = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)
        except self._nvml.NVMLError:
            return False
        return bool(int(reasons) & THROTTLE_MASK)


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
