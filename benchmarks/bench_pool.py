"""Prints what pooling hosts of one kind is worth: the next host by no label, by 8, and by a full calibration.

    python benchmarks/bench_pool.py artifacts/pc1/campaign.sqlite [--full NAME ...]

Seven PCs (SIMULATED: ``other_pcs.PCS``, made of the measurements) measure half of the models; each in turn is the next
host, and the other six are pooled. Errors are of the other half of the models there, profile tier, mean percent at
levels ml, module and model; 8 labels are drawn as in bench_accuracy.py. These PCs are of several kinds. Seven hosts of
one kind (the PC with faster GEMMs; idle draw 70 +/- 3 W, supply 1.06 +/- 0.005) follow, of which the last is the next
one. `--full` also calibrates these PCs by all their labels (a minute each).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bench_accuracy import DRAWS, drawn, errors, ranked, with_labels
from other_pcs import PCS, OtherPC, made_of

from irene_build.dataset.store import load_dataset
from irene_build.dataset.table import Dataset
from irene_build.train import best, pooling
from irene_build.train.transfer import carry_over

LABELS = 8


def of_one_kind() -> list[OtherPC]:
    """Hosts whose idle draw and supply differ a little."""
    rng = np.random.default_rng(0)
    return [
        replace(PCS[3], name=f"host {n}", rest_w=70.0 + 3.0 * rng.normal(), loss=1.06 + 0.005 * rng.normal())
        for n in range(7)
    ]


def show(
    known: dict[str, Any], pc: OtherPC, others: list[Dataset], here: Dataset, test: Dataset, full: bool
) -> None:
    """Errors on one host, by what the others say of it."""
    kind, order = pooling.pooled(known, others, "kind"), ranked(here)
    print(f"  {pc.name:13} pooled, no label  ", errors(kind, test).round(2))
    for name, source in (("pooled, 8 labels", kind), ("one host, 8 labels", known)):
        few = [
            errors(carry_over(source, with_labels(here, drawn(order, LABELS, seed))), test)
            for seed in range(DRAWS)
        ]
        print(
            f"  {pc.name:13} {name:18}",
            np.mean(few, axis=0).round(2),
            "worst",
            np.max(few, axis=0).round(2),
            flush=True,
        )
    if full:
        print(f"  {pc.name:13} full calibration  ", errors(best.fit(here), test).round(2), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--full", nargs="*", default=[], metavar="NAME")
    args = parser.parse_args()
    dataset = load_dataset(args.dataset)
    names = dataset.models
    measured, unseen = dataset.subset(names[0::2]), dataset.subset(names[1::2])
    known = best.fit(measured)
    print(
        "SIMULATED PCs, mean error % at ml / module / model, profile tier; seven hosts of one kind:",
        flush=True,
    )
    alike = of_one_kind()
    hosts = [made_of(measured, pc, seed=1 + n) for n, pc in enumerate(alike)]
    show(
        known,
        alike[-1],
        hosts[:-1],
        hosts[-1],
        made_of(unseen, alike[-1], seed=99),
        alike[-1].name in args.full,
    )
    print("PCs of several kinds, one left out in turn:", flush=True)
    for pc in PCS:
        others = [made_of(measured, other, seed=1) for other in PCS if other is not pc]
        show(
            known,
            pc,
            others,
            made_of(measured, pc, seed=1),
            made_of(unseen, pc, seed=2),
            pc.name in args.full,
        )


if __name__ == "__main__":
    main()
