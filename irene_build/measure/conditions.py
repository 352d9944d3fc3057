"""What may spoil a trial: throttling, somebody else's load, heat, a suspended machine."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irene_build.measure.gpu import GpuWatch

#: Reasons that a last attempt may be accepted with, because waiting longer need not help.
SOFT = ("foreign load", "standby gate", "slower than its warm-up")
#: The machine slept where its clocks moved apart by more than this.
SUSPENDED_NS = 50_000_000
#: Pages that had to come from a disk in a window: more is no accident.
SWAPPED_PAGES = 64
_WALL_JUMP_S = 0.5
_WATCH_S = 0.1
_CLOCKS_TOGETHER_NS = 10_000_000
#: Drivers whose hwmon sensors sit on the processor; boards report phantom sensors beside them.
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


def clocks() -> tuple[int, int]:
    """``(asleep_ns, wall_ns)``: boot time and wall time less the monotonic time, which rests in suspension."""
    while True:
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        host, wall = time.monotonic_ns(), time.time_ns()
        # What was stopped or slept between two looks would take that for a step of one of the clocks.
        if time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boot < _CLOCKS_TOGETHER_NS:
            return boot - host, wall - host


def boot_id() -> str:
    """Tells whether two sessions share a monotonic clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


class ClockWatch:
    """Tells, whenever it is asked, whether the machine slept or its wall clock was set meanwhile."""

    def __init__(self) -> None:
        self._asleep_ns, self._wall_ns = clocks()

    def news(self) -> list[tuple[str, dict[str, float]]]:
        """(kind, detail) of events: ``suspended`` for_s, ``wall clock set`` by_s."""
        asleep, wall = clocks()
        slept, jump = asleep - self._asleep_ns, wall - self._wall_ns - (asleep - self._asleep_ns)
        self._asleep_ns, self._wall_ns = asleep, wall
        found = []
        if slept > SUSPENDED_NS:
            found.append(("suspended", {"for_s": slept / 1e9}))
        if abs(jump) / 1e9 > _WALL_JUMP_S:
            found.append(("wall clock set", {"by_s": jump / 1e9}))
        return found


@dataclass(frozen=True)
class Snapshot:
    """The counters that are compared over a window."""

    host_ns: int
    asleep_ns: int
    own_cpu_s: float
    busy_s: float | None
    throttled: int
    gpu_seen_us: int
    swapped: int


class Conditions:
    """Looks at the machine.

    ``sample`` takes a resource sample, whose CPU ticks are compared; ``gpu``: what ``irene_runtime.gpu.find_gpu``
    takes, None where no GPU is watched; ``root``: sysfs.
    """

    def __init__(self, sample: Callable[[], Any], gpu: str | None = None, root: Path = Path("/sys")) -> None:
        self._sample = sample
        self._tick = os.sysconf("SC_CLK_TCK")
        cpus = root / "devices/system/cpu"
        self._throttle_files = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
        self._heat_files = sorted(root.glob("class/thermal/thermal_zone*/temp")) + _cpu_sensors(root)
        self._gpu = None if gpu is None else GpuWatch(gpu)
        self._watched_at = 0.0

    @property
    def unwatched(self) -> str:
        """Why the GPU that should be watched is not; empty where it is, or where there is none to watch."""
        return "" if self._gpu is None else self._gpu.missing

    def close(self) -> None:
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None

    def watch(self) -> None:
        """To be called several times a window: what is only told for the moment is looked at."""
        # A question to the driver is not free, and what lasts shorter hardly matters.
        if self._gpu is not None and time.monotonic() - self._watched_at >= _WATCH_S:
            self._watched_at = time.monotonic()
            self._gpu.look()

    def snapshot(self) -> Snapshot:
        sample = self._sample()
        times = os.times()
        busy = sample.cpu_busy_ticks
        gpu = self._gpu
        return Snapshot(
            time.monotonic_ns(),
            clocks()[0],
            times.user + times.system,
            None if busy is None else busy / self._tick,
            sum(map(_number, self._throttle_files)) + (gpu.look() if gpu else 0),
            gpu.seen_us() if gpu else 0,
            resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
        )

    def foreign_cores(self, before: Snapshot, after: Snapshot) -> float | None:
        """Cores that other processes kept busy between two snapshots; None where it cannot be known."""
        seconds = (after.host_ns - before.host_ns) / 1e9
        if before.busy_s is None or after.busy_s is None or seconds <= 0.0:
            return None
        # Both counters move in ticks: what two ticks could feign is not held against anybody.
        own = after.own_cpu_s - before.own_cpu_s
        return max(0.0, after.busy_s - before.busy_s - own - 2.0 / self._tick) / seconds

    def reasons(
        self, before: Snapshot, after: Snapshot, foreign_cores: float, foreign_gpu: float = 1.0
    ) -> tuple[list[str], float | None]:
        """Why a window between two snapshots is not to be trusted (empty if it is), and what others used in it.

        ``foreign_cores`` and ``foreign_gpu`` (a share of it) are what others may use. What they used is cores and
        share of the GPU together; None where it cannot be known.
        """
        found = []
        if after.asleep_ns - before.asleep_ns > SUSPENDED_NS:
            found.append("suspended")
        if after.throttled > before.throttled:
            found.append("throttled")
        if after.swapped - before.swapped > SWAPPED_PAGES:
            found.append("swapped")
        cores = self.foreign_cores(before, after)
        gpu = None if self._gpu is None else self._gpu.others_share(before.gpu_seen_us)
        if (cores or 0.0) > foreign_cores or (gpu or 0.0) > foreign_gpu:
            found.append("foreign load")
        return found, cores if gpu is None else (cores or 0.0) + gpu

    def temperature_c(self) -> float | None:
        """The hottest sensor; None where there is none."""
        found = [value / 1000.0 for value in map(_number, self._heat_files) if value > 0]
        gpu = None if self._gpu is None else self._gpu.temperature_c()
        return max(found if gpu is None else [*found, gpu], default=None)


def _cpu_sensors(root: Path) -> list[Path]:
    chips = [path.parent for path in root.glob("class/hwmon/hwmon*/name") if _text(path) in _CPU_SENSORS]
    return sorted(file for chip in chips for file in chip.glob("temp*_input"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    try:
        return int(_text(path))
    except ValueError:
        return 0
