"""What sampling costs: CPU time of one core and memory, on and off, at the paper's period and at 10 ms.

    python benchmarks/bench_sampler.py [--seconds 10] [--rounds 3] [--json]

``own process``: CPU time of the sampler's process, and its resident memory (budget: 15 MB).
``thread``: CPU time of an otherwise idle process with the thread on, less the same with it off.
``bare sleep``: a process that wakes up as often and does nothing: what this kernel charges for a timer alone.
``floor``: bare sleep and one read of /proc/stat at each wake: below it no sampler of that file can get.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from irene_build.meters.sampler_process import SamplerProcess

_SLEEP = (
    "import sys,time;p=float(sys.argv[1]);n=int(float(sys.argv[2])/p);s=time.sleep;c=time.process_time();"
    "[s(p) for _ in range(n)];print(time.process_time()-c)"
)
_FLOOR = (
    "import os,sys,time;p=float(sys.argv[1]);n=int(float(sys.argv[2])/p);s=time.sleep;r=os.pread;"
    "f=os.open('/proc/stat',0);c=time.process_time();"
    "[(s(p),r(f,256,0)) and None for _ in range(n)];print(time.process_time()-c)"
)
_THREAD = (
    "import sys,time\n"
    "from irene_runtime.sampler import Sampler\n"
    "on=sys.argv[3]=='1'; s=Sampler(float(sys.argv[1]))\n"
    "s.open()\n"
    "if on: s.start()\n"
    "c=time.process_time(); time.sleep(float(sys.argv[2])); print(time.process_time()-c)\n"
    "s.stop()\n"
)


def _child(code: str, *arguments: object) -> float:
    output = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout
    return float(output)


def measure(period_s: float, seconds: float, rounds: int) -> dict[str, float]:
    own, resident, thread, bare, floor, called = [], [], [], [], [], []
    for _ in range(rounds):
        with SamplerProcess(period_s) as process:
            time.sleep(seconds)
        own.append(100.0 * (process.cost["cpu_share"] or 0.0))
        resident.append(process.cost["resident_mib"] or 0.0)
        on, off = _child(_THREAD, period_s, seconds, 1), _child(_THREAD, period_s, seconds, 0)
        thread.append(100.0 * (on - off) / seconds)
        bare.append(100.0 * _child(_SLEEP, period_s, seconds) / seconds)
        floor.append(100.0 * _child(_FLOOR, period_s, seconds) / seconds)
        called.append(_call_us())
    return {
        "period_ms": 1e3 * period_s,
        "own_process_percent": statistics.median(own),
        "own_process_mib": max(resident),
        "thread_percent": statistics.median(thread),
        "bare_sleep_percent": statistics.median(bare),
        "floor_percent": statistics.median(floor),
        "one_sample_us": statistics.median(called),
    }


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
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; the median is printed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(period, options.seconds, options.rounds) for period in (0.170, 0.010)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row, budget in zip(rows, (0.1, 0.5), strict=True):
        print(
            f"every {row['period_ms']:3.0f} ms: own process {row['own_process_percent']:.3f} % of a core "
            f"(budget {budget} %), {row['own_process_mib']:.1f} MiB (budget 15 MB); thread "
            f"{row['thread_percent']:.3f} %; bare sleep {row['bare_sleep_percent']:.3f} %, "
            f"with one read of /proc/stat {row['floor_percent']:.3f} %; "
            f"one sample {row['one_sample_us']:.0f} us"
        )


if __name__ == "__main__":
    main()
