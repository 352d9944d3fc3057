"""Every example runs as it stands, in a process of its own, and prints what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(code: list[str], cwd: Path) -> str:
    done = subprocess.run([sys.executable, *code], capture_output=True, text=True, cwd=cwd, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_export_and_predict(tmp_path: Path) -> None:
    out = run([str(EXAMPLES / "export_and_predict.py"), str(tmp_path)], tmp_path)
    assert "90 % interval" in out
    assert (tmp_path / "out" / "trees" / "classifier.json").is_file()


def test_new_primitive(tmp_path: Path) -> None:
    lines = run([str(EXAMPLES / "new_primitive.py")], tmp_path).splitlines()
    assert [line.split()[-2] for line in lines[:3]] == ["1073.7", "536.9", "536.9"]


def test_new_meter(tmp_path: Path) -> None:
    out = run([str(EXAMPLES / "new_meter.py")], tmp_path)
    assert " W, " in out and "1 % at 95 %" in out


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """The cells as one program; what a notebook would show of a last expression is asked for its representation."""
    book = json.loads((EXAMPLES / "energy_of_bert.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    out = run(["-c", "\n".join([*cells, "print(prediction._repr_html_()[:5])"])], tmp_path)
    assert "one layer: " in out
    assert "<" in out


def test_every_example_is_run_here() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".ipynb") or (path.is_dir() and any(path.glob("*.py"))):
            assert path.name in tested or any(
                path.name in other.read_text(encoding="utf-8") for other in Path(__file__).parent.glob("*.py")
            ), path.name
