"""The runtime's sampler in a process of its own, which shares no interpreter lock with the workload."""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import irene_runtime
from irene_build.errors import MeterError
from irene_build.meters.ticks import Anchor, between_anchors, busy_share
from irene_runtime.sampler import PERIOD_S, Sample, Sampler, summarise

_PROGRAM = Path(__file__).resolve().parent / "sampler_child.py"
_SOURCE = _PROGRAM.with_suffix(".c")
_BINDINGS = _PROGRAM.parent / "nvml_small"
#: Below this period the compiled program is worth its compiling; samples of one of its batches.
_FAST_S, _BATCH_S = 0.1, 1.0
_CAPACITY = 65_536
_NO_GPU = (None,) * 6


class SamplerProcess:
    """Like ``irene_runtime.sampler.Sampler``: ``start``, ``stop``, ``samples``, ``summary``, ``missing``.

    After ``stop``, ``cost`` holds the child's own ``cpu_share`` of one core and ``resident_mib``. Samples
    come in batches of a second at most; ``settle`` waits until those up to a moment have arrived. Without a GPU,
    memory is read once a batch, and is ``None`` in the other samples; below a period of 0.1 s so is /proc/stat,
    and the ticks between are shared out by ``between_anchors``. There the process is a C program where it can be
    compiled, which costs a third less; else, and in all other cases, it is this interpreter.
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
        self._samples: list[Sample] = []
        self._decoder = Sampler(period_s)
        self._news = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._started = 0.0
        self._anchor: Anchor | None = None

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
        self._process = subprocess.Popen(self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._listen, name="irene-sampler-process", daemon=True)
        self._thread.start()
        with self._news:
            if not self._news.wait_for(lambda: self._samples or self._process is None, timeout=20.0):
                raise MeterError("the sampler's process sent nothing within 20 s")
        return self

    def _command(self) -> list[str]:
        """The compiled program where it can be had and is needed, else the one in Python."""
        if (
            self.period_s < _FAST_S
            and self.gpu_name is None
            and not set(self.missing) & {"cpu_util", "mem_usg"}
        ):
            program = compiled(_SOURCE)
            if program is not None:
                return [str(program), repr(self.period_s), str(max(1, round(_BATCH_S / self.period_s)))]
        folders = [str(Path(irene_runtime.__file__).parent), str(_BINDINGS) if self.gpu_name else ""]
        return [sys.executable, "-I", "-S", str(_PROGRAM), *folders, repr(self.period_s), self._gpu]

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
                    self._keep(message)
                else:
                    self.missing.update(message.get("missing", {}))
                    self.gpu_energy_source = message.get("gpu_energy_source")
                    elapsed = time.monotonic() - self._started
                    self.cost = {
                        "cpu_share": message["cpu_s"] / elapsed,
                        "resident_mib": message["resident_mib"],
                    }
                self._news.notify_all()

    def _keep(self, batch: list[Any]) -> None:
        if len(batch[-1]) == 4:  # as the runtime's sampler takes them
            found = self._decoder.decode(batch)
        else:
            now_ns, stat, meminfo = batch[-1]
            rows = [(now, text, None, _NO_GPU) for _, now, text in batch[:-1]]
            anchor = (now_ns, stat, meminfo, _NO_GPU)
            if rows and rows[0][1].startswith(b"cpu"):
                found = self._decoder.decode([*rows, anchor])
            else:
                found = self._decoder.decode([anchor])
                idle = [(now, text) for now, text, _, _ in rows]
                last, self._anchor = self._anchor, Anchor(found[0], stat)
                if last is not None:
                    found = between_anchors(last, idle, self._anchor) + found
        for sample in found:
            before = self._samples[-1] if self._samples else None
            self._samples.append(sample._replace(cpu_util=busy_share(before, sample)))
        if len(self._samples) > _CAPACITY:
            del self._samples[1 : _CAPACITY // 2 : 2]

    def settle(self, until_ns: int, timeout_s: float = 5.0) -> bool:
        """Waits for the samples up to ``until_ns``; False where they did not come in time."""
        with self._news:
            return self._news.wait_for(
                lambda: bool(self._samples) and self._samples[-1].host_time_ns >= until_ns, timeout_s
            )

    def samples(self, start_ns: int = 0, end_ns: int | None = None) -> list[Sample]:
        with self._news:
            return [
                row
                for row in self._samples
                if start_ns <= row.host_time_ns and (end_ns is None or row.host_time_ns <= end_ns)
            ]

    def summary(self, start_ns: int | None = None, end_ns: int | None = None) -> dict[str, float]:
        rows = self.samples()
        if not rows:
            return {}
        start = rows[0].host_time_ns if start_ns is None else start_ns
        return summarise(rows, start, rows[-1].host_time_ns if end_ns is None else end_ns)


def cache_dir() -> Path:
    """Where what was compiled is kept: XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irene-build"


def compiled(source: Path) -> Path | None:
    """``source`` as a program in ``cache_dir``, compiled once for each of its versions.

    None without a C compiler, and where the program cannot be kept or does not start: without arguments it ends
    with code 2.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    try:
        text, folder = source.read_bytes(), cache_dir()
        program = folder / f"{source.stem}-{platform.machine()}-{hashlib.sha256(text).hexdigest()[:12]}"
        if not program.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # Moved into place when it is whole: two campaigns may start at once.
            fresh = folder / f"{program.name}.{os.getpid()}"
            subprocess.run(
                [compiler, "-O2", "-o", str(fresh), str(source)], check=True, capture_output=True, timeout=30
            )
            fresh.replace(program)
        if subprocess.run([str(program)], stdin=subprocess.DEVNULL, timeout=5, check=False).returncode != 2:
            return None
    except (OSError, RuntimeError, subprocess.SubprocessError):  # RuntimeError: there is no home
        return None
    return program


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
