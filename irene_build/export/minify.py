"""Makes the runtime's source smaller for the generated module, without changing what it does.

A single file of at most 100 KB holds the runtime and the constants. What users call keeps its docstrings and
types. Of the rest annotations go, as do definitions that only the build tool uses, forms that the estimator does not
have, and hints for formatter and type checker; how much else goes is asked for. ``lean`` and ``written`` prove by the
syntax tree that nothing else has changed.
"""

from __future__ import annotations

import ast
import io
import keyword
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence

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
_WIDTH = 110
#: Spaces before the further lines of a statement, beyond those of its first.
_CONTINUED = 4
_Definition = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
#: How much of what is written for readers stays: nothing but what users call, first lines and comments, or all of it.
USERS, FIRST_LINES, EVERYTHING = range(3)


def lean(source: str, roots: Iterable[str] = ROOTS, forms: Iterable[str] | None = None) -> str:
    """The part of a program that ``roots`` need, without annotations that no user reads.

    ``forms``: the entries of its table ``FORMS`` that are needed (default: all). Raises AssertionError where the result
    would not be the same program.
    """
    roots = tuple(roots)
    source = _without(source, _build_only(source))
    source = source if forms is None else _with_forms(source, frozenset(forms))
    before = _program(source, roots)
    source = _unannotated(source, roots)
    assert _program(source, roots) == before, "taking annotations off the runtime's source changed it"
    return _without(source, _unreached(ast.parse(source), roots))


def written(source: str, roots: Iterable[str] = ROOTS, indent: int = 4, notes: int = EVERYTHING) -> str:
    """The same program, laid out anew.

    ``indent``: spaces a level. ``notes``: what stays of comments, and of docstrings that are not for users. Raises
    AssertionError where the result would not be the same program.
    """
    roots = tuple(roots)
    before = _program(source, roots)
    source = _shortened(source, roots, notes)
    source = source if notes else _uncommented(source)
    source = _without_last_commas(_filled(_indented(_HINT.sub("", source), indent)))
    source = re.sub(r"\n{3,}", "\n\n", source)
    assert _program(source, roots) == before, "laying out the runtime's source changed it"
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


def _with_forms(source: str, forms: frozenset[str]) -> str:
    """The source with those entries alone in its table ``FORMS``, which has one a line."""
    cut: list[ast.expr] = []
    for node in ast.parse(source).body:
        if "FORMS" in _names(node) and isinstance(getattr(node, "value", None), ast.Dict):
            keys = node.value.keys  # type: ignore[attr-defined]
            cut += [key for key in keys if key.value not in forms]
    lines = source.split("\n")
    gone = {key.lineno - 1 for key in cut}
    return "\n".join(line for index, line in enumerate(lines) if index not in gone)


def _functions(
    tree: ast.Module, roots: Iterable[str]
) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, bool]]:
    """Every definition, and whether users call it."""

    def visit(node: ast.AST, shown: bool) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                seen = shown and (not child.name.startswith("_") or child.name.endswith("__"))
                yield child, seen
                yield from visit(child, seen)
            else:
                yield from visit(child, shown)

    for top in tree.body:
        yield from visit(ast.Module([top], []), getattr(top, "name", "") in roots)


def _shortened(source: str, roots: Iterable[str], notes: int) -> str:
    """Docstrings of what users do not call go, or keep their first line."""
    lines = source.split("\n")
    cut: set[int] = set()
    for node, shown in _functions(ast.parse(source), roots):
        if ast.get_docstring(node) is None or shown or notes == EVERYTHING:
            continue
        first, last = node.body[0].lineno - 1, (node.body[0].end_lineno or 0) - 1
        if len(node.body) > 1 and not notes:
            cut.update(range(first, last + 1))
        elif last > first:
            cut.update(range(first + 1, last + 1))
            lines[first] += '"""'
    return "\n".join(line for index, line in enumerate(lines) if index not in cut)


def _uncommented(source: str) -> str:
    """The source without its comments, and with blank lines before definitions alone."""
    lines = source.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            kept = lines[row - 1][:column].rstrip()
            lines[row - 1] = kept if kept else "\0"
    inner = re.compile(r" (?! *(def|class|@))")
    blank = {index for index, line in enumerate(lines[:-1]) if not line and inner.match(lines[index + 1])}
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
        lines[start:end] = _refilled(lines[start:end])
    return "\n".join(lines)


def _refilled(lines: Sequence[str]) -> list[str]:
    """One statement in as few lines as it fits."""
    out = [lines[0]]
    pad = " " * (len(lines[0]) - len(lines[0].lstrip()) + _CONTINUED)
    for line in map(str.strip, lines[1:]):
        closes = line.startswith((")", "]", "}"))
        tight = out[-1].endswith(("(", "[", "{")) or closes
        joined = out[-1] + ("" if tight else " ") + line
        if len(joined) <= _WIDTH:
            out[-1] = joined
        else:
            out.append(pad + line)
    return out


def _without_last_commas(source: str) -> str:
    """The source without the comma before a closing bracket, unless that comma makes a tuple of one."""
    lines = source.split("\n")
    needless: list[tuple[int, int]] = []
    opened: list[list[int]] = []  # of every open bracket: whether no tuple can be in it, commas so far
    last = tokenize.TokenInfo(tokenize.NL, "", (0, 0), (0, 0), "")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NL, tokenize.COMMENT):
            continue
        if token.type == tokenize.OP and token.string in "([{":
            called = last.string in (")", "]") or (
                last.type == tokenize.NAME and not keyword.iskeyword(last.string)
            )
            opened.append([token.string == "{" or called == (token.string == "("), 0])
        elif token.type == tokenize.OP and token.string in ")]}":
            safe, commas = opened.pop()
            if last.string == "," and last.end == token.start and (safe or commas > 1):
                needless.append(last.start)
        elif token.string == "," and opened:
            opened[-1][1] += 1
        last = token
    for row, column in reversed(needless):
        lines[row - 1] = lines[row - 1][:column] + lines[row - 1][column + 1 :]
    return "\n".join(lines)


def _hidden_annotations(tree: ast.Module, roots: Iterable[str]) -> list[ast.expr]:
    """Annotations of names, of attributes, and of functions that no user calls."""
    tables = [n for n in tree.body if isinstance(n, ast.AnnAssign) and n.value is not None]
    out: list[ast.expr] = [node.annotation for node in tables]
    for node, shown in _functions(tree, roots):
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
    tree = ast.parse(source)
    unique = {(a.lineno, a.col_offset): a for a in _hidden_annotations(tree, roots)}
    assigned = [n.annotation for n in ast.walk(tree) if isinstance(n, ast.AnnAssign)]
    spaced = {(a.lineno, a.col_offset) for a in assigned}
    for (row, start), annotation in sorted(unique.items(), reverse=True):
        if annotation.end_lineno == row:
            line = lines[row - 1]
            before = re.sub(r"\s*(->|:)\s*$", "", line[:start])
            after = line[annotation.end_col_offset :]
            lines[row - 1] = before + (after if (row, start) in spaced else re.sub("^ = ", "=", after))
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
