"""Prints errors on kernels of shapes that were left out, beside the nearest kernel and latency x constant power.

python benchmarks/bench_kernels.py AICONFIGURATOR SYSTEM [POWER_FROM]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from irene_build.dataset import aiconfigurator
from irene_build.engines import build, kernel_fit


def main() -> None:
    """Seconds of the import and the fit, then the errors by kind."""
    start = time.monotonic()
    table = aiconfigurator.read(Path(sys.argv[1]), sys.argv[2], "vllm", None)
    print(f"{table.rows} kernels read in {time.monotonic() - start:.1f} s, {table.powered} with power")
    data = build.found(sys.argv[3]) if len(sys.argv) > 3 else None
    power = data["device"]["power"] if data else None
    start = time.monotonic()
    kernel_fit.fit_device(table, power)
    print(f"fitted in {time.monotonic() - start:.1f} s")
    for kind, errors in kernel_fit.leave_shapes_out(table, power, folds=4).items():
        print(kind, errors)


if __name__ == "__main__":
    main()
