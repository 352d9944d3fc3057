"""Leaning the runtime's source: what goes, what stays, and that it is the same program."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from irene_build.export.minify import EVERYTHING, FIRST_LINES, USERS, lean, written

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


ROOTS = ("main", "Shown", "USED")


def test_what_goes_and_what_stays() -> None:
    text = lean(SOURCE, ROOTS)
    for gone in ("unused", "UNUSED", "A comment", "save", '"""Goes."""', "float", "List", "complex"):
        assert gone not in text
    for kept in (
        "Public.",
        "Stays.",
        "Goes: private.",
        "class Quoted",
        "CONSTANT = 2",
        "def method",
        "_unseen=1.0",
    ):
        assert kept in text


def test_entries_of_forms_that_are_not_needed_go_with_what_only_they_need() -> None:
    source = (
        SOURCE + 'class A:\n    pass\n\n\nclass B:\n    pass\n\n\nFORMS = {\n    "a": A,\n    "b": B,\n}\n'
    )
    source = source.replace("return x\n", 'return FORMS["a"] and x\n')
    assert {"A", "B", "FORMS"} <= set(_run(lean(source, ROOTS)))
    scope = _run(lean(source, ROOTS, forms=["a"]))
    assert "A" in scope and "B" not in scope and list(scope["FORMS"]) == ["a"]


def _run(text: str) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(compile(ast.parse(text), "lean", "exec"), scope)
    return scope


@pytest.mark.parametrize("notes", [USERS, FIRST_LINES, EVERYTHING])
@pytest.mark.parametrize("indent", [1, 2, 4])
def test_it_is_the_same_program(indent: int, notes: int) -> None:
    text = written(lean(SOURCE, ROOTS), ROOTS, indent, notes)
    assert _run(text)["main"]() == 3 + len("raw\n    text")
    assert f"\n{' ' * indent}def method" in text and f"\n{' ' * 2 * indent}return x + len(text)" in text
    assert "type: ignore" not in text and "\n\n\n" not in text


def test_notes_for_others_than_users_are_kept_as_far_as_asked_for() -> None:
    source = SOURCE.replace("class Quoted:", '# Why.\nclass Quoted:\n    """Not for users."""\n').replace(
        "return x + len(text)", 'text += "# no comment"  # a comment\n\n        return x + len(text)'
    )
    every, first, none = (
        written(lean(source, ROOTS), ROOTS, 1, notes) for notes in (EVERYTHING, FIRST_LINES, USERS)
    )
    for gone in ("# Why.", "Not for users.", "# a comment", "First line", "Goes: private."):
        assert gone in every and gone in first and gone not in none
    assert "Second." in every and "Second." not in first
    assert 'text += "# no comment"\n  return x' in none and "\n\n def method" in none
    for kept in ("Public.\n\n  With an indented example.", "Stays.", "A class.", '"# no comment"'):
        if kept != "A class.":
            assert kept in none
        assert kept in every and kept in first


def test_statements_fill_their_lines() -> None:
    source = "def main(\n  a,\n):\n    return f(\n        1,\n        (\n            2,\n        ),\n    )[(a, b,),]\n"
    assert written(source, ("main",)) == "def main(a):\n    return f(1, (2,))[(a, b),]\n"
