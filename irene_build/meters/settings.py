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


def _text(value: Any) -> str:
    return "" if isinstance(value, str) and value else "must be text"


def _index(value: Any) -> str:
    return "" if isinstance(value, str) else _whole(0, 255)(value)


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _table(value: Any) -> str:
    return "" if isinstance(value, Mapping) else "must be a table"


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> str:
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if fits else f"must be a whole number from {low} to {high}"

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any) -> str:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return "" if fits and low <= value <= high else f"must be a number from {low:g} to {high:g}"

    return check


def _baud(value: Any) -> str:
    return "" if value == "auto" or not _whole(50, 4_000_000)(value) else "must be auto or a baud rate"


_SECONDS, _PATIENCE = _number(0.001, 3600.0), _number(0.0, 86400.0)
_EMONPI: dict[str, Check] = {
    "port": _text, "baud": _baud, "grammar": _text, "pattern": _text, "node": _whole(0, 255),
    "channel": _whole(0, 12), "ct_turns": _whole(1, 1000), "reverse": _flag, "period_s": _SECONDS,
    "window_s": _SECONDS, "command": _text, "listen_s": _SECONDS, "reconnect_s": _PATIENCE, "quarantine": _text,
}  # fmt: skip
_PLUG: dict[str, Check] = {
    "host": _text, "channel": _whole(0, 31), "user": _text, "password": _text, "poll_s": _SECONDS,
    "timeout_s": _SECONDS, "reconnect_s": _PATIENCE, "window_s": _SECONDS, "quantum_w": _number(0.0, 1000.0),
    "reverse": _flag,
}  # fmt: skip
#: driver -> its settings; PROFILE.md says what they mean.
SETTINGS: dict[str, dict[str, Check]] = {
    "emonpi": _EMONPI,
    "nvml": {"gpu": _index, "reading": _text, "poll_s": _SECONDS, "step_s": _SECONDS},
    "rapl": {"root": _text, "psys": _flag, "poll_s": _SECONDS},
    "shelly": _PLUG,
    "tasmota": _PLUG,
    "replay": {"file": _text, "session": _whole(1, 2**31), "speed": _number(0.0, 1e6)},
    "virtual": {**_EMONPI, "model": _table},
}
_ANY: dict[str, Check] = {
    "driver": _text, "boundary": _text, "reconcile": _text, "quarantine": _text, "max_power_w": _number(1.0, 1e6),
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
