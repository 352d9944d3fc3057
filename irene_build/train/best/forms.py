"""Chooses how every primitive is fitted: waves or none, which bytes are charged apart, how rough its cost is.

Terms are what remains where a model brings shapes of its own, and models left out often share theirs with others:
so terms are chosen by the evidence of all shapes. How rough is chosen on inner folds (``folds``). A trial fit has all
places as centers, so that no choice depends on how many of them ship.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from irene_build.train.best import leaves, robust, smooth
from irene_build.train.best.columns import Book
from irene_build.train.best.folds import relative_error, simplest
from irene_build.train.best.leaves import Form

#: How many times the spread of replicates a correction may miss what was measured, smoothest first.
ROUGH = (30.0, 10.0, 3.0, 1.0, 0.3)
#: What a search of waves settles: height, width, tiles at once.
WAVE_NUMBERS = 3


class Trials:
    """Trial fits of one primitive.

    ``features``: float64[n, names]. ``energy_j``, ``count``: float64[n]. ``gone``: bool[folds, n], left out by each.
    ``copied``: bool[n], labels of other shapes.
    """

    def __init__(
        self,
        names: Sequence[str],
        features: np.ndarray,
        energy_j: np.ndarray,
        count: np.ndarray,
        gone: np.ndarray,
        copied: np.ndarray | None = None,
    ) -> None:
        self.names, self.energy_j, self.count = names, energy_j, count
        self.copied = np.zeros(len(count), dtype=bool) if copied is None else copied
        self.all = leaves.by_shape(features, energy_j, count, self.copied)
        _, of = np.unique(features, axis=0, return_inverse=True)
        self.of = of.ravel()
        book = Book(names)
        columns = leaves.correction_columns(book, self.all.features)
        values = book.over(self.all.features)
        z = np.column_stack([values[c] for c in columns]) if columns else np.empty((len(self.all.count), 0))
        self.spectrum = smooth.Spectrum(z, leaves.has_weights(names, self.all.features))
        self.gone = gone
        self._parts = [self._part(out) for out in self.gone]

    def _part(self, out: np.ndarray) -> tuple[np.ndarray, leaves.Shapes] | None:
        """Numbers of the shapes that a fold does not leave out, and what is known of them; None where too few."""
        kept = ~out
        if out.all() or not out.any():
            return None
        places, of = np.unique(self.of[kept], return_inverse=True)
        known = leaves.fold(
            self.all.features[places], of, self.energy_j[kept], self.count[kept], self.copied[kept]
        )
        known.noise = self.all.noise
        return (places, known) if len(places) >= smooth.FEWEST else None

    def design(self, form: Form) -> np.ndarray:
        """float64[shapes, terms]."""
        book = Book(self.names)
        return leaves.design_of(book, leaves.terms_of(book, self.all.features, form), self.all.features)

    def scales(self, design: np.ndarray, rough: float) -> smooth.Scales | None:
        """The scales of the correction that belongs to these terms, from all shapes."""
        points = self._points(np.arange(len(self.all.count)), self.all, design)[0]
        return smooth.scales(points, rough, self.spectrum)

    def evidence(self, design: np.ndarray, waves: bool) -> float:
        """Minus the logarithm of the marginal likelihood, and one for every free number (Akaike); less is better."""
        points, _, weights = self._points(np.arange(len(self.all.count)), self.all, design)
        if len(points.z) < smooth.FEWEST or not points.z.shape[1]:
            return 0.0
        free = int((weights > 0.0).sum()) + (WAVE_NUMBERS if waves else 0)
        return smooth.likeliest(points, 1.0, self.spectrum)[1] + free

    def _points(
        self, places: np.ndarray, known: leaves.Shapes, design: np.ndarray
    ) -> tuple[smooth.Points, np.ndarray, np.ndarray]:
        """What is left of the labels of these shapes, what the terms say of all shapes, and the terms' weights."""
        weights = robust.nnls(design[places], known.energy_j, np.sqrt(known.nodes))
        said = np.maximum(design @ weights, leaves.FLOOR * float(known.energy_j.min()))
        residual = np.log(known.energy_j / said[places])
        points = smooth.Points(self.spectrum.z[places], residual, known.count, known.noise, known.nodes)
        return points, said, weights

    def errors(self, design: np.ndarray, roughs: Sequence[float]) -> np.ndarray:
        """float64[roughs, folds]: mean relative error of what a fold leaves out; NaN where it cannot be told."""
        found = [self.scales(design, rough) for rough in roughs]
        out = np.full((len(roughs), len(self.gone)), np.nan)
        for fold, part in enumerate(self._parts):
            if part is None:
                continue
            places, known = part
            points, said, _ = self._points(places, known, design)
            test = self.gone[fold] & ~self.copied
            for index, scales in enumerate(found):
                predicted = (
                    said[self.of[test]] * np.exp(self._correction(places, points, scales))[self.of[test]]
                )
                out[index, fold] = relative_error(predicted, self.energy_j[test], self.count[test])
        return out

    def _correction(
        self, places: np.ndarray, points: smooth.Points, scales: smooth.Scales | None
    ) -> np.ndarray:
        """float64[shapes]: the Gaussian process's mean, its logarithm within the limit."""
        if scales is None:
            return np.zeros(len(self.all.count))
        k = scales.signal * self.spectrum.kernel((float(scales.length[0]), float(scales.length[-1])))
        system = k[np.ix_(places, places)] + np.diag(smooth.variance_of(points, scales))
        value = k[:, places] @ np.linalg.solve(system, points.residual)
        return np.asarray(smooth.LIMIT * np.tanh(value / smooth.LIMIT))


def choose(trials: Trials, groups: Sequence[int] = leaves.WAVES) -> Form:
    """The form of a primitive: terms by their evidence, then how rough by what the folds leave out."""
    apart = leaves.apart(trials.names, trials.all.features)
    wave = leaves.fit_wave(trials.names, trials.all, apart, groups)
    forms = [Form(None, ()), Form(None, apart)]
    if wave is not None:
        forms += [Form(wave, ()), Form(wave, apart)]
    designs = [trials.design(form) for form in forms]
    evidence = [
        trials.evidence(design, form.wave is not None) for design, form in zip(designs, forms, strict=True)
    ]
    best = int(np.argmin(evidence))
    rough = simplest(trials.errors(designs[best], ROUGH))
    return replace(forms[best], rough=1.0 if rough is None else ROUGH[rough])
