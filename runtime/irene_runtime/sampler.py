"""Resource features while something runs: /proc through open descriptors, and NVML where a driver is.

Campaigns sample with this very code, so that a feature means the same in training and in prediction. What
cannot be read is ``None`` in a sample, absent from a summary, and named with its reason in ``missing``.
"""

import os
import threading
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from .errors import HardwareError
from .gpu import find_gpu, gpu_name
from .proc import CGROUP, container_cpu, cpu_ticks, memory_usage

#: The paper's period (appendix A.3).
PERIOD_S = 0.170
_GPU = ("gpu_util", "gm_usg", "g_clk", "gm_clk", "gpu_energy")
_FILES = {"cpu_util": "stat", "mem_usg": "meminfo"}
#: Watts that a GPU cannot take, where it tells no limit.
_MAX_WATTS = 5000.0
_NO_GPU: Tuple[Any, ...] = (None,) * 6
_Points = List[Tuple[int, float]]


class Sample(NamedTuple):
    """One look at the machine; ``None`` is "not known". Ticks and ``gpu_energy_j`` are running counts.

    ``cpu_util``: busy share since the sample before. ``gpu_power_w``: only where there is no energy counter.
    """

    host_time_ns: int
    cpu_busy_ticks: Optional[int] = None
    cpu_total_ticks: Optional[int] = None
    cpu_util: Optional[float] = None
    mem_usg: Optional[float] = None
    gpu_util: Optional[float] = None
    gm_usg: Optional[float] = None
    g_clk: Optional[float] = None
    gm_clk: Optional[float] = None
    gpu_energy_j: Optional[float] = None
    gpu_power_w: Optional[float] = None


def _jumps(points: _Points, watts: float) -> bool:
    """Whether a counter rises by more than ``watts`` can explain, with a second for late updates."""
    return any(b[1] - a[1] > watts * ((b[0] - a[0]) / 1e9 + 1.0) for a, b in zip(points, points[1:]))


def _at(points: _Points, t_ns: float) -> float:
    """Linear interpolation; outside, the value at the nearer end."""
    low, high = 0, len(points) - 1
    if t_ns <= points[low][0]:
        return points[low][1]
    if t_ns >= points[high][0]:
        return points[high][1]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if points[middle][0] <= t_ns else (low, middle)
    (t0, v0), (t1, v1) = points[low], points[high]
    return v0 + (v1 - v0) * (t_ns - t0) / (t1 - t0)


def _area(points: _Points, start: int, end: int) -> float:
    """Integral of the interpolated values, in value x seconds."""
    path = (
        [(start, _at(points, start))] + [p for p in points if start < p[0] < end] + [(end, _at(points, end))]
    )
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2e9 for a, b in zip(path, path[1:]))


def counted(points: _Points, start: int, end: int) -> Optional[float]:
    """What a stepping counter counted in the window; ``None`` where that cannot be known.

    An unchanged reading is no news: only moments at which the counter moved are used, and what the window has
    after the last of them (at most half) is filled at the mean rate. One that fell is not known.
    """
    moved = points[:1] + [b for a, b in zip(points, points[1:]) if b[1] != a[1]]
    if len(moved) < 2 or any(b[1] < a[1] for a, b in zip(moved, moved[1:])):
        return None
    first, last = max(start, moved[0][0]), min(end, moved[-1][0])
    if end <= start or last - first < (end - start) / 2:
        return None
    return (_at(moved, last) - _at(moved, first)) * (end - start) / (last - first)


