"""``irene-build card`` writes all three records of a model on an exported estimator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irene_build import cli
from irene_build.export.bundle import export
from irene_build.train import best
from tests import synthetic


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    tree = synthetic.tree("tiny-gpt", 2, 16)
    export(best.fit(synthetic.dataset()), folder / "out", {"tree.json": tree})
    return folder / "out"


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_the_same_inputs_give_the_same_three_files(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("spdx_python_model", "cyclonedx"):
        pytest.importorskip(library)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found = []
    for name in ("a", "b"):
        arguments = ("card", str(bundle), str(bundle / "trees" / "tree.json"), "-o", str(tmp_path / name))
        code, out, _ = call(capsys, *arguments, "--cyclonedx", "1.7", "--co2", "400")
        assert code == 0 and len(out.splitlines()) == 3
        found.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"tiny-gpt.spdx.json", "tiny-gpt.cdx.json", "tiny-gpt.README.md"}
    assert json.loads(found[0]["tiny-gpt.cdx.json"])["specVersion"] == "1.7"


@pytest.mark.parametrize(
    "wrong", [("--format", "xml"), ("--runs", "0"), ("--cyclonedx", "9"), ("--released", "soon")]
)
def test_wrong_input_is_one_line_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path, wrong: tuple[str, str]
) -> None:
    code, _, err = call(
        capsys, "card", str(bundle), str(bundle / "trees" / "tree.json"), "-o", str(tmp_path / "c"), *wrong
    )
    assert code == 2 and wrong[0] in err and err.count("\n") == 1 and not (tmp_path / "c").exists()
