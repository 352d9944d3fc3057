"""Prints what few labels and whole-model labels give on an imported dataset.

    python benchmarks/bench_accuracy.py artifacts/pc1/campaign.sqlite

Few labels: an estimator of half of the models is carried to each of ``other_pcs.PCS`` (SIMULATED: made of the
measurements), where so many nodes of those models are labelled, and asked for the other half of the models there.
A full calibration on the same PC stands beside it. The nodes are chosen as `calibrate --labels N` does, from a tenth of
the nodes that is another one in every draw: most of what a few labels give is luck.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from other_pcs import FLOPS, MEBIBYTES, PCS, made_of

from irene_build.dataset.store import load_dataset
from irene_build.dataset.table import Dataset
from irene_build.measure.plan import compute_share, evenly
from irene_build.train import arithmetic, best, whole_model
from irene_build.train.transfer import carry_over
from irene_runtime.tree import LEVELS

COUNTS = (0, 1, 4, 8, 16)
DRAWS, SHARE = 8, 10


def ranked(dataset: Dataset) -> list[int]:
    """The measurements, from those that move bytes to those that compute."""
    found: dict[int, tuple[float, int]] = {}
    for tree in dataset.trees:
        for node, number in zip(tree.tree.nodes, tree.measurement.tolist(), strict=True):
            if number >= 0:
                found.setdefault(number, (compute_share(node, FLOPS, MEBIBYTES * 2**20), number))
    return [number for _, number in sorted(found.values())]


def drawn(order: list[int], labels: int, seed: int) -> list[int]:
    """So many of a tenth of the ranking."""
    if not labels:
        return []
    kept = np.random.default_rng(seed).permutation(len(order))[: len(order) // SHARE]
    return evenly([order[index] for index in sorted(kept.tolist())], labels)


def with_labels(dataset: Dataset, kept: list[int]) -> Dataset:
    """The dataset with the labels of these measurements alone."""
    trees = [
        replace(t, energy_j=np.where(np.isin(t.measurement, kept), t.energy_j, np.nan)) for t in dataset.trees
    ]
    return replace(dataset, trees=trees)


def errors(estimator: dict[str, Any], dataset: Dataset) -> np.ndarray:
    """float64[3]: mean error in percent at levels ml, module, model of the profile tier."""
    level, off = [], []
    for tree, p in zip(dataset.trees, arithmetic.predict(estimator, dataset.trees, "profile"), strict=True):
        known = np.isfinite(tree.energy_j)
        level += np.array([n.level for n in tree.tree.nodes])[known].tolist()
        off += (100.0 * np.abs(p.energy_j[known] / tree.energy_j[known] - 1.0)).tolist()
    return np.array([np.mean([e for n, e in zip(level, off, strict=True) if n == name]) for name in LEVELS])


def few_labels(dataset: Dataset) -> None:
    names = dataset.models
    measured, unseen = dataset.subset(names[0::2]), dataset.subset(names[1::2])
    known = best.fit(measured)
    print("few labels, SIMULATED other PCs, profile tier, mean error % at ml / module / model; the worst of")
    print(f"{DRAWS} draws beside it:")
    for pc in PCS:
        here, test = made_of(measured, pc, seed=1), made_of(unseen, pc, seed=2)
        print(f"  {pc.name:13} full calibration", errors(best.fit(here), test).round(2))
        order = ranked(here)
        for labels in COUNTS:
            found = [
                errors(carry_over(known, with_labels(here, drawn(order, labels, seed))), test)
                for seed in range(DRAWS if labels else 1)
            ]
            print(
                f"  {pc.name:13} {labels:3} labels      ",
                np.mean(found, axis=0).round(2),
                np.max(found, axis=0).round(2),
            )


def whole_models(dataset: Dataset) -> None:
    print("whole-model labels alone, model-out (mean error %, median %, coverage of the 90 % interval):")
    for tier, levels in whole_model.evaluate(dataset).items():
        for level, found in levels.items():
            print(f"  {tier:8} {level:7} {found['mape']:6.2f} {found['p50']:6.2f} {found['coverage90']:6.1f}")


def main() -> None:
    dataset = load_dataset(Path(sys.argv[1]))
    whole_models(dataset)
    few_labels(dataset)


if __name__ == "__main__":
    main()
