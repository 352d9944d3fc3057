"""The module gives the same bits on every CPython from 3.8 that is on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests import strategies
from tests.runtime import generated

_ASK = "import sys; print('%s %d.%d' % (sys.implementation.name, *sys.version_info[:2]))"


def interpreters() -> dict[str, str]:
    """``3.8`` -> path, of every CPython on the PATH and under pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [str(path) for path in sorted(pyenv.glob("*/bin/python"))]
    found += [path for minor in range(8, 16) if (path := shutil.which(f"python3.{minor}"))]
    out: dict[str, str] = {}
    for path in found:
        done = subprocess.run([path, "-I", "-S", "-c", _ASK], capture_output=True, text=True, timeout=30)
        name, _, version = done.stdout.strip().partition(" ")
        if (
            done.returncode == 0
            and name == "cpython"
            and (3, 8) <= tuple(map(int, version.split("."))) < (4,)
        ):
            out.setdefault(version, path)
    return out


FOUND = interpreters()

_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import irene_estimator as m
for tree in m.json.load(open(sys.argv[1] + "/trees.json")):
    p = m.Estimator().predict(m.from_json(tree))
    print(" ".join(x.hex() for n in p for x in (n.energy_j, *n.interval_j, n.alpha or 0.0)))
    print(p.to_json())
    print(p.to_csv(), p.to_openmetrics(), p.table(width=100, color=False), p.explain())
newer = '{"format": "irene-tree", "version": %s}' % ("9" * 300)
for text in ("[" * 200000, '{"a":' * 200000, "9" * 100000, newer):
    try:
        m.loads(text)
    except m.TreeError as error:
        print("refused")
"""


def _estimator_with_everything() -> dict[str, object]:
    """Every form at once, in all tiers."""
    forms = strategies.Forms(
        seed=11, products=True, maps=True, floor=True, kernels=("poly", "matern32", "rbf"), degree=3,
        level_corrections=True, direct=True, ranges=True, stand_in=True, simulated=True,
        tiers=("static", "live", "profile"), resource_leaves=False,
    )  # fmt: skip
    return strategies.estimator(forms)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions")
    data = _estimator_with_everything()
    rng = Random(1)
    trees: list[dict[str, Any]] = []
    for seed in range(30):
        shape = strategies.Shape(
            seed, rng.randint(1, 40), rng.choice(["none", "root", "all", "some"]), True, False, 1 / 3
        )
        trees.append(strategies.tree(data["features"], data["primitives"], shape).to_json())  # type: ignore[arg-type]
    (folder / "trees.json").write_text(json.dumps(trees), encoding="utf-8")
    generated.write(folder / "irene_estimator.py", data, max(trees, key=lambda tree: len(tree["nodes"])))
    return folder


def _run(python: str, folder: Path, *args: str) -> str:
    done = subprocess.run(
        [python, "-I", "-S", *args],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_there_is_more_than_one_version_to_compare() -> None:
    if len(FOUND) < 2:
        pytest.skip(f"only CPython {', '.join(FOUND)} here")


@pytest.mark.parametrize("version", sorted(FOUND, key=lambda v: tuple(map(int, v.split(".")))))
def test_every_version_gives_the_same_bits(version: str, folder: Path) -> None:
    """``selftest`` passes, and everything that is printed is equal to what this Python prints."""
    report = _run(FOUND[version], folder, "irene_estimator.py", "selftest")
    assert "largest deviation 0.0 J" in report
    reference = folder / "reference.txt"
    if not reference.exists():
        import sys

        reference.write_text(_run(sys.executable, folder, "-c", _SCRIPT, str(folder)), encoding="utf-8")
    printed = _run(FOUND[version], folder, "-c", _SCRIPT, str(folder))
    assert printed == reference.read_text(encoding="utf-8")
    assert printed.count("refused") == 4
