"""Logs of every kind into one form: what is kept, what is rejected, what is left when a run breaks off."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from irene_build.errors import DatasetError, InputError
from irene_build.score import parts, pieces
from irene_build.score.loaded import Loaded
from irene_build.score.run import Options, score_logs
from tests.score.synthetic import DIGEST, Formula, loaded

FORMULA = Formula()


def scored(out: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(out).to_pylist())


def rejects(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / parts.REJECTS).read_text().splitlines()]


def run(tmp_path: Path, *names: str, have: Loaded | None = None, **options: Any) -> dict[str, Any]:
    return score_logs(
        have or loaded(), [str(tmp_path / n) for n in names], tmp_path / "out", Options(**options)
    )


def test_rows_keep_their_columns_and_get_joules(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": [100, 900],
            "output": [10, 0],
            "team": ["a", "b"],
            "at": pa.array([1, 2], pa.timestamp("ns")),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    result = run(tmp_path, "log.parquet")
    first, second = scored(tmp_path / "out")
    assert pq.read_table(tmp_path / "out").select(table.schema.names).equals(table)
    assert first["energy_j"] == pytest.approx(FORMULA.request_j(100, 10), rel=1e-3)
    assert first["energy_j"] == first["prefill_energy_j"] + first["decode_energy_j"]
    assert first["energy_low_j"] == pytest.approx(0.8 * first["energy_j"]) and first["batch_used"] == 1.0
    assert (first["flags"], second["flags"]) == ("", "failed") and second["decode_energy_j"] == 0.0
    assert first["estimator_digest"] == DIGEST
    assert result["total"]["requests"] == 2 and result["rejected"] == {}
    assert json.loads((tmp_path / "out" / parts.TOTALS).read_text())["total"] == result["total"]


def test_every_format_gives_the_same_joules(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = pa.table({"prompt": rng.integers(1, 3000, 500), "output": rng.integers(0, 400, 500)})
    pq.write_table(table, tmp_path / "a.parquet")
    pa_csv.write_csv(table, tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    found = []
    for name in ("a.parquet", "a.csv", "a.jsonl"):
        run(tmp_path, name, force=True)
        found.append(pq.read_table(tmp_path / "out").select(["energy_j", "energy_high_j", "flags"]))
    assert found[0].equals(found[1]) and found[0].equals(found[2])


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,GPT-4,374,44,418,API log\n"
)
OPENAI = {
    "id": "x",
    "created": 1700000000,
    "model": "GPT-4",
    "usage": {"prompt_tokens": 374, "completion_tokens": 44},
}
VLLM = {
    "gen_ai.response.model": "GPT-4", "gen_ai.usage.prompt_tokens": 374, "gen_ai.usage.completion_tokens": 44,
    "gen_ai.latency.e2e": 2.5, "start_time": 1700000000.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "name", "text"),
    [
        ("azure-2023", "a.csv", AZURE + "2023-11-16 18:17:03.9799600,374,44\n"),
        ("azure-2024", "a.csv", AZURE + "2024-05-10 00:00:00.009930+00:00,374,44\n"),
        ("burstgpt", "a.csv", BURSTGPT),
        ("openai", "a.jsonl", json.dumps(OPENAI) + "\n"),
        ("vllm", "a.jsonl", json.dumps(VLLM) + "\n"),
    ],
)
def test_public_logs_are_known_by_their_preset(tmp_path: Path, preset: str, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    result = run(tmp_path, name, preset=preset, aliases={"GPT-4": "m"})
    (row,) = scored(tmp_path / "out")
    assert row["energy_j"] == pytest.approx(FORMULA.request_j(374, 44), rel=1e-3)
    assert result["concurrency"] == "overlap" and row["batch_used"] == 1.0
    if name.endswith("csv"):
        names, values = text.split()[0].split(","), text.splitlines()[1].split(",")
        assert [row[n] for n in text.splitlines()[0].split(",")] == values and names
    else:
        assert json.loads(text).items() <= row.items()


def test_failed_requests_are_charged_their_prompt_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,output\n500,0\n0,0\n")
    energies = []
    for failed in ("prefill", "nothing"):
        run(tmp_path, "a.csv", failed=failed, force=True)
        energies.append([row["energy_j"] for row in scored(tmp_path / "out")])
    assert energies[0] == [pytest.approx(FORMULA.request_j(500, 0), rel=1e-3), 0.0] and energies[1] == [
        0.0,
        0.0,
    ]


def test_wrong_rows_go_to_the_rejects_with_the_reason(tmp_path: Path) -> None:
    lines = (
        "m,5,1,1 m,-5,1,1 m,x,1,1 m,,1,1 m,5,1 m,5,1.5,1 q,5,1,1 m,5,1,0 m,0,3,1 m,9e9,1,1 m,999999999,1,1"
    )
    (tmp_path / "a.csv").write_text("\n".join(["model,prompt,output,batch", *lines.split(), "m,7.0,1,1", ""]))
    result = run(tmp_path, "a.csv")
    assert [row["prompt"] for row in scored(tmp_path / "out")] == ["5", "7.0"]
    reasons = [
        (entry["reason"], entry["row"]["prompt"])
        for entry in rejects(tmp_path / "out")
        if isinstance(entry["row"], dict)
    ]
    assert reasons == [
        ("prompt tokens: negative", "-5"), ("prompt tokens: not a whole number", "x"), ("prompt tokens: missing", ""),
        ("output tokens: not a whole number", "5"), ("model 'q' has no symbolic tree", "5"),
        ("batch: not a number from 1 to 65,536", "5"), ("output tokens without a prompt", "0"),
        ("prompt tokens: not a whole number", "9e9"), ("more than 1,048,576 tokens", "999999999"),
    ]  # fmt: skip
    assert result["rejected"]["3 columns, expected 4"] == 1 and sum(result["rejected"].values()) == 10


def test_a_request_longer_than_its_model_takes_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,output\n900,100\n900,201\n1001,1\n1000,1\n")
    result = run(tmp_path, "a.csv", have=loaded(m=Formula(end=1000)))
    assert [row["prompt"] for row in scored(tmp_path / "out")] == ["900", "1000"]
    assert result["rejected"] == {"more tokens than the model's tree goes to": 2}


def test_wrong_lines_of_json_are_rejected_alone(tmp_path: Path) -> None:
    lines = [
        '{"prompt": 5, "output": 1, "t": "a"}',
        "{",
        "[1]",
        '{"prompt": "x", "output": 1}',
        '{"prompt": 6, "output": 1, "t": 3}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:1] * 3 + lines) + "\n")
    (tmp_path / "b.jsonl").write_text(lines[0] + "\n" + lines[-1] + "\n")
    (tmp_path / "c.jsonl").write_text(
        '{"prompt": 5, "output": 1}\n' * 200_000 + '{"prompt": "x", "output": 1}\n'
    )
    run(tmp_path, "a.jsonl", "b.jsonl")
    assert [row["prompt"] for row in scored(tmp_path / "out")] == ["5", "5", "5", "5", "6", "5", "6"]
    assert [e["reason"] for e in rejects(tmp_path / "out")] == [
        "not JSON",
        "not a JSON object",
        "prompt tokens: not a whole number",
    ]
    result = run(tmp_path, "c.jsonl", force=True)
    assert result["total"]["requests"] == 200_000 and result["rejected"] == {'prompt: "x" is not int64': 1}


def test_folders_by_day_patterns_and_totals(tmp_path: Path) -> None:
    for day, model in (("2024-05-10", "a"), ("2024-05-11", "a"), ("2024-05-11", "b")):
        folder = tmp_path / "log" / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.table({"model": [model] * 3, "prompt": [100, 200, 300], "output": [9, 8, 7]}),
            folder / f"{model}.parquet",
        )
    have = loaded(a=Formula(), b=Formula(scale=3.0))
    from irene_build.score.totals import Rates

    result = run(tmp_path, "log", have=have, by=("day",), rates=Rates(g_per_kwh=400.0, price=0.3))
    assert [(row["day"], row["requests"]) for row in result["rows"]] == [("2024-05-11", 6), ("2024-05-10", 3)]
    first, total = result["rows"][0], result["total"]
    a, b = result["rows"][1]["energy_j"], result["rows"][1]["energy_j"] * 3.0
    assert first["energy_j"] == pytest.approx(a + b)
    # Within a model the ends add up; between models half-widths add as squares.
    assert first["energy_low_j"] == pytest.approx(first["energy_j"] - 0.2 * (a**2 + b**2) ** 0.5)
    assert total["energy_high_j"] == pytest.approx(total["energy_j"] + 0.3 * ((2 * a) ** 2 + b**2) ** 0.5)
    assert total["co2_g"] == pytest.approx(400.0 * total["energy_j"] / 3.6e6)
    assert run(tmp_path, "log/*/a.parquet", have=have, force=True)["total"]["requests"] == 6


def test_a_day_is_told_from_the_time_where_no_column_says_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "time,prompt,output\n2024-05-10 23:59:59.1234567,5,1\n2024-05-11T00:00:00+01:00,5,1\n1715385600,5,1\n"
    )
    rows = run(tmp_path, "a.csv", by=("day", "model"))["rows"]
    assert {(row["day"], row["model"], row["requests"]) for row in rows} == {
        ("2024-05-10", "m", 2),
        ("2024-05-11", "m", 1),
    }


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"PAR1 half a file", "a.parquet", "is not a whole Parquet file"),
        (b"prompt,tokens\n1,2\n", "a.csv", "no column of output tokens"),
        (
            b"TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n",
            "a.csv",
            "say --preset azure-2023 or --preset azure-2024",
        ),
        (b"prompt,output\n", "a.csv", "holds no row"),
        (b"prompt,output\n-1,2\n", "a.csv", "no row could be scored: prompt tokens: negative"),
        (b"prompt,output,energy_j\n1,2,3\n", "a.csv", "'energy_j' already"),
        (b"[{}]", "a.json", "one JSON array"),
        (b"", "a.txt", "the name says no format"),
    ],
)
def test_wrong_input_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, content: bytes, name: str, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((InputError, DatasetError), match=message) as told:
        run(tmp_path, name)
    assert "\n" not in str(told.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_model_without_a_tree_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,output\n1,2\n")
    with pytest.raises(InputError, match="'q' has no symbolic tree here"):
        run(tmp_path, "a.csv", model="q")


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,output\n1,2\n")
    run(tmp_path, "a.csv")
    with pytest.raises(InputError, match="is there already"):
        run(tmp_path, "a.csv")
    run(tmp_path, "a.csv", force=True)
    (tmp_path / "out" / parts.TOTALS).unlink()
    with pytest.raises(InputError, match="is left alone"):
        run(tmp_path, "a.csv", force=True)


def test_a_damaged_page_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    table = pa.table({"prompt": np.arange(1, 5001), "output": np.arange(5000)})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[100:2000] = bytes(1900)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.parquet") as told:
        run(tmp_path, "a.parquet")
    assert "\n" not in str(told.value) and [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


CODE = """
import pathlib, sys
sys.path.insert(0, ".")
from irene_build.errors import IreneError
from irene_build.score.run import Options, score_logs
from tests.score.synthetic import loaded
try:
    score_logs(loaded(), [sys.argv[1]], pathlib.Path(sys.argv[2]), Options(workers=1))
