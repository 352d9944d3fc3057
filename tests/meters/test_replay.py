"""A recorded campaign as a meter."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from irene_build.errors import HardwareError
from irene_build.meters.base import MeterInfo
from irene_build.meters.replay import ReplayMeter
from tests.meters.wire import collect

INFO = MeterInfo(
    "virtual", "simulated PC", "power", "wall", "simulated", 0.17, 0.12, "apparent", {"port": "p"}, 0.17
)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Two sessions: a short one, and one of 20 readings, 50 ms apart."""
    path = tmp_path / "campaign.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE session(id INTEGER PRIMARY KEY, meter TEXT)")
        database.execute("CREATE TABLE power(session INTEGER, host_ns INTEGER, value REAL, meter_s REAL)")
        for session in (1, 2):
            database.execute("INSERT INTO session VALUES(?, ?)", (session, json.dumps(INFO.as_dict())))
        database.execute("INSERT INTO power VALUES(1, 5, 1.0, NULL)")
        rows = [(2, 10**12 + 50_000_000 * i, 100.0 + i, 3.0 + 0.05 * i) for i in range(20)]
        database.executemany("INSERT INTO power VALUES(?, ?, ?, ?)", rows)
    database.close()
    return path


def test_its_readings_come_again_and_say_what_they_were(journal: Path) -> None:
    before = time.monotonic_ns()
    with ReplayMeter({"file": str(journal), "speed": 0}) as meter:
        readings = collect(meter, 20)
        info = meter.info
        assert meter.read_new(0.2) == []
    assert [r.value for r in readings] == [100.0 + i for i in range(20)]
    assert readings[3].meter_time_s == pytest.approx(3.15)
    assert readings[-1].host_time_ns - readings[0].host_time_ns == 19 * 50_000_000
    assert readings[0].host_time_ns >= before
    assert (info.name, info.provenance, info.boundary, info.window_s) == ("replay", "simulated", "wall", 0.17)
    assert info.details["replayed"] == "virtual"


def test_in_real_time_no_reading_comes_early(journal: Path) -> None:
    with ReplayMeter({"file": str(journal), "speed": 4.0}) as meter:
        readings = collect(meter, 10)
        now = time.monotonic_ns()
    assert all(r.host_time_ns <= now for r in readings)
    assert readings[9].host_time_ns - readings[0].host_time_ns == 9 * 50_000_000 // 4


def test_a_session_can_be_named(journal: Path) -> None:
    with ReplayMeter({"file": str(journal), "session": 1}) as meter:
        assert [r.value for r in collect(meter, 1)] == [1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"meter\.file"),
        ({"file": "nowhere.sqlite"}, "there is no nowhere"),
        ({"session": 9}, "no readings of session 9"),
        ({"speed": -1.0}, r"meter\.speed"),
    ],
)
def test_what_cannot_be_replayed_is_told(journal: Path, settings: dict[str, Any], message: str) -> None:
    config = settings if not settings or "file" in settings else {"file": str(journal), **settings}
    with pytest.raises(HardwareError, match=message):
        ReplayMeter(config).__enter__()


def test_a_file_that_is_no_journal_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("twelve watts, or so\n" * 50)
    with pytest.raises(HardwareError, match="not a campaign's journal"):
        ReplayMeter({"file": str(path)}).__enter__()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE power SET value = 'many' WHERE rowid = (SELECT MAX(rowid) FROM power)",
        "UPDATE power SET value = 9e999 WHERE rowid = (SELECT MAX(rowid) FROM power)",
        "UPDATE power SET host_ns = 'soon' WHERE rowid = (SELECT MAX(rowid) FROM power)",
        "UPDATE power SET meter_s = x'00' WHERE rowid = (SELECT MAX(rowid) FROM power)",
        "UPDATE session SET meter = '[]'",
        "UPDATE session SET meter = json_set(meter, '$.kind', 'hope')",
        "UPDATE session SET meter = json_set(meter, '$.period_s', 'short')",
    ],
)
def test_a_damaged_recording_is_told_and_gives_no_reading(journal: Path, damage: str) -> None:
    with sqlite3.connect(journal) as database:
        database.execute(damage)
    database.close()
    with pytest.raises(HardwareError, match="is not a campaign's journal"):
        ReplayMeter({"file": str(journal)}).__enter__()
