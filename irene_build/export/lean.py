"""Makes the runtime's source smaller for the generated module, without changing what it does.

A single file of at most 100 KB holds the runtime and the constants. What users call keeps its docstrings and
types. Of the rest, docstrings are cut to their first line (private ones go) and annotations go, as do
definitions that only the build tool uses and hints for formatter and type checker; and a level of indentation
is one space. ``lean`` proves by the syntax tree that nothing else has changed.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator

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
_WIDTH = 118
_Definition = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def lean(source: str, roots: Iterable[str] = ROOTS, indent: int = 1, notes: bool = True) -> str:
    """The same program for ``roots``, in fewer bytes.

    ``indent``: spaces a level. ``notes``: whether comments, and docstrings of classes that users do not call, stay.
    Raises AssertionError where the result would not be the same program.
    """
    roots = tuple(roots)
    source = _without(source, _unreached(ast.parse(source), roots) + _build_only(source))
    before = _program(source, roots)
    source = _unannotated(_shortened(source, roots, notes), roots)
    source = source if notes else _uncommented(source)
    source = _filled(_indented(_HINT.sub("", source), indent))
    source = re.sub(r"\n{3,}", "\n\n", source)
    assert _program(source, roots) == before, "leaning the runtime's source changed it"
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


def _functions(
    tree: ast.Module, roots: Iterable[str]
) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, bool, bool]]:
    """Every definition; whether users call it; and whether it is private by its name or its place."""

    def visit(
        node: ast.AST, shown: bool, private: bool
    ) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, bool, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                hidden = private or (child.name.startswith("_") and not child.name.endswith("__"))
                seen = shown and not hidden
                yield child, seen, hidden
                yield from visit(child, seen, hidden or isinstance(child, ast.FunctionDef))
            else:
                yield from visit(child, shown, private)

    for top in tree.body:
        name = getattr(top, "name", "")
        yield from visit(ast.Module([top], []), name in roots, False)


def _shortened(source: str, roots: Iterable[str], notes: bool) -> str:
    """Docstrings of what users do not call go; with ``notes``, those of classes keep their first line."""
    lines = source.split("\n")
    cut: set[int] = set()
    for node, shown, private in _functions(ast.parse(source), roots):
        if ast.get_docstring(node) is None or shown:
            continue
        first, last = node.body[0].lineno - 1, (node.body[0].end_lineno or 0) - 1
        if len(node.body) > 1 and (private or not notes or isinstance(node, ast.FunctionDef)):
            cut.update(range(first, last + 1))
        elif last > first:
            cut.update(range(first + 1, last + 1))
            lines[first] += '"""'
    return "\n".join(line for index, line in enumerate(lines) if index not in cut)


def _uncommented(source: str) -> str:
    """The source without its comments, except those between the modules that it was joined of, and with blank lines
    between definitions of a module alone."""
    lines = source.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# ---- "):
            row, column = token.start
            kept = lines[row - 1][:column].rstrip()
            lines[row - 1] = kept if kept else "\0"
    blank = {index for index, line in enumerate(lines[:-1]) if not line and lines[index + 1].startswith(" ")}
    for node in ast.walk(ast.parse(source)):
        if _is_text(node):
            blank -= set(range(node.lineno, node.end_lineno or node.lineno))  # type: ignore[attr-defined]
    return "\n".join(line for index, line in enumerate(lines) if line != "\0" and index not in blank)


def _filled(source: str) -> str:
    """Statements over several lines fill their lines; tables, comments and text over several lines stay."""
    lines = source.split("\n")
    spans: list[tuple[int, int]] = []
    first, plain = 0, True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            continue
        first = first or token.start[0]
        if token.type == tokenize.COMMENT or token.start[0] != token.end[0]:
            plain = False
        if token.type == tokenize.NEWLINE:
            rows = lines[first : token.start[0] - 1]
            table = len(rows) > 1 and all(re.match(r' +"\w+": ', row) for row in rows)
            if plain and token.start[0] > first and not table:
                spans.append((first - 1, token.start[0]))
            first, plain = 0, True
    for start, end in reversed(spans):
        out = [lines[start]]
        for line in map(str.strip, lines[start + 1 : end]):
            tight = out[-1].endswith(("(", "[", "{")) or line.startswith((")", "]", "}"))
            before = out[-1][:-1] if line.startswith(("]", "}")) and out[-1].endswith(",") else out[-1]
            joined = before + ("" if tight else " ") + line
            if len(joined) <= _WIDTH:
                out[-1] = joined
            else:
                out.append(lines[start][: len(lines[start]) - len(lines[start].lstrip())] + "  " + line)
        lines[start:end] = out
    return "\n".join(lines)


def _hidden_annotations(tree: ast.Module, roots: Iterable[str]) -> list[ast.expr]:
    """Annotations of local names, of attributes, and of functions that no user calls."""
    out: list[ast.expr] = []
    for node, shown, _ in _functions(tree, roots):
        if not isinstance(node, ast.FunctionDef):
            continue
        out += [n.annotation for n in ast.walk(node) if isinstance(n, ast.AnnAssign) and n.value is not None]
        if not shown:
            spec = node.args
            given = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
            out += [a.annotation for a in given if a is not None and a.annotation is not None]
            out += [node.returns] if node.returns is not None else []
    return out


def _unannotated(source: str, roots: Iterable[str]) -> str:
    """The source without the hidden annotations, each with the colon or arrow before it."""
    lines = source.split("\n")
    unique = {(a.lineno, a.col_offset): a for a in _hidden_annotations(ast.parse(source), roots)}
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


def _indented(source: str, indent: int) -> str:
    """``indent`` spaces a level; lines inside of brackets and docstrings keep their place relative to it."""
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
        out.append(" " * (width // 4 * indent + (width % 4 if index in docstrings else 0)) + text)
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


def _program(source: str, roots: Iterable[str]) -> str:
    """What is run: the syntax tree, without docstrings and without annotations that nothing reads."""
    tree = ast.parse(source)
    hidden = {id(annotation) for annotation in _hidden_annotations(tree, roots)}
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if id(getattr(node, name, None)) in hidden and not isinstance(node, ast.AnnAssign):
                setattr(node, name, None)
    tree = _Plain(hidden).visit(tree)
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [n for n in node.body if not _is_text(n)]  # type: ignore[attr-defined]
    return ast.dump(tree)
