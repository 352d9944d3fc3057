"""What the lines of an emonPi's serial port mean: one small grammar for each dialect.

A grammar turns one line into a ``Frame`` or into the reason why it is none. It never guesses: a line
that could be half a frame is ``torn``, and a value that no PC draws is ``implausible``.
Formats: OpenEnergyMonitor's firmware (emonPi, emonPi2, emonTx4/5) and emonHub's interfacers.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from irene_build.errors import HardwareError

#: Why a line is no frame; each is a counter of the meter.
REASONS = ("banner", "foreign", "rejected", "torn", "undecodable", "implausible", "reversed")
MAX_POWER_W = 20_000.0
_MAX_LINE = 1024
_NUMBER = r"-?\d{1,9}(?:\.\d{1,9})?"
#: Two numbers that are named V and I, and an optional time T of the meter's own clock, in seconds.
DEFAULT_PATTERN = (
    r"(?:T\s*[:=]\s*(?P<time_s>\d+(?:\.\d+)?)\D+?)?"
    r"\bV(?:rms)?\s*[:=]\s*(?P<voltage_v>\d+(?:\.\d+)?)\D+?\bI(?:rms)?\s*[:=]\s*(?P<current_a>\d+(?:\.\d+)?)"
)


@dataclass(frozen=True)
class Frame:
    """One frame, before the clamp's turns are taken out. ``quantum_w``: what the last digit is worth."""

    power_w: float
    power_kind: str
    quantum_w: float
    time_s: float | None = None
    sequence: int | None = None


@dataclass(frozen=True)
class Reject:
    """``reason`` is one of REASONS."""

    reason: str


class Grammar(Protocol):
    """``baud`` and ``period_s`` are what devices of this dialect use unless told otherwise."""

    name: str
    baud: int
    period_s: float

    def parse(self, line: str) -> Frame | Reject: ...


def plausible(frame: Frame, reverse: bool = False) -> Frame | Reject:
    """The frame, or why its power cannot be a PC's: more than 20 kW, or a clamp that sits the wrong way."""
    power = -frame.power_w if reverse else frame.power_w
    if not math.isfinite(power) or power > MAX_POWER_W or power < -MAX_POWER_W:
        return Reject("implausible")
    if power < -5.0:
        return Reject("reversed")
    # A clamp on a PC that is off reads a little noise to either side of nothing.
    return Frame(max(power, 0.0), frame.power_kind, frame.quantum_w, frame.time_s, frame.sequence)


class ClassicBytes:
    """``OK 5 <24 decimal bytes> (-0)``: little-endian P1, P2, P1+P2 (W), Vrms x 100, 6 temperatures, pulses.

    ``channel``: 1, 2, or 0 for the sum of both. A frame whose sum is not the sum of its parts is torn.
    """

    name, baud, period_s = "classic", 38400, 5.0
    _line = re.compile(r"OK (\d{1,3})((?: \d{1,3})+) \((-?\d{1,3})\)")

    def __init__(self, node: int = 5, channel: int = 1) -> None:
        self.node, self.channel = node, channel

    def parse(self, line: str) -> Frame | Reject:
        if line.startswith(("?", " ?")):
            return Reject("rejected")
        match = self._line.fullmatch(line)
        if match is None:
            return Reject("torn" if re.match(r"OK|O$|.*\(-\d+\)$|[\d ]+$", line) else "banner")
        if int(match[1]) != self.node:
            return Reject("foreign")
        data = [int(x) for x in match[2].split()]
        if len(data) != 24 or max(data) > 255:
            return Reject("torn")
        words = [int.from_bytes(bytes(data[i : i + 2]), "little", signed=True) for i in range(0, 8, 2)]
        p1, p2, both, voltage = words
        # The firmware adds in 16 bits.
        if (p1 + p2 - both) % 65536 != 0:
            return Reject("torn")
        if not 0 <= voltage <= 30000:
            return Reject("implausible")
        return Frame(float((both, p1, p2)[self.channel]), "real", 1.0)


