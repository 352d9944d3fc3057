"""Numbers as meters write them: decimal points and commas, exponents, units with a prefix."""

from __future__ import annotations

import re
from typing import NamedTuple

_QUANTITY = re.compile(
    r"(-?\d{1,9}(?:[.,]\d{1,9})?)"
    r"(?:[eE]([+-]?\d{1,2}))?"
    r"(?:\s?([kKmM]?)(VA|Wh|W|V|A|Hz|C))?"
    # What goes on as a number or a word is no quantity that is known here.
    r"(?![0-9A-Za-z%])(?![.,]\d)"
)
_PREFIX = {"": 1.0, "k": 1e3, "K": 1e3, "m": 1e-3, "M": 1e6}


class Quantity(NamedTuple):
    """A number with its unit taken out: ``value`` in W, V, A, Wh, ...; ``worth``: of its last digit."""

    value: float
    worth: float
    decimals: int
    unit: str


def quantity(text: str, start: int = 0, end: int | None = None) -> Quantity | None:
    """``312``, ``230,47``, ``3.12e2``, ``0.312kW`` at ``start`` of ``text``; None where there is no such thing."""
    match = _QUANTITY.match(text, start, len(text) if end is None else end)
    return None if match is None else _read(match)


def whole_quantity(text: str) -> Quantity | None:
    """The quantity that ``text`` is, all of it."""
    match = _QUANTITY.fullmatch(text)
    return None if match is None else _read(match)


def _read(match: re.Match[str]) -> Quantity:
    number = match[1].replace(",", ".")
    scale = 10.0 ** int(match[2] or 0) * _PREFIX[match[3] or ""]
    decimals = len(number.partition(".")[2])
    return Quantity(float(number) * scale, 10.0**-decimals * scale, decimals, match[4] or "")
