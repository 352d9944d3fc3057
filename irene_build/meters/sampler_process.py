"""The runtime's sampler in a process of its own, which shares no interpreter lock with the workload."""

from __future__ import annotations

import contextlib
import marshal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import irene_runtime
from irene_build.errors import MeterError
from irene_runtime.sampler import PERIOD_S, Sample, Sampler, summarise

_PROGRAM = Path(__file__).resolve().parent / "sampler_child.py"
_BINDINGS = _PROGRAM.parent / "nvml_small"
_CAPACITY = 65_536


class SamplerProcess:
    """Like ``irene_runtime.sampler.Sampler``: ``start``, ``stop``, ``samples``, ``summary``, ``missing``.

    After ``stop``, ``cost`` holds the child's own ``cpu_share`` of one core and ``resident_mib``. Samples
    come in batches of half a second; ``settle`` waits until those up to a moment have arrived.
    """

    def __init__(self, period_s: float = PERIOD_S, gpu: Any = None) -> None:
        if period_s > 1.0:
            raise ValueError(f"period_s: {period_s!r} is too long to stop a process by; at most 1 second")
        self.period_s = period_s
        self.missing: dict[str, str] = {}
        self.gpu_energy_source: str | None = None
        self.gpu_name: str | None = None
        self.cost: dict[str, float | None] = {}
        self._gpu = "" if gpu is None else str(gpu)
        self._rows: list[Any] = []
        self._decoder = Sampler(period_s)
        self._news = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._started = 0.0

    def __enter__(self) -> SamplerProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> SamplerProcess:
        if self._process is not None:
            return self
        # What is missing is found out here as well, so that it is known before the first sample.
        probe = Sampler(self.period_s, self._gpu or None).open()
        self.missing, self.gpu_name = dict(probe.missing), probe.gpu_name
        self.gpu_energy_source = probe.gpu_energy_source
        probe.close()
        folders = [
            str(Path(irene_runtime.__file__).parent),
            str(_BINDINGS) if self.gpu_name else "",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_PROGRAM), *folders, repr(self.period_s), self._gpu],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._listen, name="irene-sampler-process", daemon=True)
        self._thread.start()
        with self._news:
            if not self._news.wait_for(lambda: self._rows or self._process is None, timeout=20.0):
                raise MeterError("the sampler's process sent nothing within 20 s")
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None and self._thread is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._thread.join(timeout=5.0)
        process.stdout.close()
        if process.returncode != 0:
            raise MeterError(f"the sampler's process ended with code {process.returncode}")

    def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        stream = self._process.stdout
        while True:
            try:
                message = marshal.load(stream)
            except (EOFError, ValueError, TypeError):  # it ended, or was killed in the middle of a batch
                return
            with self._news:
                if isinstance(message, list):
                    self._rows += message
                    if len(self._rows) > _CAPACITY:
                        del self._rows[1 : _CAPACITY // 2 : 2]
                else:
                    self.missing.update(message["missing"])
                    self.gpu_energy_source = message["gpu_energy_source"]
                    elapsed = time.monotonic() - self._started
                    self.cost = {
                        "cpu_share": message["cpu_s"] / elapsed,
                        "resident_mib": message["resident_mib"],
                    }
                self._news.notify_all()

    def settle(self, until_ns: int, timeout_s: float = 5.0) -> bool:
        """Waits for the samples up to ``until_ns``; False where they did not come in time."""
        with self._news:
            return self._news.wait_for(lambda: bool(self._rows) and self._rows[-1][0] >= until_ns, timeout_s)

    def samples(self, start_ns: int = 0, end_ns: int | None = None) -> list[Sample]:
        with self._news:
            rows = [row for row in self._rows if end_ns is None or row[0] <= end_ns]
        return [row for row in self._decoder.decode(rows) if row.host_time_ns >= start_ns]

    def summary(self, start_ns: int | None = None, end_ns: int | None = None) -> dict[str, float]:
        rows = self.samples()
        if not rows:
            return {}
        start = rows[0].host_time_ns if start_ns is None else start_ns
        return summarise(rows, start, rows[-1].host_time_ns if end_ns is None else end_ns)


def sampling_cost(period_s: float = PERIOD_S, seconds: float = 3.0) -> dict[str, float]:
    """What sampling in a thread costs here, by comparison: this process asleep with it off, then on.

    ``on_share`` and ``off_share``: CPU time of the process over time; ``core_share``: their difference, of
    one core. Measured asleep, so that caches are cold, as they are between the samples of a campaign.
    """

    def share() -> float:
        cpu, start = time.process_time(), time.monotonic()
        time.sleep(seconds)
        return (time.process_time() - cpu) / (time.monotonic() - start)

    off = share()
    with Sampler(period_s):
        on = share()
    return {"period_s": period_s, "on_share": on, "off_share": off, "core_share": max(0.0, on - off)}
