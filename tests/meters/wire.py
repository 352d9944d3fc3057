"""A serial cable to a meter that a test plays: a real pseudo-terminal, which can be unplugged."""

from __future__ import annotations

import os
import termios
import threading
import time
import tty
from collections.abc import Callable, Sequence
from pathlib import Path


class Wire:
    """``port`` is what the driver opens. ``send`` puts bytes on the line as the meter would."""

    def __init__(self, folder: Path) -> None:
        self.port = folder / "ttyUSB-test"
        self._master = self._slave = -1
        self.plug()

    def plug(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(self._slave))

    def unplug(self) -> None:
        if self._master >= 0:
            self.port.unlink(missing_ok=True)
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = -1

    def send(self, data: bytes | str) -> None:
        os.write(self._master, data.encode("latin-1") if isinstance(data, str) else data)

    def baud(self) -> int:
        """What the driver has set the line to."""
        speed = termios.tcgetattr(self._slave)[5]
        return {getattr(termios, f"B{baud}"): baud for baud in (9600, 38400, 57600, 115200)}.get(speed, 0)

    def heard(self) -> bytes:
        """What the driver said to the meter so far."""
        os.set_blocking(self._master, False)
        try:
            return os.read(self._master, 4096)
        except BlockingIOError:
            return b""


class Player:
    """Repeats what ``line`` gives every ``period_s`` in a thread, until ``stop``."""

    def __init__(self, wire: Wire, line: Callable[[int], bytes | str], period_s: float = 0.05) -> None:
        self._wire, self._line, self._period_s = wire, line, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Player:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        count = 0
        while not self._stop.wait(self._period_s):
            self._wire.send(self._line(count))
            count += 1


def classic(p1: int, p2: int = 0, voltage: float = 230.47, node: int = 5, rssi: int = 0) -> str:
    """A frame of the classic emonPi firmware, as struct PayloadTX of it is sent."""
    words = [p1, p2, p1 + p2, round(voltage * 100)] + [0] * 6
    data = b"".join((word & 0xFFFF).to_bytes(2, "little") for word in words) + bytes(4)
    return f"OK {node} {' '.join(map(str, data))} ({-rssi or '-0'})"


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def collect(meter: object, count: int, seconds: float = 5.0) -> Sequence[object]:
    """The next ``count`` readings or more."""
    readings: list[object] = []
    end = time.monotonic() + seconds
    while len(readings) < count:
        assert time.monotonic() < end, f"{len(readings)} of {count} readings in {seconds} s"
        readings += meter.read_new(0.2)  # type: ignore[attr-defined]
    return readings
