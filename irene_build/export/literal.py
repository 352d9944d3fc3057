"""Plain data as Python literals that a person can read: what fits a line stands on one, the rest is indented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WIDTH = 110
_INDENT = 2
#: Lists and tables up to so many characters stand side by side, as numbers do.
_SHORT = 32


def literal(data: Any, start: int = 0, depth: int = 0) -> str:
    """``data`` (dicts, lists, texts, numbers, None) as a literal that evaluates to it, to the last bit.

    ``start``: columns that are taken on the first line. ``depth``: how far in that line stands, in levels.
    """
    short = repr(data)
    if len(short) + max(start, depth * _INDENT) < _WIDTH or not data or not isinstance(data, (Mapping, list)):
        return short
    pad = " " * _INDENT * (depth + 1)
    inner = data.values() if isinstance(data, Mapping) else data
    if not any(isinstance(item, (Mapping, list)) and len(repr(item)) > _SHORT for item in inner):
        pairs = (
            [f"{key!r}: {value!r}" for key, value in data.items()]
            if isinstance(data, Mapping)
            else map(repr, data)
        )
        entries = _filled([*pairs], pad)
    elif isinstance(data, Mapping):
        heads = [f"{pad}{key!r}: " for key in data]
        entries = [
            head + literal(value, len(head) + 1, depth + 1)
            for head, value in zip(heads, data.values(), strict=True)
        ]
    else:
        entries = [pad + literal(item, 1, depth + 1) for item in data]
    opening, closing = "{}" if isinstance(data, Mapping) else "[]"
    return "\n".join([opening, *(entry + "," for entry in entries), " " * _INDENT * depth + closing])


def _filled(words: list[str], pad: str) -> list[str]:
    """Words side by side, as many as fit a line."""
    lines = [pad + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 > _WIDTH:
            lines.append(pad + word)
        else:
            lines[-1] += ", " + word
    return lines
