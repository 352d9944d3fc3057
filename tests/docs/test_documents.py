"""The documents are true: they build without a warning, and their code runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in (REPOSITORY / "docs").rglob("*.md")
    if "_build" not in path.parts and path.name != "commands.md"
)
#: A fenced block of a page; blocks that a reader cannot run as they stand are written ```{code-block} console
#: with the class norun.
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    for match in _BLOCK.finditer(path.read_text(encoding="utf-8")):
        yield match.group(1), match.group(2)


RUNNABLE = [path for path in PAGES if any(True for _ in blocks(path))]


@pytest.fixture(scope="session")
def with_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the estimator that ships, as the first page exports it."""
    folder = tmp_path_factory.mktemp("reader")
    command = [sys.executable, "-m", "irene_build.cli", "export", "out", "--hardware", "pc1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the docs extra is not installed")
    pytest.importorskip("myst_parser", reason="the docs extra is not installed")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "cache"), str(REPOSITORY / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "commands.html").is_file()


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs(page: Path, with_bundle: Path, tmp_path: Path) -> None:
    """Commands in order, then the Python blocks of the page as one program, beside a bundle in ``out/``."""
    (tmp_path / "out").symlink_to(with_bundle / "out", target_is_directory=True)
    shim = tmp_path / "bin"
    shim.mkdir()
    for name, module in (("irene-build", "-m irene_build.cli"), ("python", "")):
        (shim / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (shim / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{shim}:{os.environ['PATH']}"}
    environment.pop("IRENE_ARTIFACTS", None)
    code = ""
    for language, text in blocks(page):
        if language == "python":
            code += text
            continue
        for line in text.splitlines():
            if not line.startswith("$ ") or " export out/" in line:
                continue
            done = subprocess.run(
                line[2:], shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{page.name}: {line}\n{done.stderr}"
    if code:
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{page.name}\n{done.stderr}"
