"""The README is true: its commands and options exist, its links lead somewhere, its figures are the shipped ones."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from irene_build.cli import COMMANDS, app


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def _lines(text: str, start: str) -> list[str]:
    """Code lines of the README that begin with ``start``, without their comments."""
    return [line.strip().split("  #")[0] for line in text.splitlines() if line.startswith(f"    {start} ")]


def _options(command: list[str]) -> set[str]:
    group = typer.main.get_command(app)
    found = group.get_command(None, command[0])  # type: ignore[attr-defined,arg-type]
    if hasattr(found, "commands"):
        found = found.commands[command[1]]
    return {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_commands_and_their_options_exist(readme: str) -> None:
    lines = _lines(readme, "irene-build")
    assert len(lines) > 10
    for line in lines:
        words = shlex.split(line)[1:]
        assert words[0] in COMMANDS, line
        asked = {word for word in words if re.fullmatch(r"--?[a-z][a-z0-9-]*", word)}
        assert asked <= _options(words), line


def test_make_targets_exist(readme: str, repository: Path) -> None:
    makefile = (repository / "Makefile").read_text()
    targets = [line.split()[1] for line in _lines(readme, "make")]
    assert targets == ["demo", "test"]
    for target in targets:
        assert f"\n{target}:" in makefile


def test_links_and_named_files_exist(readme: str, repository: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", readme):
        assert target.startswith("https://"), f"{target}: a package index has no files beside the README"
    for named in re.findall(r"`((?:docs|examples)/[\w/.-]+|[A-Z]+\.md)`", readme):
        assert (repository / named).exists(), named
    for named in re.findall(r"`((?:irene_build|runtime|templates|benchmarks)/[\w/.-]+)", readme):
        assert (repository / named).exists(), named
    for named in re.findall(r"`(meters|train|measure|dataset|export)/([\w.-]*)`", readme):
        assert (repository / "irene_build" / named[0] / named[1]).exists(), named


def test_accuracy_is_that_of_the_shipped_evaluation(readme: str, repository: Path) -> None:
    evaluation = json.loads((repository / "artifacts" / "pc1" / "evaluation.json").read_text())
    for tier in ("static", "live", "profile"):
        row = re.search(rf"^\| {tier} \| ([\d.]+) / ([\d.]+) / ([\d.]+) \|", readme, re.MULTILINE)
        assert row, tier
        levels = evaluation["tiers"][tier]
        for shown, level in zip(row.groups(), ("ml", "module", "model"), strict=True):
            assert float(shown) == pytest.approx(levels[level]["mape"], abs=0.006), (tier, level)
