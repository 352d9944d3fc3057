"""The program that ``SamplerProcess`` runs: the runtime's sampler alone in a process of its own.

``python -I -S sampler_child.py RUNTIME_FOLDER BINDINGS_FOLDER PERIOD_S GPU``, the second and the last may be
empty. Writes marshalled lists of unparsed samples, at the end a dictionary of what is missing and of its own
cost. Ends when its stdin ends, which is when whoever started it is gone.
"""

import marshal
import os
import select
import sys
import time
from typing import Any

_BATCH_S = 0.5


def _write(data: Any) -> None:
    data = marshal.dumps(data)
    while data:
        data = data[os.write(1, data) :]


def main(runtime: str, bindings: str, period_s: float, gpu: str) -> None:
    # Only these two folders: a process that imports nothing else starts at once and stays small.
    sys.path[:0] = [folder for folder in (runtime, bindings) if folder]
    import sampler  # type: ignore[import-not-found]

    source = sampler.Sampler(period_s, gpu or None, capacity=64).open()
    batch: list[Any] = []
    due = sent = time.monotonic()
    cpu = time.process_time()
    while True:
        batch.append(source.take())
        now = time.monotonic()
        if now - sent >= _BATCH_S:
            _write(batch)
            batch, sent = [], now
            if select.select([0], [], [], 0)[0] and not os.read(0, 64):
                break
        due = max(due + period_s, now)
        time.sleep(due - now)
    batch.append(source.take())
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
