"""Prints the errors of every outer fold, and what the constants that no fold chooses move.

    python benchmarks/bench_nested.py --hardware pc1 [--protocol family-out] [--capacity] [--sensitivity]

For every fold: error and coverage of the static tier on what it holds out, and seconds of CPU.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

#: Points of per cent: a constant that moves errors by less is a convention.
SMALL = 0.02

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hardware", default="pc1")
    parser.add_argument("--protocol", action="append", default=[], help="default: model-out and family-out")
    parser.add_argument(
        "--capacity", action="store_true", help="print errors at half and twice the inducing_points too"
    )
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="print what constants that no fold chooses move, and nothing else",
    )
    options = parser.parse_args()

    from irene_build.dataset.splits import folds
    from irene_build.dataset.store import load_dataset
    from irene_build.paths import find_artifact

    dataset = load_dataset(find_artifact(options.hardware, "campaign.sqlite"))
    if options.sensitivity:
        show_sensitivity(dataset, options.protocol or ["model-out", "family-out"])
        return
    for protocol in options.protocol or ["model-out", "family-out"]:
        print(f"{protocol}:")
        for fold in folds(dataset, protocol):
            show_fold(fold, dataset.label_source)
    if options.capacity:
        show_capacity(dataset)


def show_fold(fold: Any, label_source: str) -> None:
    """One outer fold."""
    from irene_build.evaluate.methods import by_estimator, stripped
    from irene_build.evaluate.metrics import level_metrics, score

    began = time.process_time()
    _, predict = by_estimator("best", tiers=("static",)).fit(fold.train)
    seconds = time.process_time() - began
    answers = predict([stripped(tree, "static", label_source) for tree in fold.test], "static")
    found = score(
        fold.test, [a.energy_j for a in answers], [a.low_j for a in answers], [a.high_j for a in answers]
    )
    levels = [level_metrics(found, level) for level in ("ml", "module", "model")]
    errors = " / ".join(f"{one['mape']:.2f}" for one in levels)
    inside = " / ".join(f"{one['coverage90']:.0f}" for one in levels)
    print(f"  {fold.held_out} held out: {errors} %, inside {inside} %, {seconds:.1f} s of CPU")


def show_capacity(dataset: Any) -> None:
    """Errors where corrections have half and twice the inducing points: twice buys nothing."""
    from irene_build.evaluate.methods import by_estimator
    from irene_build.evaluate.metrics import level_metrics
    from irene_build.evaluate.run import run
    from irene_build.train.best import static

    shipped = (static.LEAF_RANK, static.GEMM_RANK, dict(static.MODULE_RANK))
    print("most inducing_points of corrections (static, model-out):")
    for factor in (0.5, 1.0, 2.0):
        static.LEAF_RANK, static.GEMM_RANK = (int(factor * rank) for rank in shipped[:2])
        static.MODULE_RANK = {level: int(factor * rank) for level, rank in shipped[2].items()}
        found = run(by_estimator("best", tiers=("static",)), dataset, "model-out", ("static",))["static"]
        errors = [level_metrics(found, level)["mape"] for level in ("ml", "module", "model")]
        print(f"  {factor:3g} times: {' / '.join(f'{error:.2f}' for error in errors)} %")
    static.LEAF_RANK, static.GEMM_RANK, static.MODULE_RANK = shipped


def show_sensitivity(dataset: Any, protocols: Sequence[str]) -> None:
    """Errors of the static tier where one constant at a time is smaller and larger than the one in use.

    A constant that moves no level by more than SMALL over these values is a convention; the others are marked, for
    they were settled by people and not by the inner folds.
    """
    from irene_build.evaluate.methods import by_estimator
    from irene_build.evaluate.metrics import level_metrics
    from irene_build.evaluate.run import run
    from irene_build.train.best import (
        aggregation,
        gaussian_process,
        huber_nnls,
        roofline,
        static,
    )

    constants: list[tuple[Any, str, tuple[Any, ...]]] = [
        (huber_nnls, "HUBER", (0.5, 1.345, 5.0)),
        (huber_nnls, "LEAST", (0.0003, 0.001, 0.01, 0.03)),
        (gaussian_process, "LIMIT", (0.35, 1.5, 7.0)),
        (gaussian_process, "LEAST_NOISE", (0.0003, 0.003)),
        (gaussian_process, "FEWEST", (3, 8)),
        (roofline, "ENOUGH", (6, 24)),
        (roofline, "FINALISTS", (4, 36)),
        (roofline, "MISSED", (0.1, 1.0)),
        (aggregation, "COMMON", (1e-6, 1e-4)),
        (aggregation, "NOUGHT", (0.03, 0.3)),
        (roofline, "FLOOR", (0.15, 1.0)),
        (static, "LEAST_SHARE", (0.006, 0.06)),
    ]

    def errors() -> np.ndarray:
        out = []
        for protocol in protocols:
            found = run(by_estimator("best", tiers=("static",)), dataset, protocol, ("static",))["static"]
            out += [level_metrics(found, level)["mape"] for level in ("ml", "module", "model")]
        return np.array(out)

    usual = errors()
    print(f"errors of tier static, ml / module / model of {', '.join(protocols)}, in per cent:")
    print(f"  {'as it is':24} {_by_protocol(usual)}")
    for owner, name, values in constants:
        kept = getattr(owner, name)
        moved = np.zeros(len(usual))
        for value in values:
            setattr(owner, name, value)
            try:
                now = errors()
            finally:
                setattr(owner, name, kept)
            moved = np.maximum(moved, np.abs(now - usual))
            print(f"  {f'{name} {kept:g} -> {value:g}':24} {_by_protocol(now)}")
        judged = "a convention" if moved.max() <= SMALL else "moves errors: not chosen by inner folds"
        print(f"    {name}: at most {moved.max():.3f} points, {judged}")


def _by_protocol(errors: np.ndarray) -> str:
    return " | ".join(" / ".join(f"{error:.2f}" for error in part) for part in errors.reshape(-1, 3))


if __name__ == "__main__":
    main()
