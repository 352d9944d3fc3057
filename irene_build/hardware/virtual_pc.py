"""The simulated PC: plays an emonPi on a pseudo-terminal, driven by this machine's real CPU load.

A program of its own, started by the driver ``irene_build.meters.virtual`` as
``python -I -S virtual_pc.py '<JSON settings>'``; standard library only: it starts at once and stays small.
Its first line on stdout names the pseudo-terminal. It ends when its stdin ends, which is when whoever
started it is gone, even by kill -9.

The model, once a frame (every ``period_s``; user, system: busy share of the machine in the ticks of
/proc/stat over the last ``duty`` of the frame, 1 where it is not set; steal is somebody else's work):

    target    = user_w x user^exponent + system_w x system^exponent     clocks fall as more cores are busy
    heat     += (target / (user_w + system_w) - heat) x dt / drift_time_s   first-order warming
    parts     = (idle_w + target) x (1 + drift_share x heat)            leakage grows with temperature
    wall      = supply_loss_w + parts / supply_efficiency               the power supply's loss line
    V         = voltage_v + slow wander (AR(1), voltage_noise_v), in steps of voltage_step_v
    I         = wall / V + N(0, current_noise_a), in steps of current_step_a
    T         = the meter's clock: clock_offset_s + (1 + clock_drift_ppm 1e-6) x time since its start

A frame is ``T=12.340 V=120.03 I=0.431*5A1F`` with a CRC-16/XMODEM of what stands before the ``*``.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import os
import random
import select
import sys
import time
import tty
from pathlib import Path
from typing import Any

STAT = Path("/proc/stat")
BANNER = b"irene virtual PC: a simulated meter, its joules are not real\r\n"


def cpu_shares() -> tuple[int, int, int]:
    """Cumulative ``(user, system, total)`` ticks of the machine; system includes interrupts."""
    field = [int(x) for x in STAT.read_bytes().split(b"\n", 1)[0].split()[1:9]]
    field += [0] * (8 - len(field))
    user, system = field[0] + field[1], field[2] + field[5] + field[6]
    return user, system, user + system + field[3] + field[4] + field[7]


class Model:
    """Settings as in the module's docstring. Deterministic for a given seed and load."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.set = settings
        self.random = random.Random(settings["seed"])
        self.heat = 0.0
        self.wander_v = 0.0

    def wall_w(self, user: float, system: float, dt_s: float) -> float:
        """Power at the wall, W, without noise; ``user`` and ``system`` are shares of the whole machine."""
        s = self.set
        target = s["user_w"] * user ** s["exponent"] + s["system_w"] * system ** s["exponent"]
        full = s["user_w"] + s["system_w"]
        if full > 0:
            self.heat += (target / full - self.heat) * min(1.0, dt_s / s["drift_time_s"])
        parts = (s["idle_w"] + target) * (1.0 + s["drift_share"] * self.heat)
        return float(s["supply_loss_w"] + parts / s["supply_efficiency"])

    def meter(self, wall_w: float) -> tuple[float, float]:
        """``(volts, amperes)`` as the meter would give them."""
        s = self.set
        self.wander_v = 0.98 * self.wander_v + 0.2 * self.random.gauss(0.0, s["voltage_noise_v"])
        volts = s["voltage_v"] + self.wander_v
        amperes = max(0.0, wall_w / volts + self.random.gauss(0.0, s["current_noise_a"]))
        step_v, step_a = s["voltage_step_v"], s["current_step_a"]
        return round(volts / step_v) * step_v, round(amperes / step_a) * step_a


def frame(time_s: float, volts: float, amperes: float) -> bytes:
    text = f"T={time_s:.3f} V={volts:.2f} I={amperes:.3f}".encode("ascii")
    return b"%s*%04X\r\n" % (text, binascii.crc_hqx(text, 0))


def wait(until_s: float) -> bool:
    """Sleeps until then; False where whoever started this is gone meanwhile."""
    while (left := until_s - time.monotonic()) > 0:
        ready = select.select([sys.stdin], [], [], left)[0]
        if ready and not os.read(0, 1024):
            return False
    return True


def play(settings: dict[str, Any]) -> None:
    master, slave = os.openpty()
    # The slave end stays open here, or the master would report an error until the driver has opened it.
    tty.setraw(slave)
    os.set_blocking(master, False)
    sys.stdout.write(os.ttyname(slave) + "\n")
    sys.stdout.flush()
    # A meter is a machine of its own: what runs on the PC must not hold it up, where that can be had.
    with contextlib.suppress(OSError):
        os.nice(-10)
    model = Model(settings)
    parent = os.getppid()
    period, duty = settings["period_s"], settings.get("duty", 1.0)
    start = due = last = time.monotonic()
    ticks = cpu_shares()
    pending = BANNER
    while True:
        due += period
        if duty < 1.0:
            if not wait(due - duty * period):
                return
            ticks = cpu_shares()  # before that its sensor does not look
        if not wait(due):
            return
        if os.getppid() != parent:
            return
        now = time.monotonic()
        if now - due > period:  # suspended, or starved: a real meter would have lost these frames
            due = now
        before, ticks = ticks, cpu_shares()
        total = max(1, ticks[2] - before[2])
        user, system = (max(0, ticks[i] - before[i]) / total for i in (0, 1))
        wall_w = model.wall_w(min(1.0, user), min(1.0, system), now - last)
        last = now
        clock = settings["clock_offset_s"] + (1.0 + settings["clock_drift_ppm"] * 1e-6) * (now - start)
        pending += frame(clock, *model.meter(wall_w))
        # Where nobody reads and the line is full, what is said on a wire is lost.
        with contextlib.suppress(BlockingIOError):
            os.write(master, pending)
        pending = b""


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        play(json.loads(sys.argv[1]))
