"""Chooses the settings above the leaves by models and families left out inside the training data, one after the other.

Grids span orders of magnitude around values that mean something by themselves (an e-fold of size, one per cent of
noise), so that no measured PC speaks in them; of options that chance cannot tell apart the smoothest is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from irene_build.train.best import aggregation, gaussian_process
from irene_build.train.best.aggregation import CorrectionSettings, ModuleGrid, Settings
from irene_build.train.best.cross_validation import Part
from irene_build.train.best.folds import relative_error, simplest
from irene_build.train.best.sample import TrainingSet
from irene_build.train.best.static import Structure, fit_own
from irene_build.train.formulas import kernel

#: Options of every setting in the order of the choices, the simplest (smoothest, strongest pooled) first.
PRIORS = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
GRIDS: dict[str, tuple[Any, ...]] = {
    "kind_length": (6.4, 3.2, 1.6, 0.8, 0.4, 0.2, 0.1),
    "ratio": (1.0, 0.1, 0.01, 0.001, 0.0001),
    "size_length": (6.4, 3.2, 1.6, 0.8, 0.4, 0.2, 0.1),
}
#: Whether the correction of whole models has a constant: modules lie in modules, where constants would pile up.
BIASED = (False, True)


def choose(structure: Structure, data: TrainingSet, parts: Sequence[Part]) -> Settings:
    """The settings that serve best what each of ``parts`` leaves out; those to begin with where none tells.

    Modules tell how strongly kernels are pooled; whole models do not say how a root's joules are split.
    """
    trials = Trials(structure.grids_of(data), data, parts)
    settings = structure.settings
    for level in aggregation.ABOVE:
        for name, grid in GRIDS.items():
            reach = getattr(settings, level)
            options = [replace(settings, **{level: replace(reach, **{name: value})}) for value in grid]
            settings = trials.best(level, options) or settings
        if level == "module" and (data.at(level) & data.labelled).any():
            settings = trials.best(level, [replace(settings, prior=prior) for prior in PRIORS]) or settings
    options = [replace(settings, model=replace(settings.model, biased=biased)) for biased in BIASED]
    return trials.best("model", options) or settings


class Trials:
    """Fits without what each part leaves out, level by level: lower ones are settled when the next one's turn comes.

    They learn from every second input size (a chequerboard of batch sizes and lengths), with all places as inducing
    points: nothing depends on how many of them ship.
    """

    def __init__(self, grids: dict[str, ModuleGrid], data: TrainingSet, parts: Sequence[Part]) -> None:
        self.grids, self.data, self.parts = grids, data, parts
        number = [np.unique(data.column(name), return_inverse=True)[1] for name in ("batch_size", "seq_len")]
        self.even = (number[0].ravel() + number[1].ravel()) % 2 == 0
        self._kernels: dict[tuple[str, float, float], np.ndarray] = {}
        self._leaf_j: dict[tuple[int, float], np.ndarray] = {}
        self._factor: dict[tuple[int, float, CorrectionSettings], np.ndarray] = {}

    def best(self, level: str, options: list[Settings]) -> Settings | None:
        """The simplest option of the least error at a level; None where nothing tells."""
        errors = [[self._error(level, option, i) for i in range(len(self.parts))] for option in options]
        chosen = simplest(np.array(errors).reshape(len(options), -1))
        return None if chosen is None else options[chosen]

    def _error(self, level: str, option: Settings, number: int) -> float:
        part, data = self.parts[number], self.data
        rows = np.flatnonzero(part.out & data.labelled & data.at(level))
        if not len(rows):
            return float("nan")
        leaf_j = self._leaves(number, option.prior)
        factor = self._modules(number, option)
        if level == "model":
            factor = self._fit(part, leaf_j, option, level, factor)
        total = aggregation.add_up(data, leaf_j, factor)
        return relative_error(total[rows], data.energy_j[rows], data.count[rows])

    def _leaves(self, number: int, prior: float) -> np.ndarray:
        if (number, prior) not in self._leaf_j:
            part = self.parts[number]
            self._leaf_j[number, prior] = fit_own(part.rest, part.book, part.below, prior)[1]
        return self._leaf_j[number, prior]

    def _modules(self, number: int, option: Settings) -> np.ndarray:
        key = (number, option.prior, option.module)
        if key not in self._factor:
            leaf_j = self._leaves(number, option.prior)
            ones = np.ones(len(leaf_j))
            self._factor[key] = self._fit(self.parts[number], leaf_j, option, "module", ones)
        return self._factor[key]

    def _fit(
        self, part: Part, leaf_j: np.ndarray, option: Settings, level: str, factor: np.ndarray
    ) -> np.ndarray:
        from scipy.linalg import cho_factor, cho_solve

        used = part.rest.labelled & (part.rest.count > 0.0) & self.even
        reach: CorrectionSettings = getattr(option, level)
        rounds = aggregation.rounds(part.rest, level)
        ready: list[Any] = []

        def solve(
            grid: ModuleGrid, seen: np.ndarray, points: gaussian_process.Points, reach: CorrectionSettings
        ) -> np.ndarray:
            using = aggregation.scales(points, reach)
            k = self._kernel(level, using.length)
            if not ready:
                system = k[np.ix_(seen, seen)]
                system[np.diag_indices(len(seen))] += (
                    gaussian_process.variance_of(points, using) / using.signal
                )
                ready.append(cho_factor(system, lower=True, overwrite_a=True, check_finite=False))
            return np.asarray(k[:, seen] @ cho_solve(ready[0], points.residual, check_finite=False))

        return aggregation.factors(part.rest, leaf_j, self.grids[level], reach, rounds, solve, factor, used)[
            0
        ]

    def _kernel(self, level: str, length: np.ndarray) -> np.ndarray:
        key = (level, float(length[0]), float(length[-1]))
        if key not in self._kernels:
            z = self.grids[level].z
            self._kernels[key] = kernel("matern32", z, z, length)
        return self._kernels[key]
