"""The estimator as one Python file: the runtime's own modules one after the other, then the constants.

Nothing is translated: what ships is the source that the build tool itself runs (DESIGN, rule 2), with its docstrings
and types. Its modules are joined by cutting their imports of each other; the constants follow as Python literals.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from irene_build import __version__
from irene_build.errors import EstimatorError
from irene_build.export.literal import literal
from irene_build.export.meanings import MEANINGS
from irene_build.export.samples import attention_of
from irene_build.paths import runtime_source, templates_dir
from irene_runtime import MODULES, PUBLIC

#: A module above this is written all the same, with a warning.
MAX_BYTES = 260_000
#: Marks a function or a class that only the build tool uses: it does not ship.
BUILD_ONLY = "# build tool only"
_HINT = re.compile(r"  # (type: ignore|fmt: skip|noqa)[^\n]*$", re.M)


@dataclass(frozen=True)
class Part:
    """One runtime module without its docstring and its imports. ``about``: the docstring's first line."""

    name: str
    about: str
    source: str


def _errors() -> list[str]:
    """The errors that ship."""
    lines = [line for line in runtime_source("errors").splitlines() if line.startswith("class ")]
    return [line[6 : line.index("(")] for line in lines if BUILD_ONLY not in line]


@cache
def parts() -> tuple[list[Part], list[str]]:
    """The runtime's modules, and the lines of their one import block.

    Raises EstimatorError where two modules define one name.
    """
    out: list[Part] = []
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    defined: dict[str, str] = {}
    for name in MODULES:
        text = runtime_source(name)
        tree, lines = ast.parse(text), text.splitlines()
        cut: list[ast.stmt] = tree.body[:1]  # the docstring
        for node in tree.body:
            if isinstance(node, ast.Import):
                plain |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                named.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
            for new in _names(node):
                if new in defined:
                    raise EstimatorError(
                        f"runtime modules {defined[new]} and {name} both define {new}: one of them must be "
                        "renamed, since they become one file"
                    )
                defined[new] = name
        for inner in ast.walk(tree):
            if isinstance(inner, (ast.Import, ast.ImportFrom)) and (
                inner in tree.body or _is_relative(inner)
            ):
                cut.append(inner)
            if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and BUILD_ONLY in lines[inner.lineno - 1]:
                cut.append(inner)
        gone = {index for node in cut for index in range(node.lineno - 1, node.end_lineno or node.lineno)}
        body = "\n".join(line for index, line in enumerate(lines) if index not in gone).strip("\n")
        about = (ast.get_docstring(tree) or "").split("\n")[0]
        out.append(Part(name, about, _HINT.sub("", re.sub(r"\n{4,}", "\n\n\n", body))))
    used = {
        node.id for part in out for node in ast.walk(ast.parse(part.source)) if isinstance(node, ast.Name)
    }
    imports = [f"import {name}" for name in sorted(plain)]
    for module, names in sorted(named.items()):
        imports.append(f"from {module} import {', '.join(sorted(names & used))}")
    return out, imports


def _is_relative(node: ast.Import | ast.ImportFrom) -> bool:
    return isinstance(node, ast.ImportFrom) and node.level > 0


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
    """The text of ``irene_estimator.py``. The same arguments give the same text.

    Where it is larger than MAX_BYTES, it goes without comments and without docstrings of what no user calls.
    """
    found, imports = parts()
    runtime = [part for part in found if part.name != "law" or estimator.get("law")]
    template = _template("irene_estimator.py.j2")
    text = ""
    for chosen in (runtime, [replace(part, source=without_asides(part.source)) for part in runtime]):
        text = template.render(
            estimator=estimator,
            version=__version__,
            digest=digest,
            runtime=chosen,
            imports=imports,
            public=literal([*PUBLIC, *_errors()], len("__all__ = ")),
            constants=literal(estimator, len("ESTIMATOR = ")),
            golden=literal(golden, len("GOLDEN = ")),
        )
        if len(text.encode("utf-8")) <= MAX_BYTES:
            break
    return text


def without_asides(source: str) -> str:
    """Source without whole-line comments, and without docstrings of private functions and classes."""
    gone = {
        index
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and node.name.startswith("_")
        and not node.name.startswith("__")
        and ast.get_docstring(node)
        and len(node.body) > 1
        for index in range(node.body[0].lineno - 1, node.body[0].end_lineno or 0)
    }
    lines = [line for index, line in enumerate(source.split("\n")) if index not in gone]
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def render_readme(manifest: Mapping[str, Any], files: Sequence[str]) -> str:
    """The text of the bundle's README.md."""
    text: str = _template("bundle_README.md.j2").render(
        manifest=manifest,
        files=files,
        meanings=MEANINGS,
        attention=attention_of(manifest["attention"]),
        trees=[f for f in files if f.startswith("trees/")],
    )
    return text
