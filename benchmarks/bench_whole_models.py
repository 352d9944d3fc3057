"""Imports tables of whole models and evaluates them: static tier, models left out, and models and sizes left out.

    python benchmarks/bench_whole_models.py ../shared/whole-models [--device NAME=DEVICE ...]

For each table ea-*.csv and gw-*.csv of the folder: mean, median and largest error in percent, coverage of the 90 %
interval, rows, failed runs, the law alone, whether a baseline wins, and the seconds of import and evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def run(folder: str, *arguments: str) -> Any:
    """One command of irene-build, its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "irene_build.cli", "--artifacts", folder, *arguments, "--json"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr.strip())
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--device", action="append", default=[], metavar="NAME=DEVICE")
    given = parser.parse_args()
    devices = dict(one.split("=", 1) for one in given.device)
    print(f"{'table':20} {'protocol':15} {'mean':>6} {'p50':>6} {'max':>6} {'in 90%':>6} {'rows':>5} {'failed':>6} "
          f"{'law':>6} {'beaten':>6} {'s':>5}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted([*given.path.glob("ea-*.csv"), *given.path.glob("gw-*.csv")]):
            name, began = path.stem, time.monotonic()
            device = ["--device", devices[name]] if name in devices else []
            failed = len(
                run(folder, "import", "table", str(path), "--hardware", name, *device)["implausible"]
            )
            for protocol in ("model-out", "model+size-out"):
                found = run(
                    folder, "evaluate", "--hardware", name, "--protocol", protocol, "--tier", "static"
                )
                e, law = found["tiers"]["static"]["model"], found["baselines"]["law-static"]["model"]
                print(
                    f"{name:20} {protocol:15} {e['mape']:6.1f} {e['p50']:6.1f} {e['max']:6.0f} {e['coverage90']:6.0f} "
                    f"{e['n']:5} {failed:6} {law:6.1f} {len(found['beaten_by']):6} {time.monotonic() - began:5.0f}",
                    flush=True,
                )
                began = time.monotonic()


if __name__ == "__main__":
    main()
