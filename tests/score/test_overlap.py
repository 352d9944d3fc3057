"""Requests in flight, found by overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from irene_build.score import overlap
from irene_build.score.run import Options, score_logs
from tests.score.synthetic import Formula, loaded


def batches(tmp_path: Path, table: pa.Table, **options: float) -> list[float]:
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=max(1, len(table) // 3))
    score_logs(loaded(), [str(tmp_path / "log.parquet")], tmp_path / "out", Options(force=True, **options))
    return list(pq.read_table(tmp_path / "out")["batch_used"].to_pylist())


def test_the_batch_is_the_mean_number_in_flight_over_the_life_of_a_request(tmp_path: Path) -> None:
    table = pa.table({
        "time": [0.0, 5.0, 0.0, 100.0], "duration": [10.0, 10.0, 10.0, 1.0], "host": ["a", "a", "b", "a"],
        "prompt": [10] * 4, "output": [5] * 4,
    })  # fmt: skip
    assert batches(tmp_path, table) == pytest.approx([1.5, 1.5, 1.0, 1.0])


def test_no_more_than_the_server_takes_at_once(tmp_path: Path) -> None:
    table = pa.table({"time": [0.0] * 9, "end": [1.0] * 9, "prompt": [10] * 9, "output": [5] * 9})
    assert batches(tmp_path, table) == pytest.approx([9.0] * 9)
    assert batches(tmp_path, table, max_batch=4.0) == pytest.approx([4.0] * 9)


def test_without_a_duration_the_predicted_one_is_taken_and_once_more_at_the_batch_found(
    tmp_path: Path,
) -> None:
    table = pa.table({"time": [1.7e9] * 4, "prompt": [100] * 4, "output": [50] * 4})
    assert batches(tmp_path, table) == pytest.approx([4.0] * 4)
    rng = np.random.default_rng(0)
    formula, count = Formula(), 200
    start = np.sort(rng.uniform(0, 40, count)) + 1.7e9
    found = batches(tmp_path, pa.table({"time": start, "prompt": [100] * count, "output": [50] * count}))

    def lives(batch: np.ndarray) -> np.ndarray:
        prefill = formula.passes("prefill", np.array([100]), 1)
        out = []
        for b in batch:
            joules = [5 + 0.02 * b * 100 + 1e-2 * b, *(2 + 0.1 * b + 1e-4 * b * np.arange(100, 149))]
            out.append(1e-2 * 50 + 1e-3 * sum(joules))
        return np.array(out) + 0.0 * prefill[0, 0]

    def mean(durations: np.ndarray) -> np.ndarray:
        ends = start + durations
        own = [
            np.clip(np.minimum(e, ends) - np.maximum(s, start), 0, None).sum() / (e - s)
            for s, e in zip(start, ends, strict=True)
        ]
        return np.array(own)

    assert found == pytest.approx(mean(lives(mean(lives(np.ones(count))))), rel=2e-3)


def test_slices_give_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    count = 400
    table = pa.table({
        "time": rng.permutation(np.round(rng.uniform(0, 60, count), 3)), "host": rng.choice(["a", "b"], count),
        "duration": [None if n % 5 == 0 else float(n % 4) for n in range(count)],
        "prompt": [10] * count, "output": [5] * count,
    })  # fmt: skip
    whole = batches(tmp_path, table)
    monkeypatch.setattr(overlap, "SLICE_ROWS", 37)
    assert batches(tmp_path, table) == pytest.approx(whole, rel=1e-6) and max(whole) > 3.0


def test_a_row_without_a_moment_is_rejected(tmp_path: Path) -> None:
    pq.write_table(
        pa.table(
            {"time": ["2024-02-31 00:00:00", "soon", "2024-02-01"], "prompt": [1] * 3, "output": [1] * 3}
        ),
        tmp_path / "a.parquet",
    )
    found = score_logs(loaded(), [str(tmp_path / "a.parquet")], tmp_path / "out", Options())
    assert found["rejected"] == {"time: no moment that can be read": 2} and found["total"]["requests"] == 1
