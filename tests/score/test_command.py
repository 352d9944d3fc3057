"""``irene-build score`` on an exported bundle, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from irene_build import cli
from tests.score import bundles


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    bundles.bundle(folder)
    bundles.log(folder / "log.parquet")
    return folder


def call(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        cli.main(["score", str(folder / "out"), str(folder / "log.parquet"), *arguments])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_totals_as_table_csv_page_and_json(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    tree = ("--tree", str(folder / "small.json"))
    files = ("--csv", str(tmp_path / "t.csv"), "--html", str(tmp_path / "t.html"))
    code, out, err = call(
        capsys,
        folder,
        "-o",
        str(tmp_path / "a"),
        *tree,
        *files,
        "--by",
        "team,batch",
        "--co2",
        "400",
        "--price",
        "0.3",
    )
    assert code == 0 and out.splitlines()[0].split()[:3] == ["team", "batch", "requests"]
    assert "by the log's column" in err and "prompt tokens: negative" in err
    assert (
        len((tmp_path / "t.csv").read_text().splitlines()) == 9
        and "<svg" in (tmp_path / "t.html").read_text()
    )
    code, out, _ = call(capsys, folder, "-o", str(tmp_path / "b"), *tree, "--batch", "4", "--json")
    found = json.loads(out)
    assert code == 0 and found["total"]["requests"] == pq.read_table(tmp_path / "b").num_rows
    assert sum(found["rejected"].values()) == 400 - found["total"]["requests"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--tree", "{folder}/out/trees/tiny-gpt.json"), "is a tree of one size"),
        ((), "no symbolic tree"),
        (("--tree", "{folder}/small.json", "--model", "gpt-4"), "'gpt-4' has no symbolic tree here"),
        (("--tree", "{folder}/small.json", "--column", "prompt=promt"), "did you mean prompt?"),
        (("--tree", "{folder}/small.json", "--by", "hosts"), "--by hosts: the log has no such column"),
        (("--tree", "{folder}/small.json", "--runner", "slurm"), "local, spark, ray"),
        (("--tree", "{folder}/small.json", "--alias", "x"), "expected NAME=MODEL"),
        (("--tree", "{folder}/small.json", "--batch", "0.5"), "--batch 0.5"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, wrong: tuple[str, ...], message: str
) -> None:
    options = [option.format(folder=folder) for option in wrong]
    code, _, err = call(capsys, folder, "-o", str(tmp_path / "a"), *options)
    told = [line for line in err.splitlines() if line.startswith("irene-build:")]
    assert code == 2 and len(told) == 1 and message in told[0]
    assert list(tmp_path.iterdir()) == []
