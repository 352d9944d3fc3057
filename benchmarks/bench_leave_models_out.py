"""Prints how long leaving every model out takes, per method: fits, all tiers, predictions; one core, one process.

    python benchmarks/bench_leave_models_out.py --hardware pc1
The peer (the authors' cleaned-up code, the paper's method, tier profile alone) took 208 s and 914 MiB.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hardware", default="pc1")
    parser.add_argument("--method", action="append", default=[], help="default: best and paper")
    options = parser.parse_args()

    began = time.perf_counter()
    import sklearn.linear_model  # noqa: F401 - what a first fit would import
    import torch

    from irene_build.dataset.store import load_dataset
    from irene_build.evaluate.methods import by_estimator
    from irene_build.evaluate.metrics import level_metrics
    from irene_build.evaluate.run import run
    from irene_build.paths import find_artifact

    torch.set_num_threads(1)
    dataset = load_dataset(find_artifact(options.hardware, "campaign.sqlite"))
    print(f"imports and {len(dataset.trees)} trees: {time.perf_counter() - began:.1f} s")
    for method in options.method or ["best", "paper"]:
        began, worked = time.perf_counter(), time.process_time()
        scores = run(by_estimator(method), dataset, "model-out")
        wall, cpu = time.perf_counter() - began, time.process_time() - worked
        errors = "; ".join(
            f"{tier} "
            + " / ".join(f"{level_metrics(found, level)['mape']:.2f}" for level in ("ml", "module", "model"))
            for tier, found in scores.items()
        )
        print(f"{method}: {wall:.1f} s ({cpu:.1f} s of CPU), {errors}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
