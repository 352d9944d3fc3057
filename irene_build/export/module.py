"""The estimator as one Python file: the runtime's own modules one after the other, then the constants.

Nothing is translated: what ships is the source that the build tool itself runs (DESIGN, rule 2). Its modules are
joined by cutting their imports of each other; the constants follow as Python literals, one table a primitive.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from irene_build import __version__
from irene_build.errors import EstimatorError
from irene_build.export.lean import lean
from irene_build.paths import runtime_source, templates_dir
from irene_runtime import MODULES
from irene_runtime.features import FEATURES, MEANINGS

#: A module above this is written all the same, with a warning.
MAX_BYTES = 100_000
#: How the runtime is written (arguments of ``parts``), roomiest first: the first that leaves enough for the constants.
_FORMS = ((4, True), (2, True), (1, True), (1, False))
_WIDTH = 110


@dataclass(frozen=True)
class Part:
    """One runtime module without its docstring and its imports. ``about``: the docstring's first line."""

    name: str
    about: str
    source: str


@cache
def parts(indent: int = 1, notes: bool = True) -> tuple[list[Part], list[str]]:
    """The runtime's modules, and the lines of the one import block that they need; the same for every estimator.

    ``indent`` and ``notes`` as in ``lean``.
    """
    out: list[Part] = []
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    defined: dict[str, str] = {}
    for name in MODULES:
        text = runtime_source(name)
        tree = ast.parse(text)
        lines = text.splitlines()
        cut: set[int] = set()
        for index, node in enumerate(tree.body):
            is_docstring = index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, ast.Import):
                plain |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                named.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
            elif not is_docstring and not isinstance(node, ast.ImportFrom):
                for new in _names(node):
                    if new in defined:
                        raise EstimatorError(
                            f"runtime modules {defined[new]} and {name} both define {new}: one of them must be "
                            "renamed, since they become one file"
                        )
                    defined[new] = name
                continue
            cut.update(range(node.lineno - 1, node.end_lineno or node.lineno))
        body = "\n".join(line for index, line in enumerate(lines) if index not in cut).strip("\n")
        about = (ast.get_docstring(tree) or "").split("\n")[0] if notes else ""
        out.append(Part(name, about, re.sub(r"\n{4,}", "\n\n\n", body)))
    joined = "\n\n".join(f"# ---- {part.name}\n{part.source}" for part in out)
    texts = re.split(r"^# ---- \w+\n", lean(joined, indent=indent, notes=notes), flags=re.M)[1:]
    out = [Part(part.name, part.about, text.strip("\n")) for part, text in zip(out, texts, strict=True)]
    imports = [f"import {name}" for name in sorted(plain)]
    imports += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(named.items())]
    return out, imports


def _names(node: ast.stmt) -> list[str]:
    """What a statement at module level defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    return [leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]


def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(str(templates_dir())), undefined=StrictUndefined, keep_trailing_newline=True,
        trim_blocks=True, lstrip_blocks=True, autoescape=False,
    )  # fmt: skip
    return environment.get_template(name)


def render_module(estimator: Mapping[str, Any], digest: str, golden: Mapping[str, Any]) -> str:
    """The text of ``irene_estimator.py``, as roomy as fits MAX_BYTES. The same arguments give the same text."""
    constants, tests = estimator_literal(estimator), golden_literal(golden)
    text = ""
    for indent, notes in _FORMS:
        runtime, imports = parts(indent, notes)
        text = _template("irene_estimator.py.j2").render(
            estimator=estimator,
            version=__version__,
            digest=digest,
            runtime=runtime,
            imports=imports,
            constants=constants,
            golden=tests,
        )
        if len(text.encode("utf-8")) <= MAX_BYTES:
            break
    return text


def render_readme(manifest: Mapping[str, Any], files: Sequence[str]) -> str:
    """The text of the bundle's README.md."""
    text: str = _template("bundle_README.md.j2").render(
        manifest=manifest, files=files, meanings=MEANINGS, trees=[f for f in files if f.startswith("trees/")]
    )
    return text