except IreneError as error:
    print(error.exit_code, error)
"""


def test_a_full_disk_is_one_line_and_the_next_run_goes_on_with_the_parts_that_stand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "log").mkdir()
    for name, rows in (("a", 5), ("b", 50_000)):
        table = pa.table({"prompt": rng.integers(1, 9000, rows), "output": rng.integers(0, 900, rows)})
        pq.write_table(table, tmp_path / "log" / f"{name}.parquet")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path / "log", tmp_path / "out"],
        capture_output=True, text=True, preexec_fn=limit,
    )  # fmt: skip
    assert done.stdout.startswith("1 cannot write") and "make room" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1 and not (tmp_path / "out").exists()
    left = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out.unfinished").iterdir()}
    assert set(left) == {"_run.json", "part-000000.parquet", "part-000000.json"}
    assert run(tmp_path, "log", workers=1)["total"]["requests"] == 50_005
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert set(kept) == {"_totals.json", "part-000000.parquet", "part-000001.parquet"}
    assert kept["part-000000.parquet"] == left["part-000000.parquet"]
    assert not (tmp_path / "out.unfinished").exists()


def test_large_text_files_are_cut_at_line_ends_outside_of_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "TEXT_BYTES", 64)
    lines = [f'{n},{n % 7},"a\n{n}"\n' for n in range(1, 60)]
    (tmp_path / "a.csv").write_text("prompt,output,note\n" + "".join(lines))
    result = run(tmp_path, "a.csv", have=loaded())
    rows = scored(tmp_path / "out")
    assert [row["note"] for row in rows] == [f"a\n{n}" for n in range(1, 60)] and result["rejected"] == {}
    assert len(list((tmp_path / "out").glob("*.parquet"))) > 10
