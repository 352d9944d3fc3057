"""Resource features while something runs: /proc through open descriptors, and NVML where a driver is.

Ships inside every exported estimator and is what campaigns sample with, so that a feature means the
same in training and in prediction. Nothing is ever a silent zero: what cannot be read is ``None`` in
a sample, absent from a summary, and named with its reason in ``Sampler.missing``.
"""

import os
import sys
import threading
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

#: The paper's period (appendix A.3).
PERIOD_S = 0.170
_GAUGES = ("mem_usg", "gpu_util", "gm_usg", "g_clk", "gm_clk")
_GPU = ("gpu_util", "gm_usg", "g_clk", "gm_clk", "gpu_energy")
# Memory moves slowly, and its file costs as much to read as all the rest.
_MEMORY_PERIOD_NS = 100_000_000
_NO_GPU = (None,) * 6


class Sample(NamedTuple):
    """One look at the machine; ``None`` is "not known". The CPU and the energy are running counts.

    ``cpu_util``: busy share since the sample before, %. ``gpu_energy_j``: the driver's counter since
    it was loaded. ``gpu_power_w``: instant board power, read only where there is no such counter.
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


#: What the thread keeps: time, /proc/stat, /proc/meminfo, GPU. Text is parsed when it is asked for, which
#: halves the cost of a sample taken with cold caches.
_Raw = Tuple[int, Optional[bytes], Optional[bytes], Tuple[Optional[float], ...]]


def cpu_ticks(stat: bytes) -> Tuple[int, int]:
    """``(busy, total)`` of the first line of /proc/stat, in ticks.

    busy = user + nice + system + irq + softirq; total = busy + idle + iowait + steal. Guest time is in
    user already; stolen time ran somebody else's work. ValueError where the line is not one.
    """
    field = stat.split(b"\n", 1)[0].split()
    if len(field) < 5 or field[0] != b"cpu":
        raise ValueError("no `cpu` line")
    user, nice, system, idle, iowait, irq, softirq, steal = ([int(x) for x in field[1:9]] + [0] * 4)[:8]
    busy = user + nice + system + irq + softirq
    return busy, busy + idle + iowait + steal


def memory_usage(meminfo: bytes) -> float:
    """Share of memory that is not available, %, from the first lines of /proc/meminfo."""
    size = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(b":")
        if name in (b"MemTotal", b"MemAvailable", b"MemFree") and rest.endswith(b" kB"):
            size[name] = int(rest.split()[0])
    free = size.get(b"MemAvailable", size.get(b"MemFree"))
    if free is None or not size.get(b"MemTotal"):
        raise ValueError("no MemTotal or MemAvailable")
    return 100.0 * (1.0 - free / size[b"MemTotal"])


def _at(points: List[Tuple[int, float]], t_ns: float) -> float:
    """Linear interpolation; the value at the nearer end outside."""
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


def _area(points: List[Tuple[int, float]], start: int, end: int) -> float:
    """Integral of the interpolated values from ``start`` to ``end`` (ns), in value x seconds."""
    inner = [p for p in points if start < p[0] < end]
    path = [(start, _at(points, start))] + inner + [(end, _at(points, end))]
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2e9 for a, b in zip(path, path[1:]))


def counted(points: List[Tuple[int, float]], start: int, end: int) -> Optional[float]:
    """What a stepping counter counted in the window; ``None`` where that cannot be known.

    An unchanged reading is no news, so only the moments at which the counter moved are used, and the part
    of the window after the last of them (at most half) is filled at the mean rate before it. A counter
    that goes backwards (a driver reload) is not known.
    """
    moved = points[:1] + [b for a, b in zip(points, points[1:]) if b[1] != a[1]]
    if len(moved) < 2 or any(b[1] < a[1] for a, b in zip(moved, moved[1:])):
        return None
    first, last = max(start, moved[0][0]), min(end, moved[-1][0])
    if end <= start or last - first < (end - start) / 2:
        return None
    return (_at(moved, last) - _at(moved, first)) * (end - start) / (last - first)


def summarise(samples: Iterable[Sample], start_ns: int, end_ns: int) -> Dict[str, float]:
    """Means of the features from ``start_ns`` to ``end_ns`` (monotonic ns); gpu_energy: J of the window.

    Keys of what is not known are absent. A few samples before and after the window sharpen its ends.
    CPU: difference of the tick counts; the others: time-weighted mean; gpu_energy: difference of the
    driver's counter, else the integral of instant power.
    """
    rows = list(samples)
    result: Dict[str, float] = {}
    if not rows or end_ns <= start_ns or rows[0].host_time_ns > end_ns or rows[-1].host_time_ns < start_ns:
        return result

    def known(column: str) -> List[Tuple[int, float]]:
        at = Sample._fields.index(column)
        return [(row[0], row[at]) for row in rows if row[at] is not None]  # type: ignore[misc]

    busy, total = known("cpu_busy_ticks"), known("cpu_total_ticks")
    if len(total) > 1:
        elapsed = _at(total, end_ns) - _at(total, start_ns)
        if elapsed > 0:
            share = (_at(busy, end_ns) - _at(busy, start_ns)) / elapsed
            result["cpu_util"] = 100.0 * min(1.0, max(0.0, share))
    for name in _GAUGES:
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

    ``gpu``: NVML index or UUID; by default the first of CUDA_VISIBLE_DEVICES, else 0. ``capacity`` bounds
    the memory: when it is reached, every second sample of the older half goes. ``missing``: name of a
    feature -> why it is not known here. ``gpu_energy_source``: ``counter``, ``integrated`` or ``None``.
    """

    def __init__(
        self, period_s: float = PERIOD_S, gpu: Any = None, capacity: int = 8192, proc: str = "/proc"
    ) -> None:
        if not 0.001 <= period_s <= 3600.0:
            raise ValueError("period_s: %r is not between 0.001 and 3600 seconds" % (period_s,))
        self.period_s = period_s
        self.missing: Dict[str, str] = {}
        self.gpu_energy_source: Optional[str] = None
        self.gpu_name: Optional[str] = None
        self._gpu, self._proc, self._capacity = gpu, proc, max(8, capacity)
        self._ring: List[_Raw] = []
        self._lock = threading.Lock()
        self._files: Dict[str, int] = {}
        self._nvml: Any = None
        self._handle: Any = None
        self._memory: Tuple[int, Optional[bytes]] = (-_MEMORY_PERIOD_NS, None)
        self._stopping = False
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> "Sampler":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def open(self) -> "Sampler":
        """Opens the sources and finds out what is missing; samples nothing."""
        for name, file in (("cpu_util", "stat"), ("mem_usg", "meminfo")):
            if name in self._files:
                continue
            try:
                self._files[name] = os.open(os.path.join(self._proc, file), os.O_RDONLY)
                self.missing.pop(name, None)
            except OSError as error:
                self.missing[name] = "%s/%s: %s (%s)" % (self._proc, file, error.strerror, sys.platform)
        if self._nvml is None:
            self._open_gpu()
        return self

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}
        if self._nvml is not None:
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                pass
        self._nvml = self._handle = None

    def start(self) -> "Sampler":
        """Takes the first sample at once. A sampler can be started again; it goes on where it was."""
        if self._thread is None:
            self.open()
            self._stopping = False
            self.sample()
            self._thread = threading.Thread(target=self._run, name="irene-sampler", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Takes a last sample and lets go of the sources; the samples stay."""
        if self._thread is not None:
            self._stopping = True
            self._thread.join()
            self._thread = None
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

    def sample(self) -> Sample:
        """Reads everything now, keeps it, and returns it."""
        self.take()
        with self._lock:
            rows = self._ring[-2:]
        return self.decode(rows)[-1]

    def take(self) -> _Raw:
        """``sample`` without parsing: cheap enough for any period."""
        now = time.monotonic_ns()
        stat = self._pread("cpu_util", 256)
        memory = self._memory
        if now - memory[0] >= _MEMORY_PERIOD_NS:
            memory = self._memory = now, self._pread("mem_usg", 128)
        gpu = self._sample_gpu() if self._handle is not None else _NO_GPU
        row = now, stat, memory[1], gpu
        with self._lock:
            self._ring.append(row)
            if len(self._ring) >= self._capacity:
                del self._ring[1 : self._capacity // 2 : 2]
        return row

    def _pread(self, name: str, size: int) -> Optional[bytes]:
        try:
            return os.pread(self._files[name], size, 0) if name in self._files else None
        except OSError as error:
            self.missing[name] = "%s: %s" % (self._proc, error.strerror)
            return None

    def decode(self, rows: List[_Raw]) -> List[Sample]:
        """Samples out of what ``take`` returned."""
        result: List[Sample] = []
        last_busy = last_total = 0
        for now, stat, meminfo, gpu in rows:
            busy = total = util = memory = None
            try:
                if stat is not None:
                    busy, total = cpu_ticks(stat)
                    if 0 < last_total < total:
                        util = 100.0 * max(0, busy - last_busy) / (total - last_total)
                    last_busy, last_total = busy, total
            except ValueError as error:
                self.missing["cpu_util"] = "%s/stat: %s" % (self._proc, error)
            try:
                memory = memory_usage(meminfo) if meminfo is not None else None
            except ValueError as error:
                self.missing["mem_usg"] = "%s/meminfo: %s" % (self._proc, error)
            result.append(Sample(now, busy, total, util, memory, *gpu))
        return result

    def samples(self, start_ns: int = 0, end_ns: Optional[int] = None) -> List[Sample]:
        """Kept samples from ``start_ns`` to ``end_ns``, both included, oldest first."""
        with self._lock:
            rows = [row for row in self._ring if end_ns is None or row[0] <= end_ns]
        first = next((i for i, row in enumerate(rows) if row[0] >= start_ns), len(rows))
        # One more, since the utilisation of a sample needs the one before it.
        return [row for row in self.decode(rows[max(0, first - 1) :]) if row.host_time_ns >= start_ns]

    def summary(self, start_ns: Optional[int] = None, end_ns: Optional[int] = None) -> Dict[str, float]:
        """``summarise`` of what is kept; without bounds, of all of it."""
        rows = self.samples()
        if not rows:
            return {}
        start = rows[0].host_time_ns if start_ns is None else start_ns
        return summarise(rows, start, rows[-1].host_time_ns if end_ns is None else end_ns)

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
        which = self._gpu
        if which is None:
            which = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
        try:
            if str(which).lstrip("-").isdigit():
                self._handle = pynvml.nvmlDeviceGetHandleByIndex(int(which))
            else:
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(str(which))
            name = pynvml.nvmlDeviceGetName(self._handle)
            self.gpu_name = name.decode() if isinstance(name, bytes) else name
        except pynvml.NVMLError as error:
            self._handle = None
            self._no_gpu("GPU %s: %s" % (which, error))
            return
        for feature in _GPU:
            self.missing.pop(feature, None)
        self.gpu_energy_source = "counter"

    def _no_gpu(self, reason: str) -> None:
        self.gpu_energy_source = None
        self.missing.update((name, reason) for name in _GPU)

    def _sample_gpu(self) -> Tuple[Optional[float], ...]:
        n, h = self._nvml, self._handle

        def ask(feature: str, read: Any, *arguments: Any) -> Any:
            if self._handle is None:
                return None
            try:
                return read(h, *arguments)
            except n.NVMLError as error:
                if error.value == n.NVML_ERROR_GPU_IS_LOST:
                    self._handle = None
                    self._no_gpu("the GPU was lost: %s" % error)
                else:
                    self.missing[feature] = "NVML: %s" % error
                return None

        util = ask("gpu_util", n.nvmlDeviceGetUtilizationRates)
        memory = ask("gm_usg", n.nvmlDeviceGetMemoryInfo)
        clock = ask("g_clk", n.nvmlDeviceGetClockInfo, n.NVML_CLOCK_SM)
        memory_clock = ask("gm_clk", n.nvmlDeviceGetClockInfo, n.NVML_CLOCK_MEM)
        energy = power = None
        if self.gpu_energy_source == "counter":
            energy = ask("gpu_energy", n.nvmlDeviceGetTotalEnergyConsumption)
            if energy is None and self._handle is not None:
                self.gpu_energy_source = "integrated"
        if self.gpu_energy_source == "integrated":
            power = ask("gpu_energy", n.nvmlDeviceGetPowerUsage)
            if power is not None:
                self.missing.pop("gpu_energy", None)
        return (
            None if util is None else float(util.gpu),
            None if memory is None or not memory.total else 100.0 * memory.used / memory.total,
            None if clock is None else float(clock),
            None if memory_clock is None else float(memory_clock),
            None if energy is None else energy / 1e3,
            None if power is None else power / 1e3,
        )
