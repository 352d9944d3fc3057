"""The constants of the generated module as Python literals: short, exact, and such that a person can read them.

Numbers and records stand in tables (`irene_runtime.packed`), which say every key once. What a table would not give back
to the last bit and the last type is written out as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from irene_runtime.packed import unpacked

_WIDTH = 108
#: Lines of a table may be wider: it shows at a glance what single records would scatter.
_TABLE_WIDTH = 245
#: A word of so many characters is not said again where it stands in the line above.
_DITTO = 6
#: Keys in the order in which a reader wants them; others follow.
_ORDER = (
    "parent", "level", "primitive", "name", "feature", "of", "map", "by", "columns", "weight", "mean", "scale", "q",
    "slope", "far", "mape", "coverage90",
)  # fmt: skip
Packed = tuple[str, str]


def estimator_literal(estimator: Mapping[str, Any]) -> str:
    """The estimator as a Python literal: ``unpacked`` of it is the estimator, to the last bit."""
    return _text(pack(estimator), 0)


def golden_literal(golden: Mapping[str, Any]) -> str:
    """GOLDEN: one node a line, and one line for each thing that is known of a case."""
    lines = ["GOLDEN = {", f" 'header': {golden['header']!r},"]
    lines += [f" 'nodes': {_text(pack(golden['nodes']), 1)},", " 'cases': ["]
    for case in golden["cases"]:
        pairs = _packed([f"   {key!r}: {value!r}," for key, value in case.items()])
        lines += ["  {" + "\n".join(pairs).strip().rstrip(",") + "},"]
    return "\n".join([*lines, " ],", "}"])


def pack(data: Any) -> Any:
    """The same data with tables as ``(kind, text)``, where that is shorter and exact."""
    return _Packer(data).pack(data, ())


class _Packer:
    """Packs in the order of the text, and points to what was written before where that says the same."""

    def __init__(self, top: Any) -> None:
        self._top = top
        #: Path, data and packed form of every list that has a path, and how many steps away the last of what it
        #: points to is.
        self._lists: list[tuple[tuple[str, ...], list[Any], int]] = []

    def pack(self, data: Any, path: tuple[str, ...] | None) -> Any:
        """``path``: the keys that lead to ``data`` from the top; None where no keys alone do."""
        best, size, steps = None, len(repr(data)), 0
        for form in (_rows, _table, _pairs, _list):
            text = form(data)
            if text is not None and len(text[1]) + 14 < size and _same(unpacked(text), data):
                best, size = text, len(text[1]) + 14
                break
        if isinstance(data, list) and len(data) > 1:
            for there, old, away in self._lists:
                text = _pointer(" ".join(there), old, data) if away < 2 else None
                if text is not None and len(text[1]) + 14 < size and _same(unpacked(text, self._top), data):
                    best, size, steps = text, len(text[1]) + 14, away + 1
            if path and _words(path):
                self._lists.append((path, data, steps))
        if best is not None:
            return best
        if isinstance(data, Mapping):
            return {
                key: self.pack(value, None if path is None else (*path, key)) for key, value in data.items()
            }
        if isinstance(data, (list, tuple)):
            return [self.pack(value, None) for value in data]
        return data


def _pointer(path: str, old: list[Any], data: list[Any]) -> Packed | None:
    """``data`` said by an earlier list: the same, or records of which some keys differ."""
    if len(data) > len(old):
        return None
    if len(data) == len(old) and _same(old, data):
        return ("same", path)
    if not all(isinstance(record, Mapping) for record in (*old, *data)):
        return None
    pairs = list(zip(old, data, strict=False))
    keys = sorted(
        {key for a, b in pairs for key in {*a, *b} if key not in a or key not in b or a[key] != b[key]}
    )
    lines = [_words(keys), *(_words(b.get(key, "-") for key in keys) for _, b in pairs)]
    if not keys or None in lines:
        return None
    return "like", "\n".join([path, *(" ".join(line or ()) for line in lines)])


def _same(one: Any, other: Any) -> bool:
    """Equal to the last bit and type: 1 is not 1.0, 0.0 not -0.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _word(value: Any) -> str | None:
    """A value as one word of a table; None where it cannot be one."""
    if isinstance(value, float):
        text = repr(value)
        text = text[:-1] if text.endswith(".0") else text
        text = text.replace("e-0", "e-")
        sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
        return sign + (digits[1:] if digits.startswith("0.") and len(digits) > 2 else digits)
    if isinstance(value, (list, tuple)):
        words = [_word(item) if isinstance(item, (int, float)) else None for item in value]
        return ",".join(map(str, words)) + ("," if len(words) < 2 else "") if None not in words else None
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    text = str(value)
    return text if text.isascii() and text.split() == [text] and not set(text) & set("\\'\"") else None


