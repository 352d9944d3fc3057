"""emonPi and its relatives on a serial port: a current clamp around the PC's supply line."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irene_build.errors import HardwareError, MeterError
from irene_build.meters.base import MeterInfo, Reading
from irene_build.meters.emonpi_protocol import (
    MAX_POWER_W,
    Frame,
    Grammar,
    Reject,
    decode,
    grammars,
    plausible,
)
from irene_build.meters.threaded import FeedMeter

_BAUDS = (38400, 115200, 9600, 57600)
_READ_S = 0.1
_RETRY_S = 0.25
_MAX_PENDING = 4096
_MAX_QUARANTINE = 1_000_000
#: Gaps between frames that a period is taken from, at least.
_GAPS = 2
#: Frames that are damaged unseen are at least so far apart, on a line that is any good.
_SELDOM = 20
#: Kinds of serial port that such a meter can be on: a USB adapter, or the header of a Raspberry Pi.
PORT_PATTERNS = ("serial/by-id/*", "ttyUSB*", "ttyACM*", "ttyAMA*", "cu.usbserial*", "cu.usbmodem*")


def serial_ports() -> list[str]:
    """Serial ports that could be a meter, stable names first; on Windows, all COM ports."""
    found = [str(path) for pattern in PORT_PATTERNS for path in sorted(Path("/dev").glob(pattern))]
    real: dict[Path, str] = {}
    for path in found:
        real.setdefault(Path(path).resolve(), path)
    if not Path("/dev").is_dir():
        from serial.tools import list_ports

        return [port.device for port in list_ports.comports()]
    return list(real.values())


class EmonPi(FeedMeter):
    """Reads frames of any known dialect; finds baud and dialect by listening where they are ``auto``.

    Settings (the ``[meter]`` table): ``port``, ``baud``, ``grammar``, ``pattern``, ``node``, ``channel``,
    ``ct_turns`` (how often the conductor passes through the clamp), ``reverse``, ``period_s``, ``window_s``,
    ``command`` (sent after opening), ``listen_s``, ``reconnect_s``, ``quarantine`` (file for rejected lines).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = config
        self._turns = int(config.get("ct_turns", 1))
        if self._turns < 1:
            raise HardwareError("meter.ct_turns: at least 1 pass through the clamp")
        self._max_w = float(config.get("max_power_w", MAX_POWER_W))
        self._grammars = grammars(config)
        self._grammar: Grammar | None = None
        self._port = ""
        self._baud = 0
        self._serial: Any = None
        self._pending = b""
        self._synchronised = False
        self._frame: Frame | None = None
        self._believed: Frame | None = None
        self._doubtful: tuple[Frame, int] | None = None
        self._since_torn = _SELDOM
        self._last_ns = 0
        self._lost_since: float | None = None
        self._gaps: deque[float] = deque(maxlen=15)
        self._quarantine = Path(config["quarantine"]) if config.get("quarantine") else None

    @property
    def info(self) -> MeterInfo:
        frame, grammar = self._frame, self._grammar
        period = float(self._config.get("period_s", grammar.period_s if grammar else 0.170))
        if len(self._gaps) >= _GAPS:
            period = statistics.median(self._gaps)
        return MeterInfo(
            name="emonpi",
            source=f"emonPi on {self._port or self._config.get('port', 'auto')}",
            kind="power",
            boundary=str(self._config.get("boundary", "wall")),
            provenance="measured",
            period_s=period,
            quantum=frame.quantum_w / self._turns if frame else 0.0,
            power_kind=frame.power_kind if frame else "unknown",
            details={
                "port": self._port,
                "baud": self._baud,
                "grammar": grammar.name if grammar else str(self._config.get("grammar", "auto")),
                "ct_turns": self._turns,
                "channel": int(self._config.get("channel", 1)),
            },
            window_s=float(self._config.get("window_s", period)),
        )

    def _open(self) -> None:
        named = str(self._config.get("port", "auto"))
        ports = serial_ports() if named == "auto" else [named]
        if not ports:
            raise HardwareError(
                f"no serial port for an emonPi (looked for /dev/{', /dev/'.join(PORT_PATTERNS[:4])})"
            )
        heard: list[str] = []
        for port in ports:
            for baud in self._bauds():
                try:
                    self._connect(port, baud)
                except (OSError, ValueError) as error:
                    heard.append(f"{port}: {_why(error)}")
                    break
                if self._listen(float(self._config.get("listen_s", 12.0))):
                    return
                heard.append(f"{port} at {baud} baud: {self._heard()}")
                self._disconnect()
        hint = ""
        if self._counts["reversed"]:
            hint = (
                " (the clamp sits the wrong way round: turn it, or set meter.reverse = true in the profile)"
            )
        raise HardwareError(f"no emonPi frames on {'; '.join(heard)}{hint}")

    def _bauds(self) -> list[int]:
        named = self._config.get("baud", "auto")
        if named != "auto":
            return [int(named)]
        first = [grammar.baud for grammar in self._grammars if len(self._grammars) == 1]
        return list(dict.fromkeys([*first, *_BAUDS]))

    def _connect(self, port: str, baud: int) -> None:
        import serial

        self._serial = serial.Serial(port, baud, timeout=_READ_S, exclusive=True)
        self._port, self._baud = port, baud
        self._pending, self._synchronised = b"", False
        if self._config.get("command"):
            self._serial.write(str(self._config["command"]).encode("ascii") + b"\r\n")

    def _disconnect(self) -> None:
        if self._serial is not None:
            with contextlib.suppress(OSError):
                self._serial.close()
            self._serial = None

    def _close(self) -> None:
        self._disconnect()

    def _heard(self) -> str:
        faults = [f"{count} {name}" for name, count in self._counts.items()]
        return ", ".join(faults) if faults else "silence"

    def _listen(self, listen_s: float) -> bool:
        """Waits for the first frames; gives up early on a stream of bytes that no dialect sends.

        A few more frames tell the period, which differs from device to device, and from any profile's.
        """
        end = time.monotonic() + listen_s
        undecodable = self._counts["undecodable"]
        heard = False
        while time.monotonic() < end:
            self._receive()
            if self._frame is not None and not heard:
                heard = True
                end = time.monotonic() + (_GAPS + 0.5) * self._slowest_s()
            if len(self._gaps) >= _GAPS:
                return True
            if heard:
                continue
            if self._counts["undecodable"] - undecodable >= 5 or len(self._pending) >= _MAX_PENDING // 2:
                return False
        return heard

    def _slowest_s(self) -> float:
        dialect = self._grammar.period_s if self._grammar else 0.0
        return max(dialect, float(self._config.get("period_s", 0.0)))

    def _step(self) -> None:
        if self._serial is None:
            self._reconnect()
            return
        try:
            self._receive()
        except OSError:  # SerialException is one: the port is gone
            self._counts["disconnects"] += 1
            if self._pending:
                self._reject(self._pending, "torn")
            self._lost_since = time.monotonic()
            self._disconnect()

    def _reconnect(self) -> None:
        self._stop.wait(_RETRY_S)
        named = str(self._config.get("port", "auto"))
        # A plug that comes back can get another number.
        ports = [self._port] if named != "auto" else [self._port, *serial_ports()]
        for port in dict.fromkeys(ports):
            try:
                self._connect(port, self._baud)
                self._counts["reconnects"] += 1
                return
            except (OSError, ValueError):
                continue
        waited = time.monotonic() - (self._lost_since or 0.0)
        if waited > float(self._config.get("reconnect_s", 60.0)):
            raise MeterError(
                f"emonPi on {self._port}: gone, and not back within {waited:.0f} s; plug it in and run again"
            )

    def _receive(self) -> None:
        data = self._serial.read(max(1, self._serial.in_waiting))
        now = time.monotonic_ns()
        if not data:
            # Frames come in bursts: after silence, the next byte begins a line.
            self._synchronised = self._synchronised or not self._pending
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > _MAX_PENDING:
            self._reject(self._pending, "undecodable")
            self._pending, self._synchronised = b"", False
        if lines and not self._synchronised:
            # Whoever opens a port may hear the end of a line first, which can look like a smaller number.
            self._synchronised = True
            del lines[0]
        frames = []
        for raw in lines:
            verdict = self._parse(raw)
            if isinstance(verdict, Reject):
                self._reject(raw, verdict.reason)
            elif verdict is not None:
                frames.append(verdict)
        self._accept(frames, now)

    def _accept(self, frames: list[Frame], now: int) -> None:
        """Frames that come in one read were held up: they are spread over the time since the last."""
        period = int(self.info.period_s * 1e9)
        self._counts["bunched"] += max(0, len(frames) - 1)
        start = (
            max(self._last_ns, now - len(frames) * period) if self._last_ns else now - len(frames) * period
        )
        for place, frame in enumerate(frames, start=1):
            at = start + (now - start) * place // len(frames)
            if not self._is_new(frame, at, period):
                continue
            self._frame, self._last_ns = frame, max(at, self._last_ns + 1)
            self._pass_on(frame, self._last_ns)

    def _pass_on(self, frame: Frame, at: int) -> None:
        """A reading of the frame, once it is believed.

        A digit lost or doubled is another number: where a line has nothing to check it by, a power that is far from the
        one before waits for the next frame, and is dropped where that one is as the one before it was. A load that
        swings from frame to frame is no damage: not more than one frame of some is dropped.
        """
        if self._doubtful is not None:
            doubtful, then = self._doubtful
            self._doubtful = None
            alone = self._believed is not None and _near(frame, self._believed) and not _near(frame, doubtful)
            if alone and self._since_torn >= _SELDOM:
                self._counts["torn"] += 1
                self._since_torn = 0
            else:
                self._hand_on(doubtful, then)
        self._since_torn += 1
        if frame.checked or self._believed is None or _near(frame, self._believed):
            self._hand_on(frame, at)
        else:
            self._doubtful = frame, at

    def _hand_on(self, frame: Frame, at: int) -> None:
        self._believed = frame
        self._emit(Reading(at, frame.power_w / self._turns, frame.time_s))

    def _is_new(self, frame: Frame, at: int, period: int) -> bool:
        """Counts what is missing between the last frame and this one; False for the same frame again."""
        last = self._frame
        if last is None:
            return True
        gap = at - self._last_ns
        steps = round(gap / period)
        if frame.sequence is not None and last.sequence is not None:
            steps = frame.sequence - last.sequence
            repeated = steps == 0
        elif frame.time_s is not None and last.time_s is not None:
            steps = round((frame.time_s - last.time_s) * 1e9 / period)
            repeated = frame.time_s == last.time_s
        else:
            repeated = frame == last and gap < period // 4
        if repeated:
            self._counts["duplicated"] += 1
            return False
        if steps < 0:
            self._counts["restarts"] += 1
            steps = round(gap / period)
        if steps == 1 and _contradicts(frame, last, period / 1e9):
            self._counts["torn"] += 1
            return False
        if frame.sequence is not None or len(self._gaps) >= _GAPS:
            self._counts["missing"] += max(0, steps - 1)
        self._gaps.append(gap / 1e9)
        return True

    def _reject(self, raw: bytes, reason: str) -> None:
        self._counts[reason] += 1
        if self._quarantine is None or not self._quarantine.parent.is_dir():
            return
        line = f"{time.time():.3f} {reason} {raw[:200]!r}\n"
        try:
            with self._quarantine.open("a", encoding="ascii") as file:
                if file.tell() < _MAX_QUARANTINE:
                    file.write(line)
        except OSError:  # a full disk must not stop the meter; the counters still tell
            self._counts["quarantine_failed"] += 1

    def _parse(self, raw: bytes) -> Frame | Reject | None:
        text = decode(raw)
        if text is None:
            return Reject("undecodable")
        if not text.strip():
            return None
        verdict: Frame | Reject = Reject("banner")
        for grammar in [self._grammar] if self._grammar else self._grammars:
            attempt = grammar.parse(text)
            if isinstance(attempt, Frame):
                reverse = bool(self._config.get("reverse", False))
                verdict = plausible(attempt, reverse, self._max_w * self._turns)
                if isinstance(verdict, Frame) and self._grammar is None:
                    self._grammar = grammar
                break
            if attempt.reason != "banner":
                verdict = attempt
        return verdict


def _near(frame: Frame, other: Frame) -> bool:
    """Within a factor of two, or of a few of the least steps."""
    low, high = sorted((frame.power_w, other.power_w))
    return high <= 2.0 * low + 10.0 * max(frame.quantum_w, other.quantum_w)


def _contradicts(frame: Frame, last: Frame, seconds: float) -> bool:
    """Whether the meter's own count of energy has moved by another power than the frame says."""
    if frame.energy_wh is None or last.energy_wh is None:
        return False
    counted, said = frame.energy_wh - last.energy_wh, frame.power_w * seconds / 3600.0
    return counted < 0.0 or abs(counted - said) > 2.0 + 0.5 * max(counted, said)


def _why(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    if getattr(error, "errno", None) == 13:
        reason += "; run `sudo usermod -aG dialout $USER` and log in again"
    return reason
