"""Makes the runtime's source smaller for the generated module, without changing what it does.

A single file of at most 100 KB holds the runtime and the constants. What a reader of that file does not miss
is left out: definitions that only the build tool uses, docstrings and annotations of private helpers, hints
for formatter and type checker; and a level of indentation is one space. ``lean`` proves by the syntax tree
that nothing else has changed.
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
    source = _unannotated(source)
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


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _hidden_annotations(tree: ast.Module) -> list[ast.expr]:
    """Annotations of local names, of attributes, and of private functions: what no caller looks at."""
    out: list[ast.expr] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.AnnAssign) and inner.value is not None:
                out.append(inner.annotation)
            private = isinstance(inner, ast.FunctionDef) and (inner is not node or _is_private(node.name))
            if private and isinstance(inner, ast.FunctionDef):
                spec = inner.args
                out += [a.annotation for a in spec.posonlyargs + spec.args + spec.kwonlyargs if a.annotation]
                out += [a.annotation for a in (spec.vararg, spec.kwarg) if a is not None and a.annotation]
                out += [inner.returns] if inner.returns is not None else []
    return out


def _unannotated(source: str) -> str:
    """The source without the hidden annotations, each with the colon or arrow before it."""
    lines = source.split("\n")
    unique = {(a.lineno, a.col_offset): a for a in _hidden_annotations(ast.parse(source))}
    for (row, start), annotation in sorted(unique.items(), reverse=True):
        if annotation.end_lineno == row:
            line = lines[row - 1]
            before = re.sub(r"\s*(->|:)\s*$", "", line[:start])
            lines[row - 1] = before + line[annotation.end_col_offset :]
    return "\n".join(lines)


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


class _Plain(ast.NodeTransformer):
    """Assignments without their hidden annotations."""

    def __init__(self, hidden: set[int]) -> None:
        self._hidden = hidden

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if id(node.annotation) in self._hidden and node.value is not None:
            return ast.Assign([node.target], node.value, lineno=node.lineno)
        return node


def _is_text(node: ast.AST) -> bool:
    """A string that stands alone: a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _program(source: str) -> str:
    """What is run: the syntax tree, without docstrings and without annotations that nothing reads."""
    tree = ast.parse(source)
    hidden = {id(annotation) for annotation in _hidden_annotations(tree)}
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if id(getattr(node, name, None)) in hidden and not isinstance(node, ast.AnnAssign):
                setattr(node, name, None)
    tree = _Plain(hidden).visit(tree)
    for node in ast.walk(tree):
        if _is_text(node):
            node.value = ast.Constant("")  # type: ignore[attr-defined]
    return ast.dump(tree)
