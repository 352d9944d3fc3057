"""What `make demo` predicts for bert-base-uncased 8 x 128, and what the simulated PC measures for it in a minute.

    python benchmarks/bench_demo.py [OUT] [--seconds 60] [--json]

OUT is the bundle that the demo writes (default: out). The model is run on this machine's processor, again and again,
while the simulated PC's power formula is integrated over /proc/stat: wall joules a run, without a meter's noise. Run it
right after `make demo`, on a machine that does nothing else: the simulated PC's joules are those of all that runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from irene_build.calibrate.workload import ReplayWorkload, free_bytes
from irene_build.export.load import load_bundle
from irene_build.hardware import load_profile
from irene_build.hardware.virtual_pc import cpu_shares
from irene_build.measure.plan import Target
from irene_runtime.tree import load

try:
    from benchmarks.bench_protocol import Truth
except ImportError:  # run as a file
    from bench_protocol import Truth  # type: ignore[import-not-found,no-redef]

MODEL, BATCH_SIZE, SEQ_LEN = "bert-base-uncased", 8, 128
#: Share of the processor that others may use before anything was started.
QUIET = 0.1


def busy(seconds: float = 3.0) -> float:
    """Share of this machine's processor that others use."""
    before = cpu_shares()
    time.sleep(seconds)
    after = cpu_shares()
    return (after[0] - before[0] + after[1] - before[1]) / max(1, after[2] - before[2])


def measured(seconds: float) -> tuple[float, int]:
    """Joules of one run by the simulated PC's formula, and how many runs that was the mean of."""
    profile = load_profile("virtual")
    run = ReplayWorkload("cpu", free_bytes("cpu")).runner(Target(MODEL, BATCH_SIZE, SEQ_LEN), 0, [0])
    run()
    with Truth(dict(profile.meter["model"]), float(profile.meter["period_s"])) as truth:
        start, runs = time.monotonic(), 0
        while time.monotonic() < start + seconds:
            run()
            runs += 1
        end = time.monotonic()
        time.sleep(0.5)
        return truth.between(start, end) / runs, runs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", nargs="?", default="out", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    others = busy()
    if others > QUIET:
        print(
            f"others use {100 * others:.0f} % of this machine: what follows is not the demo's",
            file=sys.stderr,
        )
    tree = load(str(options.out / "trees" / f"{MODEL}-{BATCH_SIZE}x{SEQ_LEN}.json"))
    said = load_bundle(options.out)[0].predict(tree, tier="static")
    joules, runs = measured(options.seconds)
    low, high = said.interval_j
    found: dict[str, Any] = {
        "predicted_j": said.energy_j, "low_j": low, "high_j": high, "measured_j": joules, "runs": runs,
        "error": said.energy_j / joules - 1.0, "half_width": (high - low) / (2.0 * said.energy_j),
        "busy_share_before": others,
    }  # fmt: skip
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{MODEL} {BATCH_SIZE} x {SEQ_LEN} on the simulated PC (simulated joules)")
    print(
        f"predicted  {said.energy_j:8.1f} J   {low:.1f} to {high:.1f} (+/-{100 * found['half_width']:.0f} %)"
    )
    print(f"measured   {joules:8.1f} J   mean of {runs} runs")
    print(
        f"error      {100 * found['error']:+8.1f} %   inside its interval: {'yes' if low <= joules <= high else 'no'}"
    )


if __name__ == "__main__":
    main()
