"""What sampling costs: CPU time of one core, on and off, at the paper's period and at 10 ms.

    python benchmarks/bench_sampler.py [--seconds 30] [--rounds 3] [--json]

``thread``: CPU time of an otherwise idle process with the thread on, less the same with it off.
``timer``, ``uptime``, ``stat``: a C program (where a compiler is here) that wakes up as often and does nothing,
reads /proc/uptime, or reads /proc/stat: what this kernel charges for it, below which no sampler can get.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_FLOOR = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **given) {
    double period_s = atof(given[1]);
    int file = count > 3 ? open(given[3], O_RDONLY) : -1;
    long ticks = atof(given[2]) / period_s;
    struct timespec due, spent;
    char text[256];
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (long i = 0; i < ticks; i++) {
        if (file >= 0 && pread(file, text, sizeof text, 0) < 0) return 1;
        due.tv_nsec += period_s * 1e9;
        if (due.tv_nsec >= 1000000000) { due.tv_nsec -= 1000000000; due.tv_sec++; }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, 0);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    printf("%.9f\n", spent.tv_sec + 1e-9 * spent.tv_nsec);
}
"""
_FILES = {"timer": (), "uptime": ("/proc/uptime",), "stat": ("/proc/stat",)}
_THREAD = (
    "import sys,time\n"
    "from irene_runtime.sampler import Sampler\n"
    "on=sys.argv[3]=='1'; s=Sampler(float(sys.argv[1]))\n"
    "s.open()\n"
    "if on: s.start()\n"
    "c=time.process_time(); time.sleep(float(sys.argv[2])); print(time.process_time()-c)\n"
    "s.stop()\n"
)


def _seconds(*command: object) -> float:
    """What a program prints: the CPU time that it took."""
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return float(done.stdout)


def compile_floor(folder: Path) -> Path | None:
    """The program, or nothing where there is no C compiler."""
    source, program = folder / "floor.c", folder / "floor"
    source.write_text(_FLOOR)
    try:
        subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return program


def measure(period_s: float, seconds: float, rounds: int, floor: Path | None) -> dict[str, float]:
    """Medians over ``rounds``; the figures of a round are taken one after the other."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        row = {"one_sample_us": _call_us()}
        on, off = (_seconds(sys.executable, "-c", _THREAD, period_s, seconds, flag) for flag in (1, 0))
        row["thread_percent"] = 100.0 * (on - off) / seconds
        for name, file in _FILES.items() if floor else ():
            row[f"{name}_percent"] = 100.0 * _seconds(floor, period_s, seconds, *file) / seconds
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {"period_ms": 1e3 * period_s} | {name: statistics.median(values) for name, values in found.items()}


def _call_us(repeats: int = 2000) -> float:
    from irene_runtime.sampler import Sampler

    sampler = Sampler().open()
    start = time.process_time()
    for _ in range(repeats):
        sampler.sample()
    spent = time.process_time() - start
    sampler.close()
    return 1e6 * spent / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; the median is printed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        floor = compile_floor(Path(folder))
        rows = [measure(period, options.seconds, options.rounds, floor) for period in (0.170, 0.010)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row, budget in zip(rows, (0.1, 0.5), strict=True):
        print(
            f"every {row['period_ms']:3.0f} ms: thread {row['thread_percent']:.3f} % of a core (budget {budget} %); "
            f"one sample {row['one_sample_us']:.0f} us"
        )
        if floor:
            print(
                f"              floor in C: timer alone {row['timer_percent']:.3f} %, with one read of "
                f"/proc/uptime {row['uptime_percent']:.3f} %, of /proc/stat {row['stat_percent']:.3f} %"
            )


if __name__ == "__main__":
    main()