class _Fields:
    """Real power ``P<n>`` (or V and I) and the message number out of named values.

    Remembers which names a whole line has, and with how many decimals the last one comes, so that a line
    which lost its end is not taken for a smaller number.
    """

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self._shape: tuple[frozenset[str], int] | None = None

    def frame(self, fields: Mapping[str, str], self_delimiting: bool) -> Frame | Reject:
        names, last = frozenset(fields), list(fields.values())[-1]
        shape = (names, 0 if self_delimiting else _decimals(last))
        if self._shape is not None and shape != self._shape and not names > self._shape[0]:
            return Reject("torn")
        power, kind = self._power(fields)
        if power is None:
            return Reject("foreign" if self._shape is None else "torn")
        self._shape = shape
        sequence = fields.get("MSG")
        return Frame(
            power[0],
            kind,
            power[1],
            sequence=int(sequence) if sequence is not None and sequence.isdigit() else None,
        )

    def _power(self, fields: Mapping[str, str]) -> tuple[tuple[float, float] | None, str]:
        wanted = [f"P{self.channel}"] if self.channel else ["P1", "P2"]
        if self.channel == 1 and "P1" not in fields and "P" in fields:
            wanted = ["P"]
        if all(name in fields for name in wanted):
            return (
                (
                    sum(float(fields[n]) for n in wanted),
                    max(10.0 ** -_decimals(fields[n]) for n in wanted),
                ),
                "real",
            )
        voltage = next((fields[n] for n in ("V", "V1", "Vrms") if n in fields), None)
        current = next((fields[n] for n in (f"I{max(self.channel, 1)}", "I", "Irms") if n in fields), None)
        if voltage is None or current is None:
            return None, ""
        return _apparent(voltage, current), "apparent"


class KeyValue:
    """``MSG:1,V1:230.47,P1:312,E1:12,pulse:0``"""

    name, baud, period_s = "keyvalue", 115200, 9.8
    _field = re.compile(rf"\s*([A-Za-z][A-Za-z0-9_]{{0,15}})\s*:\s*({_NUMBER})\s*")

    def __init__(self, channel: int = 1) -> None:
        self._fields = _Fields(channel)

    def parse(self, line: str) -> Frame | Reject:
        if line.startswith("?"):
            return Reject("rejected")
        parts = line.rstrip(",").split(",")
        matches = [self._field.fullmatch(part) for part in parts]
        found = {m[1]: m[2] for m in matches if m}
        if len(found) < len(parts):
            return Reject("torn" if found else "banner")
        return self._fields.frame(found, self_delimiting=False)


class Json:
    """The same fields as one JSON object a line."""

    name, baud, period_s = "json", 115200, 9.8

    def __init__(self, channel: int = 1) -> None:
        self._fields = _Fields(channel)

    def parse(self, line: str) -> Frame | Reject:
        if not line.startswith("{"):
            return Reject("torn" if line.endswith("}") else "banner")
        try:
            data = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
        except (ValueError, RecursionError):
            return Reject("torn")
        fields = {k: v for k, v in data.items() if isinstance(v, str) and re.fullmatch(_NUMBER, v)}
        if not fields:
            return Reject("foreign")
        return self._fields.frame(fields, self_delimiting=True)