def estimator_literal(estimator: Mapping[str, Any]) -> str:
    """The estimator as a Python literal that a person can read: floats by repr, one term a line."""
    return _literal(estimator, 0, ())


def golden_literal(golden: Mapping[str, Any]) -> str:
    """GOLDEN: one node a line, and one line for each thing that is known of a case."""
    lines = ["GOLDEN = {", f" 'header': {_inline(golden['header'])},", " 'nodes': ["]
    lines += [f"  {node!r}," for node in golden["nodes"]]
    lines += [" ],", " 'cases': ["]
    for case in golden["cases"]:
        pairs = [f"{key!r}: {value!r}" for key, value in case.items()]
        lines += ["  {" + ",\n   ".join(pairs) + "},"]
    return "\n".join([*lines, " ],", "}"])


def _comment(path: tuple[str, ...]) -> str:
    """What a table means, where a reader would ask."""
    if path[-2:-1] == ("leaf",) or (path[-1:] == ("fallback",) and "interval" not in path):
        return f"  # {path[-1]}: J = sum of weight [J] * columns"
    if path[-1:] == ("aggregation",):
        return "  # equation 3: alpha = 1 + tanh(weights . monomials(z) + bias) / tau, no unit"
    if path[-1:] == ("interval",):
        return "  # q: half-width in natural-log units"
    if path[-1:] == ("rescale",):
        return "  # exponent of P(root) / A(root), per level"
    return ""


def _literal(value: Any, depth: int, path: tuple[str, ...]) -> str:
    short = _inline(value)
    room = _WIDTH - depth - 8
    is_term = path[-2:] == ("terms", "#")
    if (
        not isinstance(value, (Mapping, list, tuple))
        or is_term
        or (len(short) <= room and not _comment(path))
    ):
        return short
    pad = " " * (depth + 1)
    if isinstance(value, Mapping):
        lines = []
        for key in value:
            item = value[key]
            inner = (*path, str(key))
            text = _literal(item, depth + 1, inner)
            note = _comment(inner) if isinstance(item, Mapping) and "\n" in text else ""
            if note and text.startswith("{"):
                text = "{" + note + text[1:]
            lines.append(f"{pad}{key!r}: {text},")
        return "{\n" + "\n".join(_packed(lines)).rstrip(",") + "}"
    if all(_is_plain(item) or (isinstance(item, list) and all(map(_is_plain, item))) for item in value):
        return "[\n" + _wrapped([_inline(item) for item in value], pad).rstrip(",") + "]"
    rows = [f"{pad}{_literal(item, depth + 1, (*path, '#'))},{_column_note(path, item)}" for item in value]
    end = "\n" + " " * depth if "#" in rows[-1] else ""
    return "[\n" + "\n".join(rows).rstrip("," if not end else "") + end + "]"


def _packed(lines: Sequence[str]) -> list[str]:
    """Entries of a table, short ones side by side."""
    out: list[str] = []
    for line in lines:
        if out and "\n" not in out[-1] + line and len(out[-1]) + len(line.strip()) + 1 <= _WIDTH:
            out[-1] += " " + line.strip()
        else:
            out.append(line)
    return out


def _column_note(path: tuple[str, ...], item: Any) -> str:
    """The unit beside a column of a tier."""
    if path[-1:] == ("columns",) and isinstance(item, Mapping) and item.get("feature") in FEATURES:
        unit = FEATURES[item["feature"]][1]
        return f"  # {unit}" if unit != "1" else ""
    return ""


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    return repr(value)


def _is_plain(item: Any) -> bool:
    return isinstance(item, (int, float, str)) and not isinstance(item, bool)


def _wrapped(items: Sequence[str], pad: str) -> str:
    lines, line = [], pad
    for item in items:
        if len(line) + len(item) + 2 > _WIDTH and line.strip():
            lines.append(line.rstrip())
            line = pad
        line += item + ", "
    return "\n".join([*lines, line.rstrip()])
