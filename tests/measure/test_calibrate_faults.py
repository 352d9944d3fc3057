"""`irene-build calibrate` as a user runs it, on a bad day: a bad line, a lid that is closed, a clock that jumps.

The nodes are a real model's on this machine's processor. The meter is a serial line on which the simulated PC's
power, computed from this machine's real load, is played; the player writes down what it played.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irene_build.cli import main
from irene_build.hardware import load_profile
from irene_build.hardware.virtual_pc import Model, cpu_shares, frame
from tests.clocks import ShiftedClocks
from tests.measure.rig import SLEEP_W
from tests.measure.wires import DIALECT, Line, spoiled

_ROOT = Path(__file__).resolve().parents[2]
PERIOD_S, SLEPT_S = 0.04, 7200.0
#: All of a trial but whether it counts, which a better attempt may take from it.
FINISHED = "SELECT id, work, attempt, start_ns, end_ns, runs, idle_start_ns, reasons FROM trial ORDER BY id"
PROFILE = """\
name = "desk"
description = "a PC that a test plays"
device = "cpu"
[meter]
driver = "emonpi"
port = "PORT"
baud = 115200
grammar = "pattern"
pattern = 'DIALECT'
period_s = 0.04
"""


class Player:
    """The simulated PC on a line, in a thread; ``true_j`` is what it drew, without the meter's steps."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._model = Model(dict(load_profile("virtual").meter["model"]))
        self.silent = False
        self.clock_ahead_s = 5.0
        self._times, self._joules = [time.monotonic_ns()], [0.0]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Player:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def true_j(self, start_ns: int, end_ns: int) -> float:
        first, last = np.interp([start_ns, end_ns], self._times, self._joules)
        return float(last - first)

    def _run(self) -> None:
        start, ticks, number = time.monotonic(), cpu_shares(), 0
        while not self._stop.wait(PERIOD_S):
            before, ticks, now = ticks, cpu_shares(), time.monotonic_ns()
            total = max(1, ticks[2] - before[2])
            user, system = (min(1.0, max(0, ticks[i] - before[i]) / total) for i in (0, 1))
            seconds = (now - self._times[-1]) / 1e9
            watts = SLEEP_W if self.silent else self._model.wall_w(user, system, seconds)
            self._joules.append(self._joules[-1] + watts * seconds)
            self._times.append(now)
            sent = frame(now / 1e9 - start + self.clock_ahead_s, 120.0, watts / 120.0)
            if not self.silent:
                self._line.send(spoiled(number, sent))
            number += 1


def journal(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """Of the campaign that is being written; nothing as long as there is none."""
    try:
        database = sqlite3.connect(f"file:{folder / 'desk' / 'campaign.sqlite'}?mode=ro", uri=True)
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()
    except sqlite3.OperationalError:
        return []


def until(process: subprocess.Popen[bytes], folder: Path, query: str) -> None:
    end = time.monotonic() + 120.0
    while not journal(folder, query):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, query
        time.sleep(0.02)


def test_a_calibration_that_is_sent_to_sleep_with_a_bad_line_and_a_wall_clock_that_jumps(
    line: Line, shifted_clocks: ShiftedClocks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "desk").mkdir()
    profile = PROFILE.replace("PORT", str(line.port)).replace("DIALECT", DIALECT)
    (tmp_path / "desk" / "hardware.toml").write_text(profile)
    command = [
        sys.executable, "-m", "irene_build.cli", "--artifacts", str(tmp_path), "calibrate", "--hardware", "desk",
        "--model", "tests.measure.toy:model", "--grid", "2x8", "--no-train", "--precision", "0.5",
        "--budget", "12s", "--threads", "1", "--json",
    ]  # fmt: skip
    with Player(line) as player:
        process = subprocess.Popen(
            command, cwd=_ROOT, env=shifted_clocks.environment(), start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

        def close_the_lid() -> None:
            player.silent = True

        until(process, tmp_path, "SELECT 1 FROM trial")
        shifted_clocks.set_wall(-3600.0)
        before = journal(tmp_path, FINISHED)
        # Wherever in a trial that falls: most of the time there is one.
        for sleeps in range(1, 6):
            player.clock_ahead_s += SLEPT_S - shifted_clocks.sleep(process, SLEPT_S, 0.3, close_the_lid)
            player.silent = False
            until(process, tmp_path, f"SELECT 1 FROM trial LIMIT 1 OFFSET {len(before) + sleeps}")
            if journal(tmp_path, "SELECT 1 FROM trial WHERE reasons LIKE '%suspended%'"):
                break
        out, err = process.communicate(timeout=120.0)
    assert process.returncode == 0, err.decode()
    result = json.loads(out)
    assert result["finished"] and result["labelled"] == result["works"] == 3
    assert any(f"{SLEPT_S * sleeps:.0f} s in all" in note for note in result["notes"])
    assert journal(tmp_path, FINISHED)[: len(before)] == before
    events = journal(tmp_path, "SELECT kind, detail FROM event ORDER BY rowid")
    slept = [json.loads(detail)["for_s"] for kind, detail in events if kind == "suspended"]
    assert slept == pytest.approx([SLEPT_S] * sleeps, abs=0.5)
    assert [round(json.loads(d)["by_s"]) for kind, d in events if kind == "wall clock set"] == [-3600]
    hit = journal(tmp_path, "SELECT accepted, reasons FROM trial WHERE reasons LIKE '%suspended%'")
    assert hit and not any(accepted for accepted, _ in hit)
    query = "SELECT start_ns, end_ns, runs, energy_j FROM label JOIN trial ON trial.id = label.trial"
    for start, end, runs, energy in journal(tmp_path, query):
        true = player.true_j(*map(shifted_clocks.true_ns, (start, end)))
        assert energy * runs == pytest.approx(true, rel=0.15)
    assert {"torn", "undecodable", "duplicated"} <= set(result_faults(events))
    with pytest.raises(SystemExit) as caught:
        main(["--artifacts", str(tmp_path), "relabel", "--hardware", "desk", "--check"])
    assert caught.value.code == 0 and "to the bit" in capsys.readouterr().out


def result_faults(events: list[tuple[Any, ...]]) -> set[str]:
    """Names of what the meter counted."""
    return {name for kind, detail in events if kind == "meter faults" for name in json.loads(detail)}
