"""The command line as a whole: every command is there, starts light, and fails with one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from irene_build.cli import COMMANDS, main


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "irene_build.cli", *arguments], capture_output=True, text=True, cwd=cwd
    )


def test_help_lists_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "Usage" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from irene_build.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy', 'sklearn', 'onnx', 'onnxruntime'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trace", "no-such-model"], "no-such-model"),
        (["calibrate", "--hardware", "nowhere"], "nowhere"),
        (["calibrate", "--hardware", "virtual", "--grid", ""], "grid"),
        (["calibrate", "--hardware", "virtual", "--grid", "8"], "grid"),
        (["train", "--hardware", "nowhere"], "calibrate"),
        (["train", "--hardware", "../up"], "hardware name"),
        (["evaluate", "--hardware", "nowhere"], "calibrate"),
        (["export", "out", "--hardware", "nowhere"], "train"),
        (["verify", "missing"], "missing"),
        (["predict", "missing", "tree.json"], "missing"),
        (["import", "irene", "missing", "--hardware", "x"], "missing"),
        (["report", "--hardware", "nowhere", "-o", "r"], "nowhere"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    ours = [line for line in done.stderr.splitlines() if line.startswith("irene-build: ")]
    assert len(ours) == 1 or "Usage" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_trace(tmp_path: Path) -> None:
    done = run("--debug", "verify", "missing", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    done = run("trase")
    assert done.returncode == 2
    assert "did you mean trace?" in done.stderr


@pytest.mark.parametrize("arguments", [["-h"], ["export", "-h"], ["import", "table", "-h"]])
def test_help_has_a_short_option(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["models", "--json"], ["doctor", "--json"]])
def test_an_output_that_is_full_is_one_line_and_exit_1(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "irene_build.cli", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("irene-build ex", "export"),
        ("irene-build export --hardware p", "pc1"),
        ("irene-build trace bert-b", "bert-base-uncased"),
    ],
)
def test_the_shell_completes_commands_hardware_and_models(typed: str, offered: str, tmp_path: Path) -> None:
    asked = {
        "_IRENE_BUILD_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "irene_build.cli"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **asked},
    )
    assert offered in done.stdout.split(), done.stderr
