"""Conformal half-widths: what they cover, and how they say that little is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from irene_build.train import arithmetic, best, intervals, widths
from tests.train import synthetic


def judgement(residual: np.ndarray, **parts: np.ndarray) -> intervals.Judgement:
    """Five models' residuals, each a family; leaves of one primitive, nothing beyond the sizes, but for ``parts``.

    ``residual``, ``far``: one row, of models left out, or several, the others of families left out.
    """
    residual = np.atleast_2d(residual)
    size = residual.shape[1]
    given = {
        "beyond": np.full(size, np.nan), "away": np.zeros(size), "count": np.ones(size),
        "model": np.arange(size) % 5, "family": np.arange(size) % 5, "level": np.full(size, "ml"),
        "primitive": np.full(size, "Linear"), "far": np.zeros(residual.shape, dtype=bool),
    }  # fmt: skip
    given |= parts
    given["far"] = np.atleast_2d(given["far"])
    return intervals.Judgement(residual, **given)


def test_the_quantile_counts_copies() -> None:
    residual, count = np.array([0.01, -0.02, 0.5]), np.array([80.0, 15.0, 5.0])
    assert intervals.quantile(residual, count, 0.9) == 0.02
    assert intervals.quantile(residual, np.array([1.0, 1.0, 100.0]), 0.9) == 0.5


def test_few_models_get_wider_intervals() -> None:
    residual, count = np.full(100, 0.02), np.ones(100)
    widths = [intervals.half_width(residual, count, models) for models in (0, 1, 2, 3)]
    assert widths == [intervals.UNKNOWN, 0.04, 0.04, 0.02]


def test_a_width_is_never_nothing() -> None:
    assert intervals.half_width(np.zeros(10), np.ones(10), 5) == intervals.LEAST


def test_unknown_kinds_have_a_width_of_their_own() -> None:
    rng = np.random.default_rng(0)
    level = np.array(["module"] * 400)
    far = np.arange(400) >= 300
    residual = np.where(far, 0.1, 0.01) * rng.normal(size=400)
    found = intervals.interval(judgement(residual, level=level, far=far), ("module",))
    entry = found["levels"]["module"]
    assert entry["far"] > 5 * entry["q"]
    assert entry["q"] == pytest.approx(0.0164, rel=0.15)
    assert "far" not in found["levels"]["ml"] and found["levels"]["ml"]["q"] == intervals.UNKNOWN


def test_known_kinds_of_models_and_of_families_that_were_left_out_count_as_much() -> None:
    rng = np.random.default_rng(4)
    residual = np.array([0.01, 0.03, 0.03, 0.03])[:, None] * rng.normal(size=(4, 1000))
    level = np.full(1000, "module")
    found = intervals.interval(judgement(residual, level=level), ("module",))["levels"]["module"]
    inside = (np.abs(residual) <= found["q"]).mean(axis=1)
    assert np.mean([inside[0], inside[1:].mean()]) == pytest.approx(0.9, abs=0.002)
    together = intervals.interval(judgement(residual, level=level), ())["levels"]["module"]["q"]
    assert (np.abs(residual) <= together).mean() == pytest.approx(0.9, abs=0.005)
    assert together > found["q"]


@pytest.mark.parametrize("families", [1, 2, 5])
def test_few_families_speak_for_the_next_with_a_margin(families: int) -> None:
    residual, level = np.full((2, 100), 0.1), np.full(100, "module")
    residual[0] = np.nan
    found = intervals.interval(
        judgement(residual, level=level, far=np.ones((2, 100), dtype=bool), family=np.arange(100) % families),
        ("module",),
    )
    assert found["levels"]["module"]["far"] == pytest.approx(0.1 * (1.0 + 1.0 / families))


def test_primitives_that_were_never_seen_are_at_least_as_unsure_as_those_that_a_fold_had_not() -> None:
    """Each primitive counts the same, however many nodes it has; calibrated ones have nothing to do with it."""
    primitive = np.array(["Linear"] * 300 + ["Conv1D"] * 50 + ["Tanh"] * 10)
    far = np.array([np.zeros(360, dtype=bool), np.ones(360, dtype=bool)])
    for size, told in ((0.3, intervals.UNKNOWN), (1.5, 1.5)):
        residual = np.array([np.full(360, 0.01), np.where(primitive == "Tanh", size, 0.1)])
        found = intervals.interval(judgement(residual, primitive=primitive, far=far), ())["primitives"]
        assert found["fallback"]["q"] == pytest.approx(told)
        assert found["Linear"]["q"] == pytest.approx(0.01)


def test_slopes_cover_nine_in_ten_of_larger_inputs() -> None:
    rng = np.random.default_rng(1)
    away = rng.uniform(0.7, 3.0, size=2000)
    beyond = 0.01 * (1.0 + 2.0 * away) * rng.normal(size=2000)
    found = intervals.interval(judgement(0.01 * rng.normal(size=2000), beyond=beyond, away=away), ())
    for entry in (found["levels"]["ml"], found["primitives"]["Linear"]):
        inside = np.abs(beyond) <= entry["q"] * (1.0 + entry["slope"] * away)
        assert inside.mean() == pytest.approx(0.9, abs=0.01)


def test_without_larger_inputs_wide_intervals_do_not_widen_faster_than_narrow_ones() -> None:
    rng = np.random.default_rng(2)
    narrow, wide = (
        intervals.interval(judgement(size * rng.normal(size=100)), ())["levels"]["ml"] for size in (0.01, 1.0)
    )
    assert narrow["slope"] == intervals.SLOPE["ml"]
    assert wide["q"] > intervals.UNKNOWN
    assert wide["q"] * wide["slope"] == pytest.approx(intervals.UNKNOWN * intervals.SLOPE["ml"], rel=0.01)


def test_primitives_have_widths_of_their_own() -> None:
    rng = np.random.default_rng(3)
    primitive = np.array(["Linear"] * 200 + ["Softmax"] * 200 + ["Tanh"] * 5)
    residual = np.where(primitive == "Softmax", 0.1, 0.01) * rng.normal(size=405)
    found = intervals.interval(judgement(residual, primitive=primitive), ())["primitives"]
    assert found["Softmax"]["q"] > 5 * found["Linear"]["q"]
    assert "Tanh" not in found, "five shapes tell no quantile"


def test_larger_inputs_of_new_models_lie_inside_as_often_as_promised() -> None:
    """Fits see short inputs alone; their intervals are asked about longer ones of models that are new as well."""
    short, long = [(1, 16), (2, 16), (2, 32), (4, 32)], [(8, 64), (8, 128), (16, 128)]
    models = {"a": (2, 64), "b": (3, 128), "c": (2, 192), "d": (4, 96)}
    estimator = best.fit(synthetic.dataset(models, short, noise=0.03), tiers=("static",))
    test = synthetic.dataset({"f": (3, 64), "g": (2, 128)}, long, noise=0.03, seed=9)
    answers = arithmetic.predict(estimator, test.trees, "static")
    assert all((p.flags & arithmetic.EXTRAPOLATES).any() for p in answers)
    inside = [
        (p.low_j <= t.energy_j) & (t.energy_j <= p.high_j) for t, p in zip(test.trees, answers, strict=True)
    ]
    assert np.concatenate(inside).mean() > 0.85


def test_nine_in_ten_nodes_of_new_models_lie_inside() -> None:
    """On a PC with a known law and 3 % noise; models and labels that no fit has seen."""
    sizes = [(1, 32), (2, 64), (4, 64), (8, 96)]
    train = synthetic.dataset({"a": (2, 64), "b": (3, 128), "c": (2, 192), "d": (4, 96), "e": (1, 256)}, sizes,
                              noise=0.03)  # fmt: skip
    test = synthetic.dataset({"f": (3, 64), "g": (2, 128), "h": (3, 160)}, sizes, noise=0.03, seed=9)
    estimator = best.fit(train)
    for tier in ("static", "live", "profile"):
        inside = []
        for tree, p in zip(test.trees, arithmetic.predict(estimator, test.trees, tier), strict=True):
            inside += ((p.low_j <= tree.energy_j) & (tree.energy_j <= p.high_j)).tolist()
        assert 0.8 < np.mean(inside) <= 1.0


def test_widths_are_capped() -> None:
    assert math.exp(widths.WIDEST) < 1e7
