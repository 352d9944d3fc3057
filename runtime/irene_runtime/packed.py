"""Constants as tables of words and numbers.

A generated module writes them so: a person can read them, and they take a third fewer bytes than dicts and lists.
A tuple ``(kind, text)`` stands for plain data; everything else stands for itself:

    ("list", ".5 -1.25 3,4 7,")             [0.5, -1.25, [3, 4], [7]]
    ("pairs", "Linear 64 Tanh GELU")        {"Linear": 64, "Tanh": "GELU"}
    ("rows", "name weight\\nlaunch .5")      [{"name": "launch", "weight": 0.5}]
    ("table", "level q far\\nml .5 -")       {"ml": {"q": 0.5}}
    ("same", "tiers live terms")            what stands there, by keys from the top
    ("like", "tiers live terms\\nq\\n.5")     the first rows of what stands there, but for the keys of the second line

A number with a point or an exponent is a float, one without is an int; ``-`` is a key that is not there, ``"`` the word
above, and ``,3`` in a list begins with the number that the word before begins with.
"""

from typing import Any, Dict, Sequence


def _value(word: str) -> Any:
    """A number, a word, or a list of numbers, which has a comma."""
    if "," in word:
        return [_value(part) for part in word.split(",") if part]
    try:
        return float(word) if "." in word or "e" in word else int(word)
    except ValueError:
        return word


def _record(keys: Sequence[str], words: Sequence[str]) -> Dict[str, Any]:
    """One line of a table."""
    return {key: _value(word) for key, word in zip(keys, words) if word != "-"}


def unpacked(data: Any, top: Any = None, depth: int = 2) -> Any:
    """Every packed table written out. Raises ValueError where one is none, LookupError where one leads nowhere."""
    top = data if top is None else top
    if isinstance(data, dict):
        return {key: unpacked(value, top, depth) for key, value in data.items()}
    if isinstance(data, list):
        return [unpacked(value, top, depth) for value in data]
    if not isinstance(data, tuple):
        return data
    kind, text = data
    words = text.split()
    if kind == "list":
        first = ""
        for index, word in enumerate(words):
            words[index] = first + word if word[0] == "," != word else word
            first = words[index].split(",")[0]
        return [_value(word) for word in words]
    if kind == "pairs":
        return _record(words[::2], words[1::2])
    keys, *lines = [line.split() for line in text.strip().split("\n")]
    if kind in ("same", "like") and depth:
        there = top
        for key in keys:
            there = there[key]
        there = unpacked(there, top, depth - 1)
        if kind == "same":
            return there
        keys, *lines = lines
        others = [{key: old[key] for key in old if key not in keys} for old in there]
        return [dict(other, **_record(keys, line)) for other, line in zip(others, lines)]
    for above, line in zip(lines, lines[1:]):
        line[:] = [old if word == '"' else word for old, word in zip(above, line)]
    if kind == "rows":
        return [_record(keys, line) for line in lines]
    if kind == "table":
        return {line[0]: _record(keys[1:], line[1:]) for line in lines}
    raise ValueError("no packed table of kind %.20r" % (kind,))
