"""Makes the runtime's source smaller for the generated module, without changing what it does.

A single file of at most 100 KB holds the runtime and the constants. What a reader of that file does not miss
is left out: definitions that only the build tool uses, docstrings of private helpers, hints for formatter and
type checker; and a level of indentation is one space. ``lean`` proves by the syntax tree that nothing else
has changed.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable

#: What users and the command line need; a definition that none of them reaches is left out.
ROOTS = (
    "Estimator",
    "Prediction",
    "NodePrediction",
    "Monitor",
    "Attached",
    "Drift",
    "load_tree",
    "loads",
    "main",
)
#: Marks a method that only the build tool uses.
BUILD_ONLY = "# build tool only"
_HINT = re.compile(r"  # (type: ignore|fmt: (skip|off|on)|noqa|build tool only)[^\n]*$", re.M)
_Definition = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def lean(source: str, roots: Iterable[str] = ROOTS) -> str:
    """The same program for ``roots``, in fewer bytes.

    Raises AssertionError where the result would not be the same program; a test of every export runs it.
    """
    source = _without(source, _unreached(ast.parse(source), roots) + _build_only(source))
    source = _without(source, _private_docstrings(ast.parse(source)))
    before = _program(source)
    source = _HINT.sub("", source)
    source = _indented(source)
    source = re.sub(r"\n{3,}", "\n\n", source)
    assert _program(source) == before, "leaning the runtime's source changed it"
    return source


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    return {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}


def _unreached(tree: ast.Module, roots: Iterable[str]) -> list[ast.stmt]:
    """Definitions at module level that nothing reachable mentions, by name or in a quoted annotation."""
    defined = {name: node for node in tree.body for name in _names(node)}
    reached: set[str] = set()
    todo = [name for node in tree.body if not isinstance(node, _Definition) for name in _mentioned(node)]
    todo += roots
    while todo:
        name = todo.pop()
        if name in defined and name not in reached:
            reached.add(name)
            todo.extend(_mentioned(defined[name]))
    return [node for node in tree.body if _names(node) and not _names(node) & reached]


def _mentioned(node: ast.AST) -> set[str]:
    out = {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)}
    for leaf in ast.walk(node):
        if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and len(leaf.value) < 80:
            out.update(re.findall(r"[A-Za-z_]\w*", leaf.value))
    return out


def _build_only(source: str) -> list[ast.stmt]:
    lines = source.split("\n")
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and BUILD_ONLY in lines[node.lineno - 1]
    ]


def _private_docstrings(tree: ast.Module) -> list[ast.stmt]:
    """Docstrings of what begins with an underscore, and of what is inside of a function."""
    out: list[ast.stmt] = []

    def visit(node: ast.AST, private: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                hidden = private or child.name.startswith("_")
                if hidden and ast.get_docstring(child) is not None and len(child.body) > 1:
                    out.append(child.body[0])
                visit(child, hidden or isinstance(child, ast.FunctionDef))
            else:
                visit(child, private)

    visit(tree, False)
    return out


def _without(source: str, nodes: Iterable[ast.stmt]) -> str:
    """The source without these statements, their decorators and the comments right above them."""
    lines = source.split("\n")
    cut: set[int] = set()
    for node in nodes:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
        while (
            first > 0
            and lines[first - 1].lstrip().startswith("#")
            and not lines[first - 1].startswith("# ----")
        ):
            first -= 1
        cut.update(range(first, node.end_lineno or node.lineno))
    return "\n".join(line for index, line in enumerate(lines) if index not in cut)


def _indented(source: str) -> str:
    """One space a level; lines inside of brackets and docstrings keep their place relative to it."""
    lines = source.split("\n")
    inside: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING and token.start[0] != token.end[0]:
            inside.update(range(token.start[0], token.end[0]))
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and _is_text(node):
            docstrings.update(range(node.lineno, node.end_lineno or node.lineno))
    out = []
    for index, line in enumerate(lines):
        if index in inside and index not in docstrings:
            out.append(line)
            continue
        text = line.lstrip(" ")
        width = len(line) - len(text)
        out.append(" " * (width // 4 + (width % 4 if index in docstrings else 0)) + text)
    return "\n".join(out)


def _is_text(node: ast.AST) -> bool:
    """A string that stands alone: a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _program(source: str) -> str:
    """What is run: the syntax tree, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if _is_text(node):
            node.value = ast.Constant("")  # type: ignore[attr-defined]
    return ast.dump(tree)
