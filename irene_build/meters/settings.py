"""Checks the ``[meter]`` table of a profile before a driver sees it.

A setting that is misspelt would be ignored, and one such as ``ct_turns`` would multiply every joule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from irene_build.errors import HardwareError

#: What is wrong with a value, or nothing.
Check = Callable[[Any], str]


def text(value: Any) -> str:
    return "" if isinstance(value, str) and value else "must be text"


def index(value: Any) -> str:
    return "" if isinstance(value, str) else whole(0, 255)(value)


def flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def table(value: Any) -> str:
    return "" if isinstance(value, Mapping) else "must be a table"


def whole(low: int, high: int) -> Check:
    def check(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"must be a whole number from {low} to {high}"

    return check


def number(low: float, high: float) -> Check:
    def check(value: Any) -> str:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return "" if fits and low <= value <= high else f"must be a number from {low:g} to {high:g}"

    return check


def baud(value: Any) -> str:
    return "" if value == "auto" or not whole(50, 4_000_000)(value) else "must be auto or a baud rate"


_SECONDS, _PATIENCE = number(0.001, 3600.0), number(0.0, 86400.0)
_EMONPI: dict[str, Check] = {
    "port": text, "baud": baud, "grammar": text, "pattern": text, "node": whole(0, 255),
    "channel": whole(0, 12), "ct_turns": whole(1, 1000), "reverse": flag, "period_s": _SECONDS,
    "window_s": _SECONDS, "command": text, "listen_s": _SECONDS, "reconnect_s": _PATIENCE, "quarantine": text,
}  # fmt: skip
_PLUG: dict[str, Check] = {
    "host": text, "channel": whole(0, 31), "user": text, "password": text, "poll_s": _SECONDS,
    "timeout_s": _SECONDS, "reconnect_s": _PATIENCE, "window_s": _SECONDS, "quantum_w": number(0.0, 1000.0),
    "reverse": flag,
}  # fmt: skip
#: driver -> its settings; PROFILE.md says what they mean.
SETTINGS: dict[str, dict[str, Check]] = {
    "emonpi": _EMONPI,
    "nvml": {"gpu": index, "reading": text, "poll_s": _SECONDS, "step_s": _SECONDS},
    "rapl": {"root": text, "psys": flag, "poll_s": _SECONDS},
    "shelly": _PLUG,
    "tasmota": _PLUG,
    "replay": {"file": text, "session": whole(1, 2**31), "speed": number(0.0, 1e6)},
    "virtual": {**_EMONPI, "model": table},
}
_ANY: dict[str, Check] = {
    "driver": text, "boundary": text, "reconcile": text, "quarantine": text, "max_power_w": number(1.0, 1e6),
}  # fmt: skip


def check_settings(driver: str, settings: Mapping[str, Any]) -> None:
    """Raises HardwareError that names the setting, and what it may be. Sub-tables of other drivers are theirs."""
    known = {**_ANY, **SETTINGS[driver]}
    for name, value in settings.items():
        if name in SETTINGS and isinstance(value, Mapping):
            continue
        if name not in known:
            own = ", ".join(SETTINGS[driver])
            raise HardwareError(f"meter.{name} is no setting of {driver}: it has boundary, reconcile, {own}")
        wrong = known[name](value)
        if wrong:
            raise HardwareError(f"meter.{name} is {value!r}: {wrong}")
