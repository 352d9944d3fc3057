"""What the lines of an emonPi's serial port mean: one small grammar for each dialect.

A grammar turns one line into a ``Frame`` or into the reason why it is none. It never guesses: a line
that could be half a frame is ``torn``, and a value that no PC draws is ``implausible``.
Formats: OpenEnergyMonitor's firmware (emonPi, emonPi_CM, emonPi2, emonTx V3, emonTx4/5) and emonHub's interfacers.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from irene_build.errors import HardwareError
from irene_build.meters.quantities import Quantity, quantity, whole_quantity

#: Why a line is no frame; each is a counter of the meter.
REASONS = ("banner", "foreign", "rejected", "torn", "undecodable", "implausible", "reversed")
MAX_POWER_W = 20_000.0
#: Mains voltages, V. Below, the firmware sees no mains and multiplies the current with a voltage that it assumes.
_LEAST_V, _MOST_V = 50.0, 300.0
#: Lines of another look in a row after which that is how this meter's lines look.
_SETTLED = 3
_MAX_LINE = 1024
#: Two numbers that are named V and I, and an optional time T of the meter's own clock, in seconds.
DEFAULT_PATTERN = (
    r"(?:T\s*[:=]\s*(?P<time_s>\d+(?:\.\d+)?)\D+?)?"
    r"\bV(?:rms)?\s*[:=]\s*(?P<voltage_v>\d+(?:\.\d+)?)\D+?\bI(?:rms)?\s*[:=]\s*(?P<current_a>\d+(?:\.\d+)?)"
)


@dataclass(frozen=True)
class Frame:
    """One frame, before the clamp's turns are taken out. ``quantum_w``: what the last digit is worth.

    ``energy_wh``: the meter's own count of the same clamp; ``checked``: the frame holds what tells a damaged byte.
    """

    power_w: float
    power_kind: str
    quantum_w: float
    time_s: float | None = None
    sequence: int | None = None
    energy_wh: float | None = None
    checked: bool = False


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


def plausible(frame: Frame, reverse: bool = False, max_power_w: float = MAX_POWER_W) -> Frame | Reject:
    """The frame, or why its power cannot be a PC's: more than ``max_power_w``, or a clamp that sits the wrong way."""
    power = -frame.power_w if reverse else frame.power_w
    if not math.isfinite(power) or abs(power) > max_power_w:
        return Reject("implausible")
    if power < -5.0:
        return Reject("reversed")
    energy = frame.energy_wh if frame.energy_wh is None or not reverse else -frame.energy_wh
    # A clamp on a PC that is off reads a little noise to either side of nothing.
    return replace(frame, power_w=max(power, 0.0), energy_wh=energy)


class _Look:
    """What a meter's lines look like. One that looks otherwise is odd, until so many in a row look like it."""

    def __init__(self) -> None:
        self._usual: Hashable = None
        self._other: Hashable = None
        self._seen = 0

    def usual(self, look: Hashable) -> bool:
        if self._usual is None:
            self._usual = look
        if look == self._usual:
            self._seen = 0
            return True
        self._seen = self._seen + 1 if look == self._other else 1
        self._other = look
        if self._seen >= _SETTLED:
            self._usual, self._seen = look, 0
            return True
        return False


