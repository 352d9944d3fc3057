"""Settings are chosen by models left out, and only where both halves of the models agree."""

from __future__ import annotations

import numpy as np
import pytest

from irene_build.train.best import readings, settings, smooth
from irene_build.train.best.columns import Book
from irene_build.train.best.sample import Sample, sample
from irene_build.train.best.static import Structure, fit_static
from tests.train import synthetic

MODELS = {"a": (2, 64), "b": (3, 128), "c": (2, 256), "d": (4, 192)}
SIZES = [(1, 16), (2, 32), (4, 64), (8, 64)]


def fitted(models: dict[str, tuple[int, int]], structure: Structure) -> Sample:
    data = sample(synthetic.dataset(models, SIZES, hidden=("Copy", "Elementwise")))
    fit_static(data, Book(data.names), structure)
    return data


def test_settings_that_serve_are_kept() -> None:
    structure = Structure()
    chosen = settings.choose(fitted(MODELS, structure), structure)
    again = settings.choose(fitted(MODELS, chosen), chosen)
    assert (again.kind_length, again.prior) == (chosen.kind_length, chosen.prior)


def test_few_models_choose_nothing() -> None:
    structure = Structure()
    data = fitted(dict(list(MODELS.items())[:3]), structure)
    assert settings.choose(data, structure) is structure


@pytest.mark.parametrize(
    ("halves", "kept"), [((0.1, 1.1), True), ((1.1, 0.1), True), ((0.99, 0.99), True), ((0.9, 0.9), False)]
)
def test_both_halves_have_to_gain(
    monkeypatch: pytest.MonkeyPatch, halves: tuple[float, float], kept: bool
) -> None:
    """``halves``: the error of the other settings as a share of the usual ones', for each half left out."""
    structure = Structure()
    data = fitted(MODELS, structure)
    options, levels = 1 + len(settings.KIND_LENGTHS) + len(settings.PRIORS), 2
    calls: list[int] = []

    def error_of(part: Sample, predicted: np.ndarray, rows: np.ndarray) -> float:
        half, option = divmod(len(calls) // levels, options)
        calls.append(option)
        return halves[half] if option else 1.0

    monkeypatch.setattr(readings, "error_of", error_of)
    assert (settings.choose(data, structure) is structure) == kept
    assert len(calls) == 2 * options * levels


def test_reaching_further_keeps_the_centers() -> None:
    centers = np.zeros((1, 5))
    scales = {
        "module 0": smooth.Scales(np.array([0.4, 0.4, 0.4, 1.2, 1.2]), 1.0, 0.1, centers),
        "model 0": None,
        "Linear": smooth.Scales(np.array([0.3]), 1.0, 0.1),
    }
    wide = settings._with(Structure(scales=scales), 0.8, 0.3)
    there = wide.scales["module 0"]
    assert there is not None and there.centers is centers
    assert there.length.tolist() == [0.8, 0.8, 0.8, 1.2, 1.2]
    assert wide.scales["Linear"] is scales["Linear"] and wide.scales["model 0"] is None
    assert (wide.kind_length, wide.prior) == (0.8, 0.3)
