"""A campaign in a process of its own, with the real drivers, on a PC whose power a test knows.

The process runs nodes that draw set watts for set times (they sleep, so that a busy machine changes nothing),
and writes down when it drew what: the power curve, a file that it shares with the test. The test plays the meter
from that curve on a real wire, and can hold the process at a point of its choice to provoke a fault there.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irene_build.measure.journal import Journal
from irene_build.measure.relabel import relabel, stored
from tests.measure.curve import Curve, true_ns

_ROOT = Path(__file__).resolve().parents[2]
#: Runs what follows so that files' permissions hold for root as well: without CAP_DAC_OVERRIDE and
#: CAP_DAC_READ_SEARCH, dropped from the bounding set (PR_CAPBSET_DROP).
_ORDINARY = (
    sys.executable, "-I", "-c",
    "import ctypes, os, sys; drop = ctypes.CDLL(None).prctl\n"
    "if os.geteuid() == 0: drop(24, 1, 0, 0, 0), drop(24, 2, 0, 0, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])",
)  # fmt: skip
#: What may spoil any trial on a busy machine: threads that starve look like a silent meter or a stopped process.
STARVED = {"gap in the meter", "stalled", "slower than its warm-up", "standby gate", "swapped"}
#: Power while the machine sleeps.
SLEEP_W = 2.0


class Feeder:
    """Plays a meter in a thread: ``emit`` is given the time since its start, s, and the mean power of a frame, W.

    Frames end at their due times to the nanosecond; what is late is only when they are sent. ``silent``: nothing
    is sent. ``asleep``: the machine sleeps. ``clock_ahead_s`` is added to the meter's clock, which gains
    ``drift`` seconds a second; ``began_s`` is the host's time at its zero.
    """

    def __init__(
        self, curve: Curve, emit: Callable[[float, float], None], period_s: float = 0.02, drift: float = 0.0
    ) -> None:
        self.curve, self.period_s, self._emit, self._drift = curve, period_s, emit, drift
        self.began_s = 0.0
        self.silent = self.asleep = False
        self.clock_ahead_s = 0.0
        self.frames = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self, frames: int) -> None:
        """Until so many more frames are over."""
        end = self.frames + frames
        while self.frames < end:
            time.sleep(self.period_s / 4.0)

    def _run(self) -> None:
        start = due = true_ns()
        self.began_s = time.monotonic()
        told = self.curve.joules_at(due)
        while not self._stop.is_set():
            due += round(self.period_s * 1e9)
            time.sleep(max(0.0, (due - true_ns()) / 1e9))
            # What the process writes down late is in the next frame: no joule is lost.
            before, told = told, self.curve.joules_at(due)
            watts = (told - before) / self.period_s
            if not self.silent:
                clock = (1.0 + self._drift) * (due - start) / 1e9 + self.clock_ahead_s
                self._emit(clock, SLEEP_W if self.asleep else watts)
            self.frames += 1


class Rig:
    """The test's side of a campaign. ``meter`` is the profile's table; ``settings`` change its protocol."""

    def __init__(
        self,
        folder: Path,
        meter: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        held: Sequence[int] = (),
        **more: Any,
    ) -> None:
        self.folder, self.path = folder, folder / "campaign.sqlite"
        self.curve = Curve(folder / "curve", create=True)
        self.environment: dict[str, str] = dict(os.environ)
        self._spec = {
            "journal": str(self.path), "curve": str(folder / "curve"), "meter": dict(meter),
            "settings": dict(settings or {}), "held": list(held), **more,
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **changes: Any) -> subprocess.Popen[bytes]:
        """Begin the campaign or go on with it; ``changes`` to its specification."""
        self._spec.update(changes)
        if "journal" in changes:
            self.path = Path(changes["journal"])
        file = self.folder / "spec.json"
        file.write_text(json.dumps(self._spec))
        self.curve.nothing_held()
        command = [sys.executable, "-m", "tests.measure.rig_process", str(file)]
        self.process = subprocess.Popen(
            [*(_ORDINARY if changes.get("ordinary_user") else ()), *command],
            cwd=_ROOT, env=self.environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        return self.process

    @contextmanager
    def at(self, window: int) -> Iterator[subprocess.Popen[bytes]]:
        """Hold the process in the middle of its ``window``-th measured window, counted from 0."""
        assert self.process is not None
        while self.curve.held < window:
            if self.process.poll() is not None:
                raise AssertionError(self._end())
            time.sleep(0.002)
        yield self.process
        self.curve.release(window)

    @contextmanager
    def after(self, accepted: int, window: int = 0) -> Iterator[subprocess.Popen[bytes]]:
        """Hold the process in the first window, from ``window`` on, that begins after so many trials count.

        All these windows must be ``held``: how many a busy machine needs for that is not known.
        """
        while True:
            with self.at(window) as process:
                if sum(trial[2] for trial in trials(self)) >= accepted:
                    yield process
                    return
            window += 1

    def finish(self) -> str:
        """Wait for the end; gives what the process said. It must have finished its campaign."""
        text = self._end()
        assert self.process is not None and self.process.returncode == 0, text
        assert text.endswith("finished\n") and "unfinished" not in text, text
        return text

    def fails(self) -> str:
        """Wait for the end, which is an error; gives its text."""
        text = self._end()
        assert self.process is not None and self.process.returncode == 1, text
        return text

    def _end(self) -> str:
        assert self.process is not None
        try:
            out, err = self.process.communicate(timeout=120.0)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return (err + out).decode()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


def labels_are_true(rig: Rig, rel: float = 0.03, all_works: bool = True) -> None:
    """Every distinct node has its label, from a trial that counts, and it is what the PC drew in that window.

    Without ``all_works``, of a campaign that was broken off: those that have a trial that counts.
    """
    if not all_works:
        with Journal(rig.path) as journal:
            relabel(journal)
    found = rows(
        rig,
        "SELECT start_ns, end_ns, runs, energy_j, work, accepted FROM label"
        " JOIN trial ON trial.id = label.trial",
    )
    query = "SELECT id FROM work" if all_works else "SELECT DISTINCT work FROM trial WHERE accepted"
    assert {work for *_, work, _ in found} == {work for (work,) in rows(rig, query)}
    assert found and all(row[5] for row in found)
    for start, end, runs, energy, *_ in found:
        true = rig.curve.between(start, end)
        assert abs(energy * runs / true - 1.0) < rel, (energy * runs, true)


def rows(rig: Rig, query: str) -> list[tuple[Any, ...]]:
    """Of the journal, also while the process writes it."""
    database = sqlite3.connect(f"file:{rig.path}?mode=ro", uri=True)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def events(rig: Rig, kind: str) -> list[dict[str, Any]]:
    return [json.loads(d) for d, k in rows(rig, "SELECT detail, kind FROM event ORDER BY rowid") if k == kind]


def trials(rig: Rig) -> list[tuple[int, int, int, list[str]]]:
    """work, attempt, accepted, reasons; in their order."""
    found = rows(rig, "SELECT work, attempt, accepted, reasons FROM trial ORDER BY id")
    return [(work, attempt, accepted, json.loads(reasons)) for work, attempt, accepted, reasons in found]


def relabels_to_the_bit(rig: Rig) -> None:
    with Journal(rig.path) as journal:
        before = stored(journal)
        journal.replace_derived({"label": [], "result": [], "clock": []})
        assert relabel(journal) == before == stored(journal) and before.label