class Pattern:
    """A regular expression with the groups ``voltage_v`` and ``current_a``, or ``power_w``.

    Optional groups: ``time_s`` (the meter's own clock), ``sequence``, and ``checksum`` over all that stands
    before the character in front of it: 2 hexadecimal digits are an exclusive or, 4 are CRC-16/XMODEM.
    """

    name, baud = "pattern", 115200

    def __init__(self, pattern: str = DEFAULT_PATTERN, period_s: float = 0.170) -> None:
        try:
            self._line = re.compile(pattern)
        except re.error as error:
            raise HardwareError(f"meter.pattern is not a regular expression: {error}") from None
        groups = set(self._line.groupindex)
        if not ({"voltage_v", "current_a"} <= groups or "power_w" in groups):
            raise HardwareError("meter.pattern: needs the groups voltage_v and current_a, or power_w")
        self.period_s = period_s
        self._decimals: tuple[int, ...] | None = None

    def parse(self, line: str) -> Frame | Reject:
        match = self._line.fullmatch(line) or (
            None if "checksum" in self._line.groupindex else self._line.search(line)
        )
        if match is None:
            return Reject("torn" if re.search(r"[=:]\s*-?\d", line) else "banner")
        found = {name: value for name, value in match.groupdict().items() if value is not None}
        checksum = found.get("checksum")
        if checksum is not None and not _checks(line[: max(0, match.start("checksum") - 1)], checksum):
            return Reject("torn")
        values = [found[name] for name in ("voltage_v", "current_a", "power_w") if name in found]
        if not all(re.fullmatch(_NUMBER, value) for value in values):
            return Reject("implausible")
        decimals = tuple(map(_decimals, values))
        if self._decimals is None:
            self._decimals = decimals
        elif decimals != self._decimals:
            return Reject("torn")
        if "power_w" in found:
            power, quantum, kind = float(found["power_w"]), 10.0 ** -decimals[-1], "real"
        else:
            (power, quantum), kind = _apparent(found["voltage_v"], found["current_a"]), "apparent"
        time_s = _number(found.get("time_s"))
        sequence = _number(found.get("sequence"))
        return Frame(power, kind, quantum, time_s, None if sequence is None else int(sequence))


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(_NUMBER, text) else None


def _apparent(voltage: str, current: str) -> tuple[float, float]:
    """Apparent power and the worth of the current's last digit; NaN outside any mains voltage."""
    volts = float(voltage)
    if not 50.0 <= volts <= 300.0:
        return math.nan, 0.0
    return volts * float(current), volts * 10.0 ** -_decimals(current)


def _checks(text: str, checksum: str) -> bool:
    data = text.encode("ascii", "replace")
    if len(checksum) == 4:
        return f"{binascii.crc_hqx(data, 0):04X}" == checksum.upper()
    value = 0
    for byte in data:
        value ^= byte
    return f"{value:02X}" == checksum.upper()


#: name -> how to make it from the ``[meter]`` table of a profile. A new dialect goes here.
GRAMMARS: dict[str, Callable[[Mapping[str, Any]], Grammar]] = {
    "classic": lambda c: ClassicBytes(int(c.get("node", 5)), int(c.get("channel", 1))),
    "json": lambda c: Json(int(c.get("channel", 1))),
    "keyvalue": lambda c: KeyValue(int(c.get("channel", 1))),
    "pattern": lambda c: Pattern(str(c.get("pattern", DEFAULT_PATTERN)), float(c.get("period_s", 0.170))),
}


def grammars(config: Mapping[str, Any]) -> list[Grammar]:
    """The grammar that the profile names, or all of them in the order in which they are tried."""
    name = str(config.get("grammar", "auto"))
    if name == "auto":
        # A pattern of the profile's own knows its lines better than the general dialects do.
        order = ["pattern", *GRAMMARS] if "pattern" in config else list(GRAMMARS)
        return [GRAMMARS[key](config) for key in dict.fromkeys(order)]
    if name not in GRAMMARS:
        raise HardwareError(f"meter.grammar {name!r}: use auto, {', '.join(GRAMMARS)}")
    return [GRAMMARS[name](config)]


def decode(raw: bytes) -> str | None:
    """A line as text, or ``None`` where it holds bytes that no dialect sends."""
    if len(raw) > _MAX_LINE:
        return None
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return None
    text = text.strip("\r\n\x00")
    return text if all(c.isprintable() or c == "\t" for c in text) else None