class ClassicBytes:
    """``OK 5 <decimal bytes> (-0)``, little-endian. By the number of bytes:

    24, emonPi: P1, P2, P1+P2 (W), Vrms x 100, 6 temperatures, pulses. 40, emonPi_CM: a message number before these, a
    second pulse count and E1, E2 (Wh) behind. 26, emonTx V3: P1 to P4, Vrms x 100, 6 temperatures, pulses.
    ``channel``: a clamp's number, or 0 for the sum of all. A frame whose sum is not the sum of its parts is torn.
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
        numbers = [int(x) for x in match[2].split()]
        if max(numbers) > 255:
            return Reject("torn")
        data = bytes(numbers)
        sequence = energies = None
        if len(data) == 40:
            sequence = int.from_bytes(data[:4], "little")
            energies = [int.from_bytes(data[at : at + 4], "little", signed=True) for at in (32, 36)]
            data = data[4:]
        count = {24: 2, 36: 2, 26: 4}.get(len(data))
        if count is None:
            return Reject("torn")
        words = [int.from_bytes(data[at : at + 2], "little", signed=True) for at in range(0, 10, 2)]
        powers, voltage = words[:count], words[4] if count == 4 else words[3]
        # The firmware adds in 16 bits.
        if count == 2 and (sum(powers) - words[2]) % 65536 != 0:
            return Reject("torn")
        if not 0 <= voltage <= 100.0 * _MOST_V:
            return Reject("implausible")
        if self.channel > count:
            return Reject("foreign")
        power = float(powers[self.channel - 1] if self.channel else sum(powers))
        energy = None
        if energies is not None:
            energy = float(energies[self.channel - 1] if self.channel else sum(energies))
        kind = "real" if voltage >= 100.0 * _LEAST_V else "apparent"
        return Frame(power, kind, 1.0, None, sequence, energy, checked=count == 2)


class _Fields:
    """Real power ``P<n>`` (or V and I) and the message number out of named values.

    Remembers which names a whole line has, and how the last value is written, so that a line which lost its end is not
    taken for a smaller number.
    """

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self._line, self._source = _Look(), _Look()
        self._names: frozenset[str] = frozenset()
        self._powers: frozenset[str] | None = None

    def frame(self, fields: Mapping[str, Quantity], self_delimiting: bool) -> Frame | Reject:
        if self.channel:
            wanted = [f"P{self.channel}"]
            if self.channel == 1 and "P1" not in fields and "P" in fields:
                wanted = ["P"]
        else:
            wanted = [name for name in fields if re.fullmatch(r"P\d{1,2}", name)]
        powers = frozenset(wanted if set(wanted) <= set(fields) else ())
        found = self._power(fields, sorted(powers))
        if found is None:
            return Reject("foreign" if self._powers is None else "torn")
        power, worth, kind = found
        # A sum of fewer clamps is another quantity, however often it comes.
        if (self._powers is not None and powers < self._powers) or not self._source.usual(powers):
            return Reject("torn")
        if not self_delimiting:
            names, last = frozenset(fields), list(fields.values())[-1]
            if self._line.usual((names, last.decimals, last.unit)):
                self._names = names
            elif not self._names < names:
                return Reject("torn")
        self._powers = powers
        energies = [fields.get(f"E{name[1:]}") for name in sorted(powers)]
        energy = sum(e.value for e in energies if e) if energies and all(energies) else None
        message = fields.get("MSG")
        sequence = int(message.value) if message is not None and not message.decimals else None
        return Frame(power, kind, worth, sequence=sequence, energy_wh=energy)

    def _power(self, fields: Mapping[str, Quantity], powers: list[str]) -> tuple[float, float, str] | None:
        voltage = next((fields[n] for n in ("V", "V1", "Vrms") if n in fields), None)
        if powers:
            own = [fields[name] for name in powers]
            if any(q.unit not in ("", "W", "VA") for q in own) or (voltage and voltage.value > _MOST_V):
                return None
            assumed = voltage is not None and voltage.value < _LEAST_V
            kind = "apparent" if assumed or any(q.unit == "VA" for q in own) else "real"
            return sum(q.value for q in own), max(q.worth for q in own), kind
        current = next((fields[n] for n in (f"I{max(self.channel, 1)}", "I", "Irms") if n in fields), None)
        if voltage is None or current is None or self._powers:
            return None
        return (*_apparent(voltage, current), "apparent")


class KeyValue:
    """``MSG:1,V1:230.47,P1:312,E1:12,pulse:0``"""

    name, baud, period_s = "keyvalue", 115200, 9.8
    _field = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]{0,15})\s*:\s*(.{1,40}?)\s*")

    def __init__(self, channel: int = 1) -> None:
        self._fields = _Fields(channel)

    def parse(self, line: str) -> Frame | Reject:
        if line.startswith("?"):
            return Reject("rejected")
        # No name begins with a digit: a comma before one is a decimal comma.
        parts = re.split(r",(?!\d)", line.rstrip(","))
        matches = [self._field.fullmatch(part) for part in parts]
        found = {m[1]: whole_quantity(m[2]) for m in matches if m}
        known = {name: value for name, value in found.items() if value is not None}
        if len(known) < len(parts):
            return Reject("torn" if known else "banner")
        return self._fields.frame(known, self_delimiting=False)


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
        values = {key: whole_quantity(value) for key, value in data.items() if isinstance(value, str)}
        fields = {key: value for key, value in values.items() if value is not None}
        if not fields:
            return Reject("foreign")
        return self._fields.frame(fields, self_delimiting=True)


class Pattern:
    """A regular expression with the groups ``voltage_v`` and ``current_a``, or ``power_w``.

    Optional groups: ``time_s`` (the meter's own clock), ``sequence``, and ``checksum`` over all that stands
    before the character in front of it: 2 hexadecimal digits are an exclusive or, 4 are CRC-16/XMODEM.
    What follows a group and belongs to its number, a decimal comma, an exponent, a unit, is read with it.
    """

    name, baud = "pattern", 115200
    _units: ClassVar = {"voltage_v": ("", "V"), "current_a": ("", "A"), "power_w": ("", "W", "VA")}

    def __init__(self, pattern: str = DEFAULT_PATTERN, period_s: float = 0.170) -> None:
        try:
            self._line = re.compile(pattern)
        except re.error as error:
            raise HardwareError(f"meter.pattern is not a regular expression: {error}") from None
        groups = set(self._line.groupindex)
        if not ({"voltage_v", "current_a"} <= groups or "power_w" in groups):
            raise HardwareError("meter.pattern: needs the groups voltage_v and current_a, or power_w")
        self.period_s = period_s
        self._look = _Look()

    def parse(self, line: str) -> Frame | Reject:
        match = self._match(line)
        if match is None and "checksum" not in self._line.groupindex:
            match = self._match(re.sub(r"(?<=\d),(?=\d)", ".", line))
        if match is None:
            return Reject("torn" if re.search(r"[=:]\s*-?\d", line) else "banner")
        checksum = match["checksum"] if "checksum" in self._line.groupindex else None
        if checksum is not None and not _checks(line[: max(0, match.start("checksum") - 1)], checksum):
            return Reject("torn")
        starts = sorted(match.start(name) for name in self._line.groupindex if match[name] is not None)
        values: dict[str, Quantity] = {}
        for name in ("voltage_v", "current_a", "power_w"):
            if name in self._line.groupindex and match[name] is not None:
                start = match.start(name)
                end = min((other for other in starts if other > start), default=None)
                value = quantity(match.string, start, end)
                if value is None or value.unit not in self._units[name]:
                    return Reject("implausible" if whole_quantity(match[name]) is None else "torn")
                values[name] = value
        if not self._look.usual(tuple((value.decimals, value.unit) for value in values.values())):
            return Reject("torn")
        if "power_w" in values:
            power, quantum, kind = values["power_w"].value, values["power_w"].worth, "real"
            if values["power_w"].unit == "VA" or values.get("voltage_v", _MAINS).value < _LEAST_V:
                kind = "apparent"
        else:
            (power, quantum), kind = _apparent(values["voltage_v"], values["current_a"]), "apparent"
        time_s, sequence = (
            whole_quantity(match[name]) if name in self._line.groupindex and match[name] is not None else None
            for name in ("time_s", "sequence")
        )
        return Frame(
            power, kind, quantum, None if time_s is None else time_s.value,
            None if sequence is None else int(sequence.value), checked=checksum is not None,
        )  # fmt: skip

    def _match(self, line: str) -> re.Match[str] | None:
        whole = self._line.fullmatch(line)
        return whole or (None if "checksum" in self._line.groupindex else self._line.search(line))


_MAINS = Quantity(230.0, 1.0, 0, "V")


def _apparent(voltage: Quantity, current: Quantity) -> tuple[float, float]:
    """Apparent power and the worth of the current's last digit; NaN outside any mains voltage."""
    if (
        not _LEAST_V <= voltage.value <= _MOST_V
        or voltage.unit not in ("", "V")
        or current.unit not in ("", "A")
    ):
        return math.nan, 0.0
    return voltage.value * current.value, voltage.value * current.worth


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
