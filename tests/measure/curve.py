"""The power of a PC that a test plays: a file that the campaign's process and the test both map."""

from __future__ import annotations

import mmap
import threading
import time
from pathlib import Path

import numpy as np

_POINT = np.dtype([("true_ns", "<i8"), ("host_ns", "<i8"), ("joules", "<f8"), ("watts", "<f8")])
_POINTS = 200_000
IDLE_W, PULSE_W = 40.0, 100.0


def node_watts(node: int) -> float:
    return IDLE_W + 12.0 + 8.0 * node


class Curve:
    """The power curve and the place where the process is held: a file mapped by both sides.

    Points are appended when the power changes, with the true time (which no test shifts) and the host's.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        size = 64 + _POINTS * _POINT.itemsize
        if create:
            with path.open("wb") as file:
                file.truncate(size)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._points = np.frombuffer(self._map, dtype=_POINT, count=_POINTS, offset=64)
        # Points so far; the window in which the process is held; the last one it was let go in. Each is written by
        # one side only, and each in one store, since the other side reads at any time.
        self._header = np.frombuffer(self._map, dtype="<i8", count=3)
        self._lock = threading.Lock()
        if create:
            self.nothing_held()
            self.set(IDLE_W)

    @property
    def count(self) -> int:
        return int(self._header[0])

    @property
    def held(self) -> int:
        return int(self._header[1])

    def nothing_held(self) -> None:
        """Before a process starts."""
        self._header[1:] = -1

    def set(self, watts: float) -> None:
        with self._lock:
            now, host = true_ns(), time.monotonic_ns()
            count = self.count
            joules = self.joules_at(now) if count else 0.0
            self._points[count] = (now, host, joules, watts)
            self._header[0] = count + 1

    def joules_at(self, when_ns: int) -> float:
        """True joules since the beginning, at a true time."""
        points = self._points[: self.count]
        last = max(0, int(np.searchsorted(points["true_ns"], when_ns, side="right")) - 1)
        point = points[last]
        return float(point["joules"] + point["watts"] * (when_ns - point["true_ns"]) / 1e9)

    def joules(self) -> float:
        """True joules until now."""
        return self.joules_at(true_ns())

    def between(self, start_ns: int, end_ns: int) -> float:
        """True joules between two moments of the host's clock in which the machine did not sleep."""
        points = self._points[: self.count]
        first, last = np.interp([start_ns, end_ns], points["host_ns"], points["joules"])
        return float(last - first)

    def hold(self, window: int) -> None:
        """The process' side: wait here until the test has done what it wants."""
        self._header[1] = window
        while self._header[2] < window:
            time.sleep(0.001)

    def release(self, window: int) -> None:
        """The test's side."""
        self._header[2] = window


def true_ns() -> int:
    """A clock that neither suspends nor jumps, on both sides of the rig."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
