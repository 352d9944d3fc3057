"""Prints how well runs of servers that were left out are said.

python benchmarks/bench_serving.py RUNS.csv HARDWARE     # an estimator of HARDWARE ships or was trained
"""

from __future__ import annotations

import sys
from pathlib import Path

from irene_build.dataset import serving
from irene_build.engines import build, estimator, evaluation


def main() -> None:
    """Models left out, by group, and the baselines fitted in the same folds."""
    runs, hardware = serving.read(Path(sys.argv[1])), sys.argv[2]
    data = build.found(hardware)
    if data is None:
        raise SystemExit(f"no estimator of kernels for {hardware}")
    found = evaluation.leave_models_out(estimator.Server(data), runs, None)
    for name in ("energy_per_token_j", "itl_s"):
        print(f"{name:24s} all {found[name]}")
        for group, errors in found["groups"].items():
            print(f"{'':24s} {group} {errors[name]}")
    for name, errors in found["baselines"].items():
        print(f"{name:24s} {errors}")


if __name__ == "__main__":
    main()
