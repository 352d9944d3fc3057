"""The tests beside busy loops: whether they pass on a machine that has other work, and how long they take.

    python benchmarks/bench_tests_under_load.py [--loops 2] [tests/measure/test_trial.py ...]

Without paths all tests run, as `make test` runs them. Each loop keeps one core busy from before the first test to after
the last. Prints the tests' own output, their time, and the load; the exit code is that of the tests.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_LOOP = "import os, sys\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(10000))"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loops", type=int, default=2, help="busy loops beside the tests")
    parser.add_argument("--workers", default="2", help="processes that run tests, as `make test`")
    parser.add_argument("where", nargs="*", default=["tests"], help="tests, as pytest takes them")
    options = parser.parse_args()
    loops = [subprocess.Popen([sys.executable, "-I", "-S", "-c", _LOOP]) for _ in range(options.loops)]
    started = time.monotonic()
    try:
        spread = ["-n", options.workers, "--dist", "loadfile"] if options.workers != "0" else []
        command = [sys.executable, "-m", "pytest", "-q", "--timeout", "900", *spread, *options.where]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    seconds = time.monotonic() - started
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"{seconds / 60:.1f} minutes beside {options.loops} busy loops on {os.cpu_count()} cores (load {load}): "
        f"{'all passed' if code == 0 else f'pytest ended with {code}'}"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
