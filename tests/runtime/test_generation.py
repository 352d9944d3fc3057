"""A request: its prefill and every decode step, summed within the error that is reported."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_runtime.errors import InputError, TreeError
from irene_runtime.generation import _sum_weights, _weighted
from irene_runtime.tree import ModelTree
from tests.runtime.generating import by_datasheet, estimator, tree


def test_it_is_the_sum_of_its_steps() -> None:
    r = estimator().request(tree(), prompt=40, new=12, batch_size=3)
    steps = [estimator().predict(tree(), batch_size=3, past_len=40 + i).energy_j for i in range(11)]
    prefill = estimator().predict(tree(), batch_size=3, seq_len=40, phase="prefill").energy_j
    assert r.prefill.energy_j == pytest.approx(prefill, rel=1e-12)
    assert r.decode.energy_j == pytest.approx(sum(steps), rel=1e-5)
    assert r.energy_j == r.prefill.energy_j + r.decode.energy_j
    assert (r.decode.steps, r.prefill.steps) == (11, 1)
    assert r.energy_per_token_j == pytest.approx(r.energy_j / 36)
    assert r.energy_per_request_j == pytest.approx(r.energy_j / 3)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(1, 900), st.integers(1, 150), st.integers(1, 9))
def test_the_sum_is_within_the_error_that_it_reports(prompt: int, new: int, batch: int) -> None:
    r = estimator().request(tree(), prompt, new, batch)
    exact = estimator().request(tree(), prompt, new, batch, exact=True)
    assert abs(r.energy_j - exact.energy_j) <= 2.0 * r.error_j + 1e-9 * exact.energy_j
    assert r.error_j <= 1e-3 * r.energy_j


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 50), st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_parabolas_are_summed_exactly(low: int, left: int, right: int, skip: int) -> None:
    points = (low, low + left, low + left + right)
    first = min(low + skip, points[2])
    weights = _sum_weights(*points, first)
    found = sum(w * (3 * x * x - 7 * x + 2) for w, x in zip(weights, points, strict=True))
    assert found == pytest.approx(
        sum(3 * x * x - 7 * x + 2 for x in range(first, points[2] + 1)), rel=1e-9, abs=1e-6
    )


def test_smooth_sums_take_few_points() -> None:
    asked: set[int] = set()

    def value(x: int) -> float:
        asked.add(x)
        return float((x + 50) ** 0.7)

    points = list(_weighted(value, 10, 5000))
    exact = sum((x + 50) ** 0.7 for x in range(10, 5001))
    found = sum(w * (x + 50) ** 0.7 for x, w, _ in points)
    assert abs(found - exact) <= sum(off for _, _, off in points)
    assert len(asked) < 60


def test_errors_of_one_model_add_up() -> None:
    r = estimator().request(tree(), 40, 30)
    low = r.prefill.interval_j[0] + r.decode.interval_j[0]
    assert r.interval_j[0] == low < r.energy_j < r.interval_j[1]


def test_joules_by_module_and_phase() -> None:
    r = estimator().request(tree(), 40, 30)
    assert r["model.layers.0"] == pytest.approx(r["model.layers.1"])
    assert r["lm_head"] == pytest.approx(sum(p.of("lm_head") or 0.0 for p in r.phases.values()))
    data = r.to_json()
    assert data["format"] == "irene-request"
    assert sum(p["energy_j"] for p in data["phases"].values()) == pytest.approx(data["energy_j"])
    assert "J a new token" in r.table()
    with pytest.raises(TreeError, match="no node 'nothing'"):
        r["nothing"]


def test_one_new_token_is_the_prefill_alone() -> None:
    r = estimator().request(tree(), 40, 1)
    assert (r.decode.energy_j, r.decode.steps) == (0.0, 0.0)
    assert r.energy_j == r.prefill.energy_j


def test_a_shared_prefix_is_run_once() -> None:
    apart = estimator().request(tree(), 600, 8, 16)
    shared = estimator().request(tree(), 600, 8, 16, shared_prefix=500)
    assert set(shared.phases) == {"prefix", "prefill", "decode"}
    assert shared.decode.energy_j == apart.decode.energy_j
    assert shared.energy_j - shared.decode.energy_j < 0.5 * apart.prefill.energy_j


def test_guesses_that_are_accepted_save_steps() -> None:
    plain = estimator().request(tree(), 100, 200)
    good = estimator().request(tree(), 100, 200, speculative=(4, 1.0))
    bad = estimator().request(tree(), 100, 200, speculative=(4, 0.0))
    assert good.decode.steps == pytest.approx(199 / 5)
    assert bad.decode.steps == pytest.approx(199)
    assert good.decode.energy_j < plain.decode.energy_j < bad.decode.energy_j
    drafted = estimator().request(tree(), 100, 200, speculative=(4, 0.5), draft=tree())
    assert drafted.phases["draft"].steps == pytest.approx(4 * drafted.decode.steps)


def test_a_beam_is_a_batch() -> None:
    beams = estimator().request(tree(), 50, 20, batch_size=2, beams=3)
    batch = estimator().request(tree(), 50, 20, batch_size=6)
    assert beams.energy_j == batch.energy_j
    assert beams.energy_per_request_j == pytest.approx(3 * batch.energy_per_request_j)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompt": 0, "new": 5}, InputError, "prompt is 0"),
        ({"prompt": 5, "new": 0}, InputError, "new is 0"),
        ({"prompt": 5, "new": 5, "batch_size": -1}, InputError, "batch_size is -1"),
        ({"prompt": 5, "new": 5, "shared_prefix": 5}, InputError, "fewer than the 5 tokens"),
        ({"prompt": 5, "new": 5, "speculative": (3, 1.5)}, InputError, "acceptance from 0 to 1"),
        ({"prompt": 4000, "new": 98}, TreeError, "4096 positions"),
    ],
)
def test_wrong_requests(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        estimator().request(tree(), **options)


def test_a_tree_of_one_size_is_no_request() -> None:
    with pytest.raises(InputError, match="symbolic tree"):
        estimator().request(tree().at(1, 8), 5, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["calibrated", "datasheet"])
def test_equal_subtrees_are_evaluated_once_and_give_the_same_bits(which: str) -> None:
    est = estimator() if which == "calibrated" else by_datasheet()
    for size in ((3, 40, 0), (2, 1, 90)):
        sized = tree().at(*size)
        folded, whole = est.predict(sized), est.predict(ModelTree(sized.nodes, sized.header))
        assert [(n.scope, n.type, n.energy_j) for n in folded] == [
            (n.scope, n.type, n.energy_j) for n in whole
        ]


def test_the_law_says_how_long_a_request_takes() -> None:
    r = by_datasheet().request(tree(), 100, 80, 4)
    exact = by_datasheet().request(tree(), 100, 80, 4, exact=True)
    assert r.time_s == pytest.approx(exact.time_s, rel=1e-4)
    assert abs(r.energy_j - exact.energy_j) <= 2.0 * r.error_j + 1e-9 * exact.energy_j
    assert estimator().law is not None or estimator().request(tree(), 100, 80, 4).time_s is None
