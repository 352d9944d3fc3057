"""The journal's file: all or nothing, versions, damage, and nothing left of what never began."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from irene_build.errors import DatasetError, InputError
from irene_build.measure.journal import DERIVED, OBSERVED, Journal, pack, unpack


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "campaign.sqlite"


def test_a_campaign_is_made_whole_or_not_at_all(path: Path) -> None:
    with Journal(path) as journal:
        with pytest.raises(ZeroDivisionError), journal.transaction():
            journal.create({"hardware": "x"})
            journal.insert("work", (0, "k", "n", 1.0, None))
            raise ZeroDivisionError
        assert journal.rows("SELECT name FROM sqlite_master") == []
        assert not journal.has_campaign
    assert not path.exists() and not path.parent.exists()


def test_what_was_written_is_read_back_and_every_documented_table_is_there(path: Path) -> None:
    with Journal(path) as journal:
        journal.create({"hardware": "x", "notes": ["a"]})
        last = journal.insert("power", (1, 5, 0.1, None), (1, 6, 1 / 3, 2.5))
        journal.event(1, "start", {"pid": 7})
        assert last == 2
    with Journal(path, must_exist=True) as journal:
        assert journal.has_campaign and journal.get("notes") == ["a"] and journal.get("none", 3) == 3
        assert journal.rows("SELECT value, meter_s FROM power") == [(0.1, None), (1 / 3, 2.5)]
        assert journal.rows("SELECT kind, detail FROM event") == [("start", '{"pid": 7}')]
        tables = {name for (name,) in journal.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert {*OBSERVED, *DERIVED} == tables
    documented = str(__import__("irene_build.measure.journal", fromlist=["x"]).__doc__)
    for name in (*OBSERVED, *DERIVED):
        assert f"    {name}(" in documented


def test_only_the_one_file_is_left_when_it_is_closed(path: Path) -> None:
    with Journal(path) as journal:
        journal.create({})
        assert {p.name for p in path.parent.iterdir()} > {"campaign.sqlite", "campaign.sqlite.lock"}
    assert [p.name for p in path.parent.iterdir()] == ["campaign.sqlite"]


def test_newer_foreign_and_damaged_files_are_refused_by_name(path: Path, tmp_path: Path) -> None:
    with Journal(path) as journal:
        journal.create({})
        journal.set("version", 99)
    with pytest.raises(DatasetError, match=r"version 99 is newer.*update irene-build"):
        Journal(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE campaign SET value = '\"other\"' WHERE key = 'format'")
    database.close()
    with pytest.raises(DatasetError, match='format is "other"'):
        Journal(path)
    words = tmp_path / "words.sqlite"
    words.write_text("these are only words, and a good many of them\n" * 40)
    with pytest.raises(DatasetError, match="not a usable SQLite file"):
        Journal(words)
    assert words.read_text().startswith("these are only words")
    with pytest.raises(InputError, match="no journal at"):
        Journal(tmp_path / "nothing.sqlite", must_exist=True)


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(InputError, match=r"cannot write in .*(exists|directory); .*--artifacts"):
        Journal(tmp_path / "file" / "campaign.sqlite")
    with pytest.raises(InputError, match=r"cannot open .*folder\.sqlite: unable to open"):
        Journal(tmp_path / "folder.sqlite")
    assert not (tmp_path / "folder.sqlite.lock").exists()


def test_threads_share_a_journal(path: Path) -> None:
    with Journal(path) as journal:
        journal.create({})

        def write(session: int) -> None:
            for number in range(50):
                journal.insert("power", (session, number, 1.0, None))

        threads = [threading.Thread(target=write, args=(session,)) for session in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.rows("SELECT COUNT(*), COUNT(DISTINCT session) FROM power") == [(200, 4)]


def test_trees_are_kept_as_their_text() -> None:
    text = '{"format": "irene-tree", "model": "Größe"}'
    assert unpack(pack(text)) == text and len(pack(text * 100)) < len(text) * 10
