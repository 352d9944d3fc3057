"""What comes from somebody else is data: it names no code that runs, and is bounded."""

from __future__ import annotations

import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from irene_build.cli import main
from irene_build.dataset.from_campaign import dataset_from_campaign
from irene_build.dataset.store import load_dataset
from irene_build.errors import DatasetError, HardwareError, InputError
from irene_build.measure.journal import Journal, pack, unpack
from irene_build.received import inflate, json_of, plain_tables, refuse_factories


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module beside the data that leaves a mark where it is imported."""
    (tmp_path / "evil.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\ndef make(): raise SystemExit(3)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "ran"


def test_a_cell_of_a_table_imports_nothing(
    evil: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("model,batch_size,seq_len,energy_j\nevil:make,1,8,2.0\n")
    assert run("--artifacts", str(tmp_path / "a"), "import", "table", "t.csv", "--hardware", "x") == 2
    error = capsys.readouterr().err
    assert "t.csv names 'evil:make', whose code would run" in error and "--factory evil:make" in error
    assert not evil.exists()


def test_a_journal_from_elsewhere_imports_nothing(
    evil: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "--artifacts", str(tmp_path / "a"), "calibrate", "--hardware", "virtual", "--grid", "2x8", "--budget", "20s",
        "--no-train", "--precision", "0.5", "--model", "tests.measure.toy:model",
    )  # fmt: skip
    assert run(*command, "--stop-after", "1s") in (0, 1, 130)
    path = tmp_path / "a" / "virtual" / "campaign.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        for key, text in database.execute("SELECT id, target FROM tree").fetchall():
            changed = json.dumps({**json.loads(text), "model": "evil:make"})
            database.execute("UPDATE tree SET target = ? WHERE id = ?", (changed, key))
    capsys.readouterr()
    assert run("--artifacts", str(tmp_path / "a"), "calibrate", "--hardware", "virtual", "--resume") == 2
    error = capsys.readouterr().err
    assert "names 'evil:make', whose code would run" in error and "--model evil:make" in error
    assert not evil.exists()


def test_factories_of_the_command_line_and_paths_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a:b").write_text("{}")
    refuse_factories(["bert", "org/model", "m:f", str(tmp_path / "a:b")], "x.csv", ["m:f"], "--factory")
    with pytest.raises(InputError, match=r"x.csv names 'm:g'"):
        refuse_factories(["m:f", "m:g"], "x.csv", ["m:f"], "--factory")


def test_what_was_packed_is_bounded() -> None:
    assert unpack(pack("tree")) == "tree"
    bomb = zlib.compress(b"0" * (64 << 20), 9)
    assert len(bomb) < 100_000
    for blob, says in (
        (bomb, "larger than 16 MiB"),
        (bomb[:50], "cut off"),
        (b"none", "unpacked"),
        (None, "unpacked"),
    ):
        with pytest.raises(DatasetError, match=says):
            inflate(blob, "a tree")
    with pytest.raises(DatasetError, match=r"x is not JSON \(RecursionError\)"):
        json_of("[" * 100_000, "x")


@pytest.mark.parametrize("statement", [
    "CREATE VIEW campaign AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, i FROM n",
    "CREATE TABLE t(x); CREATE TRIGGER r AFTER INSERT ON t BEGIN DELETE FROM t; END",
])  # fmt: skip
def test_views_and_triggers_are_refused_before_they_are_read(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "campaign.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(statement)
        with pytest.raises(DatasetError, match=r"is a (view|trigger)"):
            plain_tables(database, path)
    for read in (load_dataset, Journal):
        with pytest.raises(DatasetError, match=r"is a (view|trigger)"):
            read(path)
    with pytest.raises(InputError):  # either it has no campaign, or a view
        dataset_from_campaign(path)


@pytest.mark.parametrize("where", ["/tmp/elsewhere.txt", "../x.txt", "a/b.txt", ".."])
def test_rejected_lines_go_into_the_hardware_s_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from dataclasses import replace

    from irene_build.hardware import load_profile
    from irene_build.meters import open_meter

    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    profile = load_profile("pc1")
    with pytest.raises(HardwareError, match="give a name alone"):
        open_meter(replace(profile, meter={**profile.meter, "quarantine": where}))
