"""A thread that reads one source, so that time stamps do not depend on when somebody asks."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from irene_build.errors import IreneError, MeterError
from irene_build.meters.base import Alert, MeterInfo, Reading

if TYPE_CHECKING:
    from typing_extensions import Self

_CAPACITY = 200_000
#: A power that does not change at all for so long, and so many readings, comes from a sensor that is stuck.
FROZEN_S, FROZEN_READINGS = 30.0, 20


class FeedMeter(ABC):
    """Base of the drivers: subclasses open a source, and read it once in ``_step``."""

    def __init__(self) -> None:
        self._buffer: deque[Reading] = deque()
        self._news = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._value, self._since_ns, self._equal, self._told = math.nan, 0, 0, False
        self._frozen: list[Alert] = []
        self._failure: IreneError | None = None
        self._ended = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    @abstractmethod
    def info(self) -> MeterInfo: ...

    @abstractmethod
    def _open(self) -> None:
        """Opens the source; HardwareError where it is not here, MeterError where it does not answer."""

    @abstractmethod
    def _step(self) -> None:
        """Reads once, within about 0.2 s, and hands on what came with ``_emit``."""

    @abstractmethod
    def _close(self) -> None: ...

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise MeterError(f"{type(self).__name__} is open already")
        self._failure, self._ended = None, False
        self._stop.clear()
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        self._thread = threading.Thread(target=self._run, name="irene-meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        self._close()

    def read_new(self, timeout_s: float) -> list[Reading]:
        """Readings since the last call; waits at most ``timeout_s`` for the first."""
        with self._news:
            self._news.wait_for(lambda: self._buffer or self._failure or self._ended, timeout_s)
            readings = list(self._buffer)
            self._buffer.clear()
            if not readings and self._failure is not None:
                raise self._failure
            return readings

    def counters(self) -> Mapping[str, int]:
        return dict(self._counts)

    def alerts(self) -> list[Alert]:
        """That its readings stand still; a driver may know more."""
        found, self._frozen = self._frozen, []
        return found

    def _emit(self, reading: Reading) -> None:
        if self.info.kind == "power":
            self._watch_value(reading)
        with self._news:
            if len(self._buffer) >= _CAPACITY:
                self._buffer.popleft()
                self._counts["overflow"] += 1
            self._buffer.append(reading)
            self._news.notify_all()

    def _watch_value(self, reading: Reading) -> None:
        if reading.value != self._value:
            self._value, self._since_ns, self._equal, self._told = (
                reading.value,
                reading.host_time_ns,
                0,
                False,
            )
        self._equal += 1
        seconds = (reading.host_time_ns - self._since_ns) / 1e9
        if seconds >= FROZEN_S and self._equal >= FROZEN_READINGS and not self._told:
            self._told = True
            text = f"{self.info.name} shows {self._value:g} W without any change for {seconds:.0f} s: is it stuck?"
            self._frozen.append(Alert("frozen", text, {"watts": self._value, "seconds": seconds}))

    def _finish(self) -> None:
        """No more readings will come, and that is no fault."""
        self._stop.set()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._step()
        except IreneError as error:
            self._fail(error)
        except Exception as error:  # a thread must not die unseen
            self._fail(MeterError(f"{self.info.name}: {type(error).__name__}: {error}"))

    def _fail(self, error: IreneError) -> None:
        with self._news:
            self._failure = error
            self._news.notify_all()


class PolledMeter(FeedMeter):
    """A source that is asked every ``period_s`` seconds, on a schedule that does not drift."""

    def __init__(self, period_s: float) -> None:
        super().__init__()
        self._period_s = period_s
        self._due = 0.0

    @abstractmethod
    def _poll(self) -> Reading | None:
        """One look at the source; ``None`` is no news."""

    def _step(self) -> None:
        now = time.monotonic()
        if self._due <= now - self._period_s:
            self._due = now
        if self._due > now and self._stop.wait(min(self._due - now, 0.2)):
            return
        if time.monotonic() < self._due:
            return
        self._due += self._period_s
        reading = self._poll()
        if reading is not None:
            self._emit(reading)
