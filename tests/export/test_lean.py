"""Leaning the runtime's source: what goes, what stays, and that it is the same program."""

from __future__ import annotations

import ast

from irene_build.export.lean import lean

SOURCE = '''
def main() -> int:
    """Public.

        With an indented example.
    """
    return _helper(Shown().method(3)) + hidden(0)


class Shown:
    """A class."""

    def method(self, x: "Quoted") -> int:
        """Stays."""
        text = """raw
    text"""
        return x + len(text)

    def save(self) -> None:  # build tool only
        """Goes."""


def _helper(x: int, _unseen: float = 1.0) -> int:
    """Goes: private."""
    unseen: "List[int]" = []
    return {
        "a": x,  # type: ignore[misc]
    }["a"]


class Quoted:
    pass


def hidden(x: complex) -> complex:
    """First line

    Second.
    """
    return x


# A comment that belongs to what goes.
def unused() -> None:
    pass


UNUSED = 1
USED = globals().get("CONSTANT")
CONSTANT = 2
'''


def test_what_goes_and_what_stays() -> None:
    text = lean(SOURCE, roots=("main", "Shown", "USED"))
    for gone in (
        "unused",
        "UNUSED",
        "A comment",
        "save",
        "Goes",
        "type: ignore",
        "float",
        "List",
        "complex",
        "Second",
        "\n\n\n",
    ):
        assert gone not in text
    for kept in (
        "Public.",
        "Stays.",
        "class Quoted",
        "CONSTANT = 2",
        " def method",
        "\n  return x + len(text)",
    ):
        assert kept in text


def test_it_is_the_same_program() -> None:
    text = lean(SOURCE, roots=("main", "Shown", "USED"))
    scope: dict[str, object] = {}
    exec(compile(ast.parse(text), "lean", "exec"), scope)
    assert scope["main"]() == 3 + len("raw\n    text")  # type: ignore[operator]


def test_a_level_of_indentation_is_one_space() -> None:
    text = lean("def main():\n    return 1\n", roots=("main",))
    assert text == "def main():\n return 1\n"


def test_a_level_of_indentation_is_as_asked_for() -> None:
    text = lean(SOURCE, roots=("main", "Shown", "USED"), indent=4)
    assert "\n    def method" in text and "\n        return x + len(text)" in text


def test_without_notes_only_what_users_read_stays() -> None:
    source = SOURCE.replace("class Quoted:", '# Why.\nclass Quoted:\n    """Not for users."""\n').replace(
        "return x + len(text)", 'text += "# no comment"  # a comment\n\n        return x + len(text)'
    )
    roots = ("main", "Shown", "USED")
    with_notes, text = lean(source, roots=roots), lean(source, roots=roots, notes=False)
    for gone in ("# Why.", "Not for users.", "# a comment"):
        assert gone in with_notes and gone not in text
    assert "\n\n " not in text.replace(' """Public.\n\n ', "")
    for kept in ("Public.\n\n  With an indented example.", "Stays.", "A class.", '"# no comment"'):
        assert kept in text
