"""Prints what few labels and whole-model labels give on an imported dataset.

    python benchmarks/bench_accuracy.py artifacts/pc1/campaign.sqlite

Few labels: an estimator of half of the models is carried to a PC that is made of the other half's, whose idle draw
and supply are changed (a scaled copy, and labelled so); full calibration stands beside it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from irene_build.dataset.store import load_dataset
from irene_build.dataset.table import Dataset
from irene_build.train import arithmetic, best, whole_model
from irene_build.train.transfer import carry_over
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import LEVELS

DRAWS = 5
LATENCY = RESOURCE_FEATURES.index("latency")


def other_pc(dataset: Dataset, factor: float, watts: float) -> Dataset:
    trees = [
        replace(t, energy_j=factor * t.energy_j + watts * t.resources[:, LATENCY]) for t in dataset.trees
    ]
    return replace(dataset, hardware="scaled", trees=trees)


def with_labels(dataset: Dataset, labels: int, seed: int) -> Dataset:
    """The dataset with so many measurements' labels left."""
    numbers = np.unique(np.concatenate([t.measurement for t in dataset.trees]))
    kept = np.random.default_rng(seed).permutation(numbers[numbers >= 0])[:labels]
    trees = [
        replace(t, energy_j=np.where(np.isin(t.measurement, kept), t.energy_j, np.nan)) for t in dataset.trees
    ]
    return replace(dataset, trees=trees)


def errors(estimator: dict, dataset: Dataset) -> np.ndarray:
    """float64[3]: mean error in percent at levels ml, module, model of the profile tier."""
    level, off = [], []
    for tree, p in zip(dataset.trees, arithmetic.predict(estimator, dataset.trees, "profile"), strict=True):
        known = np.isfinite(tree.energy_j)
        level += np.array([n.level for n in tree.tree.nodes])[known].tolist()
        off += (100.0 * np.abs(p.energy_j[known] / tree.energy_j[known] - 1.0)).tolist()
    return np.array([np.mean([e for n, e in zip(level, off, strict=True) if n == name]) for name in LEVELS])


def main() -> None:
    dataset = load_dataset(Path(sys.argv[1]))
    print("whole-model labels alone, model-out (mean error %, median %, coverage of the 90 % interval):")
    for tier, levels in whole_model.evaluate(dataset).items():
        for level, found in levels.items():
            print(f"  {tier:8} {level:7} {found['mape']:6.2f} {found['p50']:6.2f} {found['coverage90']:6.1f}")
    half = len(dataset.models) // 2
    measured, unseen = dataset.subset(dataset.models[:half]), dataset.subset(dataset.models[half:])
    known = best.fit(measured)
    print("few labels, profile tier, mean error % at ml / module / model:")
    for name, factor, watts in (("same PC", 1.0, 0.0), ("-40 W", 1.0, -40.0), ("+3 %, +60 W", 1.03, 60.0)):
        here, test = other_pc(measured, factor, watts), other_pc(unseen, factor, watts)
        print(f"  {name:12} full calibration", errors(best.fit(here), test).round(2))
        for labels in (0, 1, 8, 16):
            found = [
                errors(carry_over(known, with_labels(here, labels, seed)), test) for seed in range(DRAWS)
            ]
            print(f"  {name:12} {labels:3} labels      ", np.mean(found, axis=0).round(2))


if __name__ == "__main__":
    main()
