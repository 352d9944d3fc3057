"""What is in the wheel, and that it works in an environment without this checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(repository)],
        check=True,
        capture_output=True,
        text=True,
    )
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a new environment that holds the wheel.

    Third-party packages are borrowed from the running environment through a path file. Path files
    found there are not read in turn, so the editable checkout stays out of sight.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            str(wheel),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = home / "lib" / version / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_wheel_holds_the_tool_the_runtime_the_templates_and_the_shipped_artifacts(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for expected in (
        "irene_build/cli.py",
        "irene_build/hardware/pc1.toml",
        "irene_runtime/tree.py",
        "irene_runtime/model.py",
        "irene_build/_templates/irene_estimator.py.j2",
        "irene_build/_artifacts/pc1/estimator.json",
        "irene_build/_artifacts/h100/estimator.json",
        "irene_build/_artifacts/h200/SOURCES.md",
        "irene_build/_artifacts/b200/evaluation.json",
    ):
        assert expected in names, expected
    assert not [name for name in names if "test" in name.split("/")[0] or name.endswith((".sqlite", ".csv"))]


def test_export_and_predict_from_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    def run(*command: str) -> str:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=tmp_path, env={"PATH": str(installed)}
        ).stdout

    where = run(str(installed / "python"), "-c", "import irene_build; print(irene_build.__file__)")
    assert str(installed.parent) in where
    run(str(installed / "irene-build"), "export", "out", "--hardware", "pc1")
    tree = tmp_path / "out" / "trees" / "bert-base-uncased-8x128.json"
    module = str(tmp_path / "out" / "irene_estimator.py")
    assert "BertEncoder" in run(str(installed / "python"), "-I", "-S", module, "predict", str(tree))
