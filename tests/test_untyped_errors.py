"""Files that nobody writes on purpose: every one is told in one line, with exit code 2."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from irene_build.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ("doctor", "--hardware", "deep.toml"),
        ("calibrate", "--hardware", "deep.toml", "--dry-run"),
        ("calibrate", "--hardware", "virtual", "--plan", "deep.toml", "--dry-run"),
        ("trace", "deep.json"),
        ("export", "out", "--estimator", "deep.json"),
        ("trace", "a.json", "--diff", "deep.json", "deep.json"),
    ],
)
def test_toml_and_json_nested_too_deeply(
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep.toml").write_text("a=" + "[" * 50_000)
    Path("deep.json").write_text("[" * 200_000)
    code, error = run(capsys, *command)
    assert code == 2 and error.strip().count("\n") == 0 and "deep." in error


@pytest.mark.parametrize(
    "architectures",
    [5, "BertModel", {"a": 1}, ["nn", "AutoModel", "logging", None], [["BertModel"]]],
)
def test_a_configuration_with_odd_architectures_is_its_model_type_s(
    architectures: Any, tmp_path: Path
) -> None:
    from irene_build.models import resolve

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": architectures}))
    assert resolve(str(tmp_path)).kind.__name__ == "BertModel"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    artifacts = tmp_path_factory.mktemp("artifacts")
    with pytest.raises(SystemExit):
        main([
            "--artifacts", str(artifacts), "calibrate", "--hardware", "virtual", "--grid", "2x8", "--budget", "20s",
            "--no-train", "--precision", "0.5", "--model", "tests.measure.toy:model", "--stop-after", "8s",
        ])  # fmt: skip
    return artifacts


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE session SET meter = '[]'",
        "UPDATE session SET meter = 'none'",
        "UPDATE campaign SET value = '3' WHERE key = 'protocol'",
        "DELETE FROM campaign WHERE key = 'protocol'",
        "UPDATE power SET value = 'much'",
    ],
)
def test_a_damaged_journal_in_relabel(
    campaign: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "virtual"
    folder.mkdir()
    (folder / "campaign.sqlite").write_bytes((campaign / "virtual" / "campaign.sqlite").read_bytes())
    with closing(sqlite3.connect(folder / "campaign.sqlite")) as database, database:
        try:
            database.execute(damage)
        except sqlite3.OperationalError as error:
            pytest.skip(f"another schema: {error}")
    code, error = run(capsys, "--artifacts", str(tmp_path), "relabel", "--hardware", "virtual")
    assert code == 2 and error.strip().count("\n") == 0 and "campaign.sqlite" in error
