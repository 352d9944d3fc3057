"""What a test plays a meter on: a serial line that is bad or pulled, a GPU's counter."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from irene_build.hardware.virtual_pc import frame
from tests.measure.curve import Curve
from tests.meters.wire import Wire
from tests.nvml import FakeNvml

DIALECT = r"T=(?P<time_s>\d+\.\d{3}) V=(?P<voltage_v>\d+\.\d{2}) I=(?P<current_a>\d+\.\d{3})\*(?P<checksum>[0-9A-F]{4})"


class Counter:
    """What a GPU's energy counter shows of the curve: a feeder's ``emit`` that steps it through the stand-in.

    A step that comes late shows the joules of then, as a counter does. ``state``: further keys of the stand-in;
    written with the next step, by the one thread that writes. ``frozen``: the counter stands still, and makes up
    for it afterwards.
    """

    def __init__(self, gpu: FakeNvml, curve: Curve) -> None:
        self.gpu, self._curve = gpu, curve
        self.state: dict[str, float] = {}
        self.frozen = False
        self._shown_mj = 0

    def __call__(self, time_s: float, watts: float) -> None:
        if not self.frozen:
            # What the process writes down late must not make it go backwards.
            self._shown_mj = max(self._shown_mj, int(1e3 * (1000.0 + self._curve.joules())))
        self.gpu.set(counter_mj=float(self._shown_mj), **self.state)


class Line(Wire):
    """A serial line that loses what nobody reads, as a real one does; played in the simulated PC's dialect."""

    def meter(self, **more: Any) -> dict[str, Any]:
        """The profile's table for the driver at the other end."""
        return {
            "driver": "emonpi", "port": str(self.port), "baud": 115200, "grammar": "pattern", "pattern": DIALECT,
            **more,
        }  # fmt: skip

    def send(self, data: bytes | str) -> None:
        os.set_blocking(self._master, False)
        with suppress(BlockingIOError):
            super().send(data)

    def frame(self, time_s: float, watts: float) -> None:
        self.send(frame(time_s, 120.0, watts / 120.0))


def spoiled(number: int, sent: bytes) -> bytes:
    """What a bad line makes of the frame of that number: most pass."""
    kind = number % 31
    if kind == 7:
        return b"\x8f\x00\xf3\xff\x02~\r\n" + sent
    if kind == 12:
        return sent[:9] + sent[14:]  # torn: bytes in the middle are lost
    if kind == 17:
        return sent.replace(b"V=120", b"V=920")  # a checksum that does not hold
    if kind == 22:
        return sent + sent
    if kind == 27:
        return b""
    return b"emonPi2 CM Firmware v1.0\r\n" + sent if kind == 29 else sent