def summarise(samples: Iterable[Sample], start_ns: int, end_ns: int) -> Dict[str, float]:
    """Means of the features over a window (monotonic ns), and gpu_energy in J of all of it; known keys only.

    A sample before and after the window sharpens its ends. CPU: difference of tick counts; the others:
    time-weighted mean; gpu_energy: difference of the driver's counter, else the integral of power.
    """
    rows = list(samples)
    result: Dict[str, float] = {}
    if not rows or end_ns <= start_ns or rows[0][0] > end_ns or rows[-1][0] < start_ns:
        return result

    def known(column: str) -> _Points:
        at = Sample._fields.index(column)
        return [(row[0], row[at]) for row in rows if row[at] is not None]  # type: ignore[misc]

    busy, total = known("cpu_busy_ticks"), known("cpu_total_ticks")
    elapsed = _at(total, end_ns) - _at(total, start_ns) if total else 0.0
    if elapsed > 0:
        share = (_at(busy, end_ns) - _at(busy, start_ns)) / elapsed
        result["cpu_util"] = 100.0 * min(1.0, max(0.0, share))
    for name in ("mem_usg", "gpu_util", "gm_usg", "g_clk", "gm_clk"):
        points = known(name)
        if points:
            result[name] = _area(points, start_ns, end_ns) * 1e9 / (end_ns - start_ns)
    counter, power = known("gpu_energy_j"), known("gpu_power_w")
    energy = counted(counter, start_ns, end_ns) if counter else None
    if not counter and power and power[0][0] < end_ns and power[-1][0] > start_ns:
        energy = _area(power, start_ns, end_ns)
    if energy is not None:
        result["gpu_energy"] = energy
    return result


