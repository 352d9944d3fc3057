"""No package of the project imports in a circle, neither when it is loaded nor later inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "irene_build"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def _parent(module: str, path: Path, level: int) -> str:
    """The package that a relative import of so many dots starts from."""
    parts = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    return ".".join(parts[: len(parts) - level + 1])


def imports_of(module: str) -> Iterator[str]:
    """Modules of the project that ``module`` imports anywhere in its text, for types alone included."""
    path = MODULES[module]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = _parent(module, path, node.level) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                found = f"{source}.{alias.name}"
                # ``from . import name`` takes a module, or a name out of the package's own ``__init__``.
                yield from (name for name in (found if found in MODULES else source,) if name in MODULES)


def packages() -> list[str]:
    return sorted({name for name, path in MODULES.items() if path.name == "__init__.py"} - {"irene_build"})


@pytest.mark.parametrize("package", packages())
def test_no_import_circle_inside_a_package(package: str) -> None:
    inside = [name for name in MODULES if name == package or name.startswith(package + ".")]
    graph = {name: {other for other in imports_of(name) if other in inside} - {name} for name in inside}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(reversed(error.args[1]))) from None
