"""Whether this process was stopped: by a signal, by the host of its virtual machine, by want of a processor.

A thread looks at the clock every few milliseconds. Where it looks late and the process used no processor time
meanwhile, nothing of the process ran: what was being measured stood still, while the meter went on.
"""

from __future__ import annotations

import threading
import time
from typing import Any

#: Between two looks, s. Stops shorter than LEAST_STOP_S are not told from an ordinary wait for a turn.
BEAT_S, LEAST_STOP_S = 0.02, 0.03


class Heartbeat:
    """A context; ``stopped_s`` tells of any stretch of time within it."""

    def __init__(self) -> None:
        self._stops: list[tuple[int, int, float]] = []
        self._last = time.monotonic_ns(), time.process_time()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="irene-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._last = time.monotonic_ns(), time.process_time()
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S):
            self._look()
        self._look()

    def _look(self) -> None:
        (before, cpu_before), now = self._last, (time.monotonic_ns(), time.process_time())
        self._last = now
        idle_s = (now[0] - before) / 1e9 - (now[1] - cpu_before) - BEAT_S
        if idle_s >= LEAST_STOP_S:
            self._stops.append((before, now[0], idle_s))

    def stopped_s(self, start_ns: int, end_ns: int) -> float:
        """For how long nothing of the process ran between two moments."""
        return sum(stopped for start, end, stopped in self._stops if start < end_ns and end > start_ns)
