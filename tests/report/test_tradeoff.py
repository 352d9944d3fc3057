"""Energy against accuracy: the user's file, the Pareto front, the two questions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.errors import InputError
from irene_build.report import grid
from irene_build.report.tradeoff import best_under, cheapest_above, pareto, read_accuracies
from tests.report.samples import prediction

points = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), max_size=25)


def _beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(points)
def test_the_front_is_what_no_point_beats(cloud: list[tuple[float, float]]) -> None:
    expected = {i for i, p in enumerate(cloud) if not any(_beats(q, p) for q in cloud)}
    front = pareto(cloud)
    assert set(front) == expected
    assert [cloud[i][0] for i in front] == sorted(cloud[i][0] for i in front)


ROWS = [
    {"model": "a", "energy_j": 1.0, "accuracy": 80.0},
    {"model": "b", "energy_j": 2.0, "accuracy": 88.0},
    {"model": "c", "energy_j": 3.0, "accuracy": 88.0},
    {"model": "d", "energy_j": 9.0, "accuracy": 92.0},
    {"model": "e", "energy_j": 0.5, "accuracy": None},
]


@pytest.mark.parametrize(("budget", "model"), [(0.9, None), (1.0, "a"), (4.0, "b"), (100.0, "d")])
def test_best_model_under_a_budget(budget: float, model: str | None) -> None:
    found = best_under(ROWS, budget)
    assert (found and found["model"]) == model


@pytest.mark.parametrize(("accuracy", "model"), [(93.0, None), (88.0, "b"), (88.1, "d"), (0.0, "a")])
def test_cheapest_model_above_an_accuracy(accuracy: float, model: str | None) -> None:
    found = cheapest_above(ROWS, accuracy)
    assert (found and found["model"]) == model


def test_accuracies_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sst2.csv"
    path.write_text("\ufeffmodel,accuracy,note\nbert-a,88.5,x\nbert-b,0.91,\n", encoding="utf-8")
    assert read_accuracies(path) == {"bert-a": 88.5, "bert-b": 0.91}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model,acc\nx,1\n", "line 1: no column accuracy"),
        ("", "no column accuracy, model"),
        ("model,accuracy\nx,1\ny,high\n", "line 3: expected model,accuracy"),
        ("model,accuracy\nx,nan\n", "line 2"),
        ("model,accuracy\nx\n", "line 2"),
        ("model,accuracy\nx,1\nx,2\n", "line 3: a second accuracy for 'x'"),
        ("model,accuracy\n", "holds no accuracies"),
    ],
)
def test_a_broken_file_names_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "acc.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"acc\.csv.*" + words):
        read_accuracies(path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "acc.csv").write_bytes(b"model,accuracy\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_accuracies(tmp_path / "acc.csv")
    with pytest.raises(InputError, match="cannot read"):
        read_accuracies(tmp_path / "absent.csv")


def test_compare_divides_by_what_a_pass_reads_or_makes() -> None:
    result = grid.compare(
        [
            prediction("a", seq_len=64, phase="prefill"),
            prediction("a", seq_len=64, phase="decode", past_len=64),
        ]
    )
    prefill, decode = result["rows"]
    assert prefill["energy_per_token_j"] == pytest.approx(prefill["energy_j"] / (8 * 64))
    assert decode["energy_per_token_j"] == pytest.approx(decode["energy_j"] / 8)
    assert result["totals"][0]["energy_j"] == pytest.approx(prefill["energy_j"] + decode["energy_j"])
    assert set(result["bottlenecks"]) == {"a (prefill)", "a (decode)"}


def test_compare_answers_only_from_given_accuracies() -> None:
    models = [prediction(name, batch_size=size) for name, size in (("a", 1), ("b", 4), ("c", 16))]
    result = grid.compare(models, {"a": 70.0, "c": 90.0}, budget_j=1e9, min_accuracy=60.0)
    assert result["without_accuracy"] == ["b"]
    assert result["pareto"] == ["a", "c"]
    assert result["best_under"]["choice"]["model"] == "c"
    assert result["cheapest_above"]["choice"]["model"] == "a"
    assert "pareto" in grid.compare(models) and grid.compare(models)["pareto"] == []


def test_sweep_marks_what_extrapolates() -> None:
    result = grid.sweep([prediction(seq_len=s) for s in (128, 512)])
    assert [c["extrapolates"] for c in result["cells"]] == [False, True]
    low, high = result["cells"][0]["interval_per_sequence_j"]
    assert low < result["cells"][0]["energy_per_sequence_j"] < high


def test_one_odd_node_marks_nothing_and_a_flagged_root_everything() -> None:
    odd, root = prediction(), prediction()
    leaf = next(n for n in odd["nodes"] if n["primitive"] == "Tanh")
    leaf["flags"] = odd["flags"] = ["extrapolates"]
    root["nodes"][0]["flags"] = root["flags"] = ["extrapolates", "uncalibrated"]
    first, second = grid.sweep([odd, root])["cells"]
    whole = sum(n["energy_j"] for n in odd["nodes"] if n["level"] == "ml")
    assert not first["extrapolates"] and first["extrapolating_share"] == pytest.approx(
        leaf["energy_j"] / whole
    )
    assert second["extrapolates"] and second["uncalibrated"]
