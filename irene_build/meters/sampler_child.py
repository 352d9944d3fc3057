"""The program that ``SamplerProcess`` runs: the runtime's sampler alone in a process of its own.

``python -I -S sampler_child.py RUNTIME_FOLDER BINDINGS_FOLDER PERIOD_S GPU``, the second and the last may be
empty. Writes marshalled lists of unparsed samples, at the end a dictionary of what is missing and of its own
cost. Ends when its stdin ends, which is when whoever started it is gone.
"""

import gc
import marshal
import os
import select
import sys
import time
from typing import Any

_BATCH_S = 0.5
_NO_GPU = (None,) * 6


class _Files:
    """``Sampler.take`` where there is no GPU: the same row, which the runtime decodes, for a third less."""

    def __init__(self) -> None:
        self._stat, self._meminfo = _open("/proc/stat"), _open("/proc/meminfo")
        self._memory: tuple[int, bytes | None] = (-1 << 60, None)

    def take(self) -> tuple[Any, ...]:
        now = time.monotonic_ns()
        stat = None if self._stat is None else os.pread(self._stat, 256, 0)
        if now - self._memory[0] >= 100_000_000:
            self._memory = now, None if self._meminfo is None else os.pread(self._meminfo, 128, 0)
        return now, stat, self._memory[1], _NO_GPU


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:  # the sampler has said so in `missing`
        return None


def _write(data: Any) -> None:
    data = marshal.dumps(data)
    while data:
        data = data[os.write(1, data) :]


def main(runtime: str, bindings: str, period_s: float, gpu: str) -> None:
    # Only these two folders: a process that imports nothing else starts at once and stays small.
    sys.path[:0] = [folder for folder in (runtime, bindings) if folder]
    import sampler  # type: ignore[import-not-found]

    source = sampler.Sampler(period_s, gpu or None, capacity=64).open()
    take = source.take if source.gpu_name else _Files().take
    # Nothing here makes cycles, and a collection would be the most expensive thing that it does.
    gc.disable()
    batch: list[Any] = []
    due = sent = time.monotonic()
    cpu = time.process_time()
    while True:
        batch.append(take())
        now = time.monotonic()
        if now - sent >= _BATCH_S:
            _write(batch)
            batch, sent = [], now
            if select.select([0], [], [], 0)[0] and not os.read(0, 64):
                break
        due = max(due + period_s, now)
        time.sleep(due - now)
    batch.append(take())
    _write(batch)
    _write(
        {
            "missing": source.missing,
            "gpu_energy_source": source.gpu_energy_source,
            "cpu_s": time.process_time() - cpu,
            "resident_mib": _resident_mib(),
        }
    )


def _resident_mib() -> float | None:
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
        pages = int(os.read(descriptor, 256).split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
