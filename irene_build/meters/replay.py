"""A recorded campaign as a meter: its raw readings again, in real time or as fast as they are read."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from irene_build.errors import HardwareError
from irene_build.meters.base import MeterInfo, Reading
from irene_build.meters.threaded import FeedMeter


class ReplayMeter(FeedMeter):
    """Settings: ``file`` (a campaign's SQLite journal), ``session`` (default: its longest), ``speed``.

    ``speed``: 1 is real time, 0 as fast as possible. Times are moved so that the first reading is now; what
    the joules were (boundary, provenance) stays as it was recorded.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = config
        self._speed = float(config.get("speed", 1.0))
        if not (math.isfinite(self._speed) and self._speed >= 0.0):
            raise HardwareError(f"meter.speed {self._speed!r}: 1 is real time, 0 is as fast as possible")
        self._recorded: MeterInfo | None = None
        self._rows: list[tuple[int, float, float | None]] = []
        self._next = 0
        self._start_ns = 0

    @property
    def info(self) -> MeterInfo:
        file = str(self._config.get("file", "?"))
        if self._recorded is None:
            return MeterInfo("replay", file, "power", "unknown", "unknown", 0.170, 0.0, "unknown", {})
        was = self._recorded
        details = {**was.details, "replayed": was.name, "readings": len(self._rows)}
        return MeterInfo(
            **{**was.as_dict(), "name": "replay", "source": f"{was.source}, as in {file}", "details": details}
        )

    def _open(self) -> None:
        if not self._config.get("file"):
            raise HardwareError("replay: name the journal of a campaign as meter.file in the profile")
        path = Path(str(self._config["file"]))
        if not path.is_file():
            raise HardwareError(f"replay: there is no {path}")
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            session = self._config.get("session")
            if session is None:
                found = database.execute(
                    "SELECT session FROM power GROUP BY session ORDER BY count(*) DESC LIMIT 1"
                ).fetchone()
                session = found[0] if found else -1
            head = database.execute("SELECT meter FROM session WHERE id = ?", (session,)).fetchone()
            self._rows = database.execute(
                "SELECT host_ns, value, meter_s FROM power WHERE session = ? ORDER BY host_ns", (session,)
            ).fetchall()
            if head is None or not self._rows:
                raise HardwareError(f"replay: {path} has no readings of session {session}")
            self._recorded = _info(json.loads(head[0]))
            self._rows = [_row(*row) for row in self._rows]
        except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
            raise HardwareError(f"replay: {path} is not a campaign's journal: {error}") from None
        finally:
            database.close()
        self._next, self._start_ns = 0, time.monotonic_ns()

    def _close(self) -> None:
        pass

    def _step(self) -> None:
        if self._next >= len(self._rows):
            self._finish()
            return
        host_ns, value, meter_s = self._rows[self._next]
        after = host_ns - self._rows[0][0]
        if self._speed:
            due = self._start_ns + round(after / self._speed)
            left = (due - time.monotonic_ns()) / 1e9
            if left > 0:
                self._stop.wait(min(left, 0.2))
                return
        self._next += 1
        self._emit(Reading(self._start_ns + round(after / (self._speed or 1.0)), value, meter_s))


def _info(recorded: Mapping[str, Any]) -> MeterInfo:
    """ValueError or TypeError where it is not what a session holds."""
    info = MeterInfo(**recorded)
    if info.kind not in ("power", "energy") or not isinstance(info.details, Mapping):
        raise ValueError(f"a session's meter gives {info.kind!r}")
    return replace(
        info,
        period_s=_number(info.period_s),
        quantum=_number(info.quantum),
        window_s=_number(info.window_s),
    )


def _row(host_ns: Any, value: Any, meter_s: Any) -> tuple[int, float, float | None]:
    if not isinstance(host_ns, int):
        raise ValueError(f"a reading's time is {host_ns!r:.40}")
    return host_ns, _number(value), None if meter_s is None else _number(meter_s)


def _number(value: Any) -> float:
    """SQLite keeps whatever it is given in any column."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)