class Sampler:
    """Samples in a background thread, every ``period_s`` seconds, from ``start`` to ``stop``.

    ``gpu``: as in ``find_gpu``; by default the GPU that CUDA's device 0 is. At ``capacity``
    samples, every second one of the older half goes. ``missing``: feature -> why it is not known here.
    ``gpu_energy_source``: ``counter``, ``integrated`` (power) or ``None``. ``cpu_source``: whose share of all
    CPUs ``cpu_util`` is, the ``host``'s or this ``container``'s, which does not count its neighbours.
    """

    def __init__(
        self, period_s: float = PERIOD_S, gpu: Any = None, capacity: int = 8192, proc: str = "/proc", cgroup: str = "",
    ) -> None:  # fmt: skip
        if not 0.001 <= period_s <= 3600.0:
            raise ValueError("period_s: %r is not between 0.001 and 3600 seconds" % (period_s,))
        self.period_s = period_s
        self.missing: Dict[str, str] = {}
        self.gpu_energy_source: Optional[str] = None
        self.gpu_name: Optional[str] = None
        self.cpu_source = "host"
        self._gpu, self._proc, self._capacity = gpu, proc, max(8, capacity)
        self._paths = {name: os.path.join(proc, file) for name, file in _FILES.items()}
        self._own = container_cpu(cgroup or CGROUP) if cgroup or proc == "/proc" else ""
        self._max_watts = _MAX_WATTS
        self._pid = 0
        # Time, /proc/stat, /proc/meminfo, GPU: text is parsed when asked for, which halves a sample's cost.
        self._ring: List[Tuple[Any, ...]] = []
        self._lock = threading.Lock()
        #: Descriptor, device and inode: a program that closes all descriptors may have opened others in their place.
        self._files: Dict[str, Tuple[int, Tuple[int, int]]] = {}
        self._nvml: Any = None
        self._handle: Any = None
        self._reads: Tuple[Tuple[str, Any], ...] = ()
        self._memory_ns = 0
        self._stopping = False
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> "Sampler":  # build tool only
        return self.start()

    def __exit__(self, *exc: object) -> None:  # build tool only
        self.stop()

    def open(self) -> "Sampler":
        """Opens the sources and finds out what is missing."""
        self._memory_ns = 0
        for name, path in self._paths.items():
            if name not in self._files:
                try:
                    self._files[name] = self._opened(path)
                    self.missing.pop(name, None)
                except OSError as error:
                    self.missing[name] = "%s: %s" % (path, error.strerror)
        if self._own and "own" not in self._files:
            try:
                self._files["own"] = self._opened(self._own)
                self.cpu_source = "container"
            except OSError:
                self._own = ""
        if self._nvml is None:
            self._open_gpu()
        return self

    @staticmethod
    def _opened(path: str) -> Tuple[int, Tuple[int, int]]:
        descriptor = os.open(path, os.O_RDONLY)
        found = os.fstat(descriptor)
        return descriptor, (found.st_dev, found.st_ino)

    @staticmethod
    def _closed(descriptor: int, mark: Tuple[int, int]) -> None:
        """Closes what was opened, unless the program did, and has opened something else in its place."""
        try:
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) == mark:
                os.close(descriptor)
        except OSError:
            pass

    def close(self) -> None:
        for descriptor, mark in self._files.values():
            self._closed(descriptor, mark)
        self._files = {}
        if self._nvml is not None:
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                pass
        self._nvml = self._handle = None

    def start(self) -> "Sampler":
        """Takes the first sample at once."""
        if self._thread is None:
            self.open()
            self._stopping, self._pid = False, os.getpid()
            self.take()
            self._thread = threading.Thread(target=self._run, name="irene-sampler", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Takes a last sample; the samples stay, but in a process that was forked since, which has no sampler."""
        if self._thread is not None:
            self._stopping = True
            if self._pid == os.getpid():
                self._thread.join()
            else:
                self._lock, self._ring = threading.Lock(), []
                reason = "the process was forked inside the window, and the sampler stayed with its parent"
                self.missing.update((name, reason) for name in tuple(_FILES) + _GPU)
                self._thread = None
                self.close()
                return
            self._thread = None
            self._memory_ns = 0
            self.take()
            self.close()

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self.period_s, time.monotonic())  # after a suspension, no burst to catch up
            while not self._stopping:
                left = due - time.monotonic()
                if left <= 0:
                    break
                time.sleep(min(left, 0.2))  # half the cost of waiting for an Event
            if self._stopping:
                return
            self.take()

    def sample(self) -> Sample:  # build tool only
        """Reads everything now, keeps it, and returns it."""
        self._memory_ns = 0
        self.take()
        with self._lock:
            rows = self._ring[-2:]
        return self.decode(rows)[-1]

    def take(self) -> Tuple[Any, ...]:
        """``sample`` without parsing."""
        now = time.monotonic_ns()
        stat, memory, gpu = self._pread("cpu_util", 256), None, _NO_GPU
        if self._own and stat:
            own = self._pread("own", 128)
            unit = b"" if self._own.endswith("cpu.stat") else b"usage_nsec "
            stat = None if own is None else stat + b"\n" + unit + own
        if now - self._memory_ns >= 500_000_000:  # memory moves slowly, and costs as much to read as the rest
            self._memory_ns, memory = now, self._pread("mem_usg", 128)
        if self._handle is not None:
            gpu = tuple(self._ask(*read) for read in self._reads)
        row = now, stat, memory, gpu
        with self._lock:
            self._ring.append(row)
            if len(self._ring) >= self._capacity:
                del self._ring[1 : self._capacity // 2 : 2]
        return row

    def _pread(self, name: str, size: int) -> Optional[bytes]:
        try:
            return os.pread(self._files[name][0], size, 0) if name in self._files else None
        except OSError as error:
            feature = "cpu_util" if name == "own" else name
            self.missing[feature] = "%s: %s" % (self._paths.get(name, self._own), error.strerror)
            return None

    def decode(self, rows: Iterable[Tuple[Any, ...]]) -> List[Sample]:
        """Samples out of what ``take`` returned, in order."""
        result: List[Sample] = []
        last: Tuple[Any, Any] = (0, 0)
        for now, stat, meminfo, gpu in rows:
            busy, total = self._parse("cpu_util", cpu_ticks, stat) or (None, None)
            util = None
            if busy is not None and total is not None:
                if 0 < last[1] < total:
                    util = 100.0 * max(0, busy - last[0]) / (total - last[1])
                last = busy, total
            result.append(Sample(now, busy, total, util, self._parse("mem_usg", memory_usage, meminfo), *gpu))
        return result

    def _parse(self, name: str, parse: Any, text: Optional[bytes]) -> Any:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            self.missing[name] = "%s: %s" % (self._paths[name], error)
            return None

    def samples(self, start_ns: int = 0, end_ns: Optional[int] = None) -> List[Sample]:  # build tool only
        """Kept samples from ``start_ns`` to ``end_ns``, both included, oldest first."""
        with self._lock:
            rows = [row for row in self._ring if end_ns is None or row[0] <= end_ns]
        first = next((i for i, row in enumerate(rows) if row[0] >= start_ns), len(rows))
        # One more, since the utilisation of a sample needs the one before it.
        return [row for row in self.decode(rows[max(0, first - 1) :]) if row[0] >= start_ns]

    def summary(self, start_ns: Optional[int] = None, end_ns: Optional[int] = None) -> Dict[str, float]:
        """``summarise`` of what is kept; without bounds, of all of it."""
        with self._lock:
            ring = self._ring[:]
        rows = self.decode(ring)
        if not rows:
            return {}
        start, end = rows[0][0] if start_ns is None else start_ns, rows[-1][0] if end_ns is None else end_ns
        found = summarise(rows, start, end)
        counter = [(row.host_time_ns, row.gpu_energy_j) for row in rows if row.gpu_energy_j is not None]
        if "gpu_energy" in found and (
            _jumps(counter, self._max_watts)
            or any((row.gpu_power_w or 0.0) > self._max_watts for row in rows)
        ):
            del found["gpu_energy"]
            self.missing["gpu_energy"] = "the driver told of more than %.0f W" % self._max_watts
        return found

    def _open_gpu(self) -> None:
        try:
            import pynvml
        except ImportError:
            self._no_gpu("pynvml is not installed (pip install nvidia-ml-py)")
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self._no_gpu("no NVIDIA driver answers: %s" % error)
            return
        self._nvml = pynvml
        try:
            self._handle = find_gpu(pynvml, self._gpu)
            self.gpu_name = gpu_name(pynvml, self._handle)
        except (HardwareError, pynvml.NVMLError) as error:
            self._no_gpu(str(error))
            return
        for feature in _GPU:
            self.missing.pop(feature, None)
        try:
            self._max_watts = 2.0 * pynvml.nvmlDeviceGetEnforcedPowerLimit(self._handle) / 1e3 or _MAX_WATTS
        except pynvml.NVMLError:
            pass
        n, h = pynvml, self._handle

        def usage() -> Any:
            memory = n.nvmlDeviceGetMemoryInfo(h)
            return 100.0 * memory.used / memory.total

        def joules() -> Any:
            return n.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3

        def watts() -> Any:
            return n.nvmlDeviceGetPowerUsage(h) / 1e3

        counter = self._ask("gpu_energy", joules) is not None
        if not counter and self._ask("gpu_energy", watts) is not None:
            self.missing.pop("gpu_energy", None)
            self.gpu_energy_source = "integrated"
        elif counter:
            self.gpu_energy_source = "counter"
        self._reads = (
            ("gpu_util", lambda: float(n.nvmlDeviceGetUtilizationRates(h).gpu)),
            ("gm_usg", usage),
            ("g_clk", lambda: float(n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM))),
            ("gm_clk", lambda: float(n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM))),
            ("gpu_energy", joules if self.gpu_energy_source == "counter" else None),
            ("gpu_energy", watts if self.gpu_energy_source == "integrated" else None),
        )

    def _no_gpu(self, reason: str) -> None:
        self._handle = None
        self.missing.update((name, reason) for name in _GPU)

    def _ask(self, feature: str, read: Any) -> Optional[float]:
        if read is None or self._handle is None:
            return None
        try:
            return read()  # type: ignore[no-any-return]
        except (self._nvml.NVMLError, ZeroDivisionError) as error:
            if getattr(error, "value", None) == self._nvml.NVML_ERROR_GPU_IS_LOST:
                self._no_gpu("the GPU was lost: %s" % error)
            else:
                self.missing[feature] = "NVML: %s" % error
            return None
