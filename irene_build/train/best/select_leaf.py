"""Chooses how every primitive is fitted: waves or none, which bytes are charged apart, how noisy its cost is.

Terms are what remains where a model brings shapes of its own, and models left out often share theirs with others:
so terms are chosen by the evidence of all shapes. How noisy is chosen on inner folds (``folds``). A trial fit has all
places as inducing_points, so that no choice depends on how many of them ship.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from irene_build.train.best import gaussian_process, huber_nnls, roofline
from irene_build.train.best.columns import ColumnRegistry
from irene_build.train.best.folds import relative_error, simplest
from irene_build.train.best.roofline import Form

#: How many times the spread of replicates a correction may miss what was measured, smoothest first.
NOISE_FACTORS = (30.0, 10.0, 3.0, 1.0, 0.3)
#: What a search of waves settles: height, width, tiles at once.
WAVE_NUMBERS = 3


class Trials:
    """Trial fits of one primitive.

    ``features``: float64[n, names]. ``energy_j``, ``count``: float64[n]. ``fold_masks``: bool[folds, n], what
    each leaves out. ``copied``: bool[n], labels of other shapes.
    """

    def __init__(
        self,
        names: Sequence[str],
        features: np.ndarray,
        energy_j: np.ndarray,
        count: np.ndarray,
        fold_masks: np.ndarray,
        copied: np.ndarray | None = None,
    ) -> None:
        self.names, self.energy_j, self.count = names, energy_j, count
        self.copied = np.zeros(len(count), dtype=bool) if copied is None else copied
        self.all = roofline.by_shape(features, energy_j, count, self.copied)
        _, of = np.unique(features, axis=0, return_inverse=True)
        self.of = of.ravel()
        book = ColumnRegistry(names)
        columns = roofline.correction_columns(book, self.all.features)
        values = book.over(self.all.features)
        z = np.column_stack([values[c] for c in columns]) if columns else np.empty((len(self.all.count), 0))
        self.cache = gaussian_process.KernelCache(z, roofline.has_weights(names, self.all.features))
        self.fold_masks = fold_masks
        self._parts = [self._part(out) for out in self.fold_masks]

    def _part(self, out: np.ndarray) -> tuple[np.ndarray, roofline.Shapes] | None:
        """Numbers of the shapes that a fold does not leave out, and what is known of them; None where too few."""
        kept = ~out
        if out.all() or not out.any():
            return None
        places, of = np.unique(self.of[kept], return_inverse=True)
        known = roofline.fold(
            self.all.features[places], of, self.energy_j[kept], self.count[kept], self.copied[kept]
        )
        known.noise = self.all.noise
        return (places, known) if len(places) >= gaussian_process.FEWEST else None

    def design(self, form: Form) -> np.ndarray:
        """float64[shapes, terms]."""
        book = ColumnRegistry(self.names)
        return roofline.design_of(book, roofline.terms_of(book, self.all.features, form), self.all.features)

    def scales(self, design: np.ndarray, noise_factor: float) -> gaussian_process.Hyperparameters | None:
        """The scales of the correction that belongs to these terms, from all shapes."""
        points = self._points(np.arange(len(self.all.count)), self.all, design)[0]
        return gaussian_process.scales(points, noise_factor, self.cache)

    def evidence(self, design: np.ndarray, waves: bool) -> float:
        """Minus the logarithm of the marginal likelihood, and one for every free number (Akaike); less is better."""
        points, _, weights = self._points(np.arange(len(self.all.count)), self.all, design)
        if len(points.z) < gaussian_process.FEWEST or not points.z.shape[1]:
            return 0.0
        free = int((weights > 0.0).sum()) + (WAVE_NUMBERS if waves else 0)
        return gaussian_process.likeliest(points, 1.0, self.cache)[1] + free

    def _points(
        self, places: np.ndarray, known: roofline.Shapes, design: np.ndarray
    ) -> tuple[gaussian_process.Points, np.ndarray, np.ndarray]:
        """What is left of the labels of these shapes, what the terms say of all shapes, and the terms' weights."""
        weights = huber_nnls.nnls(design[places], known.energy_j, np.sqrt(known.nodes))
        said = np.maximum(design @ weights, roofline.FLOOR * float(known.energy_j.min()))
        residual = np.log(known.energy_j / said[places])
        points = gaussian_process.Points(
            self.cache.z[places], residual, known.count, known.noise, known.nodes
        )
        return points, said, weights

    def errors(self, design: np.ndarray, noise_factors: Sequence[float]) -> np.ndarray:
        """float64[noise_factors, folds]: mean relative error of what a fold leaves out; NaN where it cannot be told."""
        found = [self.scales(design, noise_factor) for noise_factor in noise_factors]
        out = np.full((len(noise_factors), len(self.fold_masks)), np.nan)
        for fold, part in enumerate(self._parts):
            if part is None:
                continue
            places, known = part
            points, said, _ = self._points(places, known, design)
            test = self.fold_masks[fold] & ~self.copied
            for index, scales in enumerate(found):
                predicted = (
                    said[self.of[test]] * np.exp(self._correction(places, points, scales))[self.of[test]]
                )
                out[index, fold] = relative_error(predicted, self.energy_j[test], self.count[test])
        return out

    def _correction(
        self,
        places: np.ndarray,
        points: gaussian_process.Points,
        scales: gaussian_process.Hyperparameters | None,
    ) -> np.ndarray:
        """float64[shapes]: the Gaussian process's mean, its logarithm within the limit."""
        if scales is None:
            return np.zeros(len(self.all.count))
        k = scales.signal * self.cache.kernel((float(scales.length[0]), float(scales.length[-1])))
        system = k[np.ix_(places, places)] + np.diag(gaussian_process.variance_of(points, scales))
        value = k[:, places] @ np.linalg.solve(system, points.residual)
        return np.asarray(gaussian_process.LIMIT * np.tanh(value / gaussian_process.LIMIT))


def choose(trials: Trials, groups: Sequence[int] = roofline.WAVES) -> Form:
    """The form of a primitive: terms by their evidence, then how noisy by what the folds leave out."""
    apart = roofline.apart(trials.names, trials.all.features)
    wave = roofline.fit_wave(trials.names, trials.all, apart, groups)
    forms = [Form(None, ()), Form(None, apart)]
    if wave is not None:
        forms += [Form(wave, ()), Form(wave, apart)]
    designs = [trials.design(form) for form in forms]
    evidence = [
        trials.evidence(design, form.wave is not None) for design, form in zip(designs, forms, strict=True)
    ]
    best = int(np.argmin(evidence))
    noise_factor = simplest(trials.errors(designs[best], NOISE_FACTORS))
    return replace(forms[best], noise_factor=1.0 if noise_factor is None else NOISE_FACTORS[noise_factor])