def _words(values: Iterable[Any]) -> list[str] | None:
    """All values as words, none of which may be wider than a line."""
    words = [_word(value) for value in values]
    return None if any(w is None or len(w) > _WIDTH for w in words) else [str(w) for w in words]


def _list(data: Any) -> Packed | None:
    words = _words(data) if isinstance(data, list) else None
    if not words:
        return None
    firsts = [word.partition(",")[0] for word in words]
    for index in range(len(words) - 1, 0, -1):
        first = firsts[index]
        if first == firsts[index - 1] and len(first) > 3 and words[index].rstrip(",") != first:
            words[index] = words[index][len(first) :]
    return "list", " ".join(words)


def _pairs(data: Any) -> Packed | None:
    if not isinstance(data, Mapping) or "-" in data.values():
        return None
    words = _words(item for pair in data.items() for item in pair)
    return ("pairs", " ".join(words)) if words else None


def _rows(data: Any) -> Packed | None:
    return _lines("rows", data, [[]] * len(data), []) if _are_records(data, list) else None


def _table(data: Any) -> Packed | None:
    if not _are_records(data, Mapping):
        return None
    return _lines("table", list(data.values()), [[name] for name in data], ["key"])


def _are_records(data: Any, kind: type[Any]) -> bool:
    values: Sequence[Any] = list(data.values()) if isinstance(data, Mapping) else data
    return isinstance(data, kind) and len(data) > 0 and all(isinstance(v, Mapping) and v for v in values)


def _lines(kind: str, data: Sequence[Any], firsts: Sequence[list[str]], head: list[str]) -> Packed | None:
    found = dict.fromkeys(key for record in data for key in record)
    keys = [key for key in _ORDER if key in found] + [key for key in found if key not in _ORDER]
    named = _words(keys)
    if named is None:
        return None
    lines = [" ".join([*head, *named])]
    above = [""] * (len(head) + len(keys))
    for first, record in zip(firsts, data, strict=True):
        words = _words([*first, *(record.get(key, "-") for key in keys)])
        if words is None:
            return None
        shown = [
            '"' if old == word and len(word) >= _DITTO else word
            for old, word in zip(above, words, strict=True)
        ]
        lines.append(" ".join(shown))
        above = words
    return (kind, "\n".join(lines)) if max(map(len, lines)) <= _TABLE_WIDTH else None


def _text(data: Any, depth: int) -> str:
    """A literal; ``depth`` is how far in its first line stands."""
    pad = " " * (depth + 1)
    if isinstance(data, tuple):
        kind, text = data
        lines = text.split("\n") if kind in ("rows", "table", "like") else _wrapped(text.split(), _WIDTH)
        if len(lines) == 1 and len(text) + depth < _WIDTH - 30:
            return repr(data)
        return f"({kind!r}, '''\n  " + "\n  ".join(lines) + "''')"
    short = repr(data)
    if not isinstance(data, (Mapping, list)) or (len(short) + depth < _WIDTH - 10 and "\\n" not in short):
        return short
    if isinstance(data, Mapping):
        lines = _packed([f"{pad}{key!r}: {_text(value, depth + 1)}," for key, value in data.items()])
        return "{\n" + "\n".join(lines).rstrip(",") + "}"
    return "[\n" + ",\n".join(pad + _text(value, depth + 1) for value in data) + "]"


def _packed(lines: Sequence[str]) -> list[str]:
    """Entries of a table, short ones side by side."""
    out: list[str] = []
    for line in lines:
        if out and "\n" not in out[-1] + line and len(out[-1]) + len(line.strip()) + 1 <= _WIDTH:
            out[-1] += " " + line.strip()
        else:
            out.append(line)
    return out


def _wrapped(words: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 1 > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
