"""The program that ``SamplerProcess`` runs: the runtime's sampler alone in a process of its own.

``python -I -S sampler_child.py RUNTIME_FOLDER BINDINGS_FOLDER PERIOD_S GPU``, the second and the last may be
empty. Writes marshalled lists of unparsed samples, at the end a dictionary of what is missing and of its own
cost. Ends when its stdin ends, which is when whoever started it is gone.

Where there is no GPU, a list is ``[(None, now_ns, text), ..., (now_ns, stat, meminfo)]``: the last one, the
anchor, holds /proc/stat and /proc/meminfo. ``text`` is /proc/stat too, or, at fast periods, /proc/uptime, whose
idle time costs half as much to read because no interrupts are counted up for it.
"""

import gc
import marshal
import os
import select
import sys
import time
from itertools import repeat, starmap
from typing import Any

_BATCH_S = 1.0
_GPU_BATCH_S = 0.5
#: Below this period /proc/uptime is read between the anchors.
_FAST_S = 0.1


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:  # the sampler has said so in `missing`
        return None


def _read(file: int | None, size: int) -> bytes | None:
    return None if file is None else os.pread(file, size, 0)


def _write(data: Any) -> None:
    data = marshal.dumps(data)
    while data:
        data = data[os.write(1, data) :]


def _over() -> bool:
    """Is whoever started this done with it, or gone?"""
    return bool(select.select([0], [], [], 0)[0]) and not os.read(0, 64)


def from_files(period_s: float) -> None:
    """Samples of /proc alone, a batch at a time.

    The interpreter's own iterators wait and read: what a sample costs is mostly cold memory, and
    byte code between two of them is a third more of it.
    """
    stat, meminfo, uptime = _open("/proc/stat"), _open("/proc/meminfo"), _open("/proc/uptime")
    file, size = (uptime, 64) if period_s < _FAST_S and uptime is not None else (stat, 256)
    if file is None:
        raise SystemExit("neither /proc/stat nor /proc/uptime can be read")
    count = max(1, round(_BATCH_S / period_s))
    due, extra_s = time.monotonic(), 0.0
    _write([(time.monotonic_ns(), _read(stat, 256), _read(meminfo, 128))])
    over = False
    while not over:
        due = max(due, time.monotonic() - period_s) + count * period_s  # after a suspension, no catching up
        begin = time.monotonic()
        pause_s = max(0.0, (due - begin) / count - extra_s)
        waits = starmap(time.sleep, repeat((pause_s,), count - 1))
        times = starmap(time.monotonic_ns, repeat(()))
        batch: list[Any] = list(zip(waits, times, starmap(os.pread, repeat((file, size, 0))), strict=False))
        time.sleep(pause_s)
        # What a tick takes beyond its sleep comes off the next batch's sleeps; a process that was held up
        # for long does not make up for it in a burst.
        extra_s = min((time.monotonic() - begin) / count - pause_s, 0.3 * period_s)
        batch.append((time.monotonic_ns(), _read(stat, 256), _read(meminfo, 128)))
        _write(batch)
        over = _over()


def from_sampler(source: Any, period_s: float) -> None:
    """Samples as the runtime takes them, with the GPU's."""
    take, batch = source.take, []
    due = sent = time.monotonic()
    while True:
        batch.append(take())
        now = time.monotonic()
        if now - sent >= _GPU_BATCH_S:
            _write(batch)
            batch, sent = [], now
            if _over():
                break
        due = max(due + period_s, now)
        time.sleep(due - now)
    batch.append(take())
    _write(batch)


def main(runtime: str, bindings: str, period_s: float, gpu: str) -> None:
    # Only these two folders: a process that imports nothing else starts at once and stays small.
    sys.path[:0] = [folder for folder in (runtime, bindings) if folder]
    import sampler  # type: ignore[import-not-found]

    source = sampler.Sampler(period_s, gpu or None, capacity=64).open()
    # Nothing here makes cycles, and a collection would be the most expensive thing that it does.
    gc.disable()
    cpu = time.process_time()
    if source.gpu_name:
        from_sampler(source, period_s)
    else:
        from_files(period_s)
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
