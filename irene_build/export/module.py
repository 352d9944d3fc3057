"""The estimator as one Python file: the runtime's own modules one after the other, then the constants.

Nothing is translated: what ships is the source that the build tool itself runs (DESIGN, rule 2). Its modules are
joined by cutting their imports of each other; the constants follow as Python literals, one table a primitive.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from irene_build import __version__
from irene_build.errors import EstimatorError
from irene_build.export.literal import estimator_literal, golden_literal
from irene_build.export.minify import EVERYTHING, FIRST_LINES, USERS, lean, written
from irene_build.paths import runtime_source, templates_dir
from irene_runtime import MODULES
from irene_runtime.equations import FORMS
from irene_runtime.features import MEANINGS

#: A module above this is written all the same, with a warning.
MAX_BYTES = 100_000
#: The runtime's modules, those first whose comments and docstrings a reader misses most.
_READ_FIRST = (
    "equations", "model", "packed", "tree", "features", "errors", "monitor", "sampler", "attach", "prediction",
    "explain", "onnx_engine", "main",
)  # fmt: skip


def styles() -> Iterator[tuple[int, Mapping[str, int]]]:
    """Ways to write the runtime, best for a reader first: spaces a level, and notes (as in ``lean``) of every module.

    What is said counts for more than how wide it stands: any formatter gives indentation back, but no docstring.
    """
    for indent, notes in ((4, EVERYTHING), (4, FIRST_LINES), (2, EVERYTHING)):
        yield indent, dict.fromkeys(MODULES, notes)
    for count in range(len(_READ_FIRST), -1, -1):
        yield 2, {name: FIRST_LINES if name in _READ_FIRST[:count] else USERS for name in MODULES}
    yield 1, dict.fromkeys(MODULES, USERS)


@dataclass(frozen=True)
class Part:
    """One runtime module without its docstring and its imports. ``about``: the docstring's first line."""

    name: str
    about: str
    source: str


@cache
def parts(forms: frozenset[str]) -> tuple[list[Part], list[str]]:
    """The runtime's modules for an estimator of these ``forms``, and the lines of their one import block."""
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
        about = (ast.get_docstring(tree) or "").split("\n")[0]
        out.append(Part(name, about, re.sub(r"\n{4,}", "\n\n\n", body)))
    joined = "\n\n".join(f"# ---- {part.name}\n{part.source}" for part in out)
    leaned = lean(joined, forms=forms)
    texts = re.split(r"^# ---- \w+\n", leaned, flags=re.M)[1:]
    out = [Part(part.name, part.about, text.strip("\n")) for part, text in zip(out, texts, strict=True)]
    used = {node.id for node in ast.walk(ast.parse(leaned)) if isinstance(node, ast.Name)}
    imports = [f"import {name}" for name in sorted(plain)]
    for module, names in sorted(named.items()):
        imports.append(f"from {module} import {', '.join(sorted(names & used))}")
    return out, imports


@cache
def _written(source: str, indent: int, notes: int) -> str:
    return written(source, indent=indent, notes=notes).strip("\n")


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
    found, imports = parts(frozenset(forms_of(estimator)))
    text = ""
    for indent, notes in styles():
        runtime = [
            Part(p.name, p.about if notes[p.name] else "", _written(p.source, indent, notes[p.name]))
            for p in found
        ]
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


def forms_of(data: Any) -> Iterator[str]:
    """The names of ``irene_runtime.equations.FORMS`` that an estimator, or a part of one, calls for."""
    for key, value in data.items() if isinstance(data, Mapping) else ():
        if key == "kernel":
            yield value
        elif key in FORMS and value:
            yield key
        yield from forms_of(value)


def render_readme(manifest: Mapping[str, Any], files: Sequence[str]) -> str:
    """The text of the bundle's README.md."""
    text: str = _template("bundle_README.md.j2").render(
        manifest=manifest, files=files, meanings=MEANINGS, trees=[f for f in files if f.startswith("trees/")]
    )
    return text
