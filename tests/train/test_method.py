"""METHOD.md names lines that exist, and the widths and bounds that it quotes are the code's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import irene_build.train
from irene_build.train import unmeasured

FOLDER = Path(irene_build.train.__file__).parent
TEXT = (FOLDER / "METHOD.md").read_text()


def references() -> list[tuple[str, str]]:
    return sorted(set(re.findall(r"`([\w/]+\.py): (\w+)`", TEXT)))


@pytest.mark.parametrize(("file", "name"), references())
def test_what_it_names_is_there(file: str, name: str) -> None:
    tree = ast.parse((FOLDER / file).read_text())
    found = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {
            leaf.id for target in targets if target for leaf in ast.walk(target) if isinstance(leaf, ast.Name)
        }
    assert name in found


def test_it_quotes_every_width_of_what_was_never_measured() -> None:
    row = next(line for line in TEXT.splitlines() if "unmeasured.py: WIDTHS` |" in line)
    for name, width in unmeasured.WIDTHS.items():
        found = re.search(rf"{name} ([0-9.]+)", row)
        assert found, name
        assert float(found[1]) == width
