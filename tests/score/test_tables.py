"""Tables of request energy: as exact as they say, and asking the estimator seldom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.score import tables
from irene_build.score.tables import TOLERANCE, RequestTable, grid
from tests.score.synthetic import Formula


def joules(table: RequestTable, prompt: int, output: int, batch: float = 1.0, model: int = 0) -> float:
    values, _ = table.requests(np.array([model]), np.array([batch]), np.array([prompt]), np.array([output]))
    return float(values[0, 0] + values[0, 4])


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(1, 6000), st.integers(0, 3000), st.sampled_from([1, 2, 7, 8, 40]))
def test_a_request_is_its_prefill_and_the_sum_of_its_steps(prompt: int, output: int, batch: int) -> None:
    formula = Formula()
    found = joules(RequestTable({"m": formula}), prompt, output, batch)
    assert found == pytest.approx(formula.request_j(prompt, output, batch), rel=TOLERANCE)


def test_a_staircase_is_followed_within_the_tolerance() -> None:
    class Steps(Formula):
        def passes(self, phase: str, tokens: np.ndarray, batch_size: int) -> np.ndarray:
            return super().passes(phase, 128 * -(-tokens // 128), batch_size)

    table = RequestTable({"m": Steps()})
    for prompt in (127, 128, 129, 1000, 1025, 4096):
        assert joules(table, prompt, 1) == pytest.approx(Steps().request_j(prompt, 1), rel=0.01)


def test_the_estimator_is_asked_for_few_sizes() -> None:
    formula = Formula()
    table = RequestTable({"m": formula})
    joules(table, 6000, 2000)
    assert len(formula.asked) < 400
    formula.asked.clear()
    joules(table, 5999, 1)
    assert not formula.asked


def test_between_batch_sizes_of_the_grid_energy_is_a_line_in_one_over_batch() -> None:
    table, formula = RequestTable({"m": Formula()}), Formula()
    assert grid(20)[-4:] == [12, 14, 16, 20]
    assert joules(table, 700, 90, 17.3) == pytest.approx(
        np.interp(1 / 17.3, [1 / 20, 1 / 16], [formula.request_j(700, 90, b) for b in (20, 16)]),
        rel=TOLERANCE,
    )


def test_models_and_batches_beside_each_other_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sources = {str(n): Formula(scale=1.0 + n) for n in range(5)}
    model, batch = rng.integers(0, 5, 300), rng.choice([1.0, 2.0, 2.5, 8.0], 300)
    prompt, output = rng.integers(1, 900, 300), rng.integers(0, 200, 300)
    values, _ = RequestTable(sources).requests(model, batch, prompt, output)
    one = RequestTable(sources)
    for row in range(0, 300, 7):
        alone = joules(one, int(prompt[row]), int(output[row]), float(batch[row]), int(model[row]))
        assert values[row, 0] + values[row, 4] == pytest.approx(alone, rel=1e-12)
    monkeypatch.setattr(
        tables, "BUDGET_BYTES", 1 << 17
    )  # tables that do not fit together give the same numbers
    small, _ = RequestTable(sources).requests(model, batch, prompt, output)
    assert np.array_equal(values, small)


def test_what_was_evaluated_is_kept_for_later_runs_and_a_damaged_file_is_not_believed(tmp_path: Path) -> None:
    first, later = Formula(key="abc"), Formula(key="abc")
    found = joules(RequestTable({"m": first}, tmp_path), 700, 90)
    assert joules(RequestTable({"m": later}, tmp_path), 700, 90) == found and first.asked and not later.asked
    assert joules(RequestTable({"m": later}, tmp_path), 3000, 90) and min(later.asked) >= 1024
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:200])
    again = Formula(key="abc")
    assert joules(RequestTable({"m": again}, tmp_path), 700, 90) == found and again.asked


def test_sizes_outside_of_what_was_calibrated_carry_the_flag() -> None:
    table = RequestTable({"m": Formula(reach=1000)})
    prompts = np.array([10, 10, 1500])
    _, flags = table.requests(np.zeros(3, int), np.ones(3), prompts, np.array([5, 1500, 1]))
    assert flags.tolist() == [0, 1, 1]
