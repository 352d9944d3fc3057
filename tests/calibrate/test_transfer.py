"""`calibrate --from OTHER --labels N` on imported measurements, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from irene_build import cli
from irene_build.calibrate import transfer
from irene_build.dataset.store import save_dataset
from irene_build.dataset.table import Dataset
from irene_build.train import best, estimator_file
from tests.train import synthetic

MODELS = {"a": (1, 64), "b": (2, 128), "c": (3, 96)}
SIZES = [(1, 16), (2, 32), (4, 64)]


def measured(hardware: str, idle_w: float, seed: int) -> Dataset:
    made = synthetic.dataset(MODELS, SIZES, noise=0.004, seed=seed, idle_w=idle_w)
    made.hardware = hardware
    return made


@pytest.fixture
def two_pcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    estimator_file.save(best.fit(measured("old", 60.0, 1)), tmp_path / "old" / "estimator.json")
    save_dataset(measured("new", 100.0, 2), tmp_path / "new" / "campaign.sqlite")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_few_of_the_imported_labels_carry_an_estimator(
    capsys: pytest.CaptureFixture[str], two_pcs: Path
) -> None:
    arguments = ("calibrate", "--from", "old", "--labels", "8", "--hardware", "new")
    code, out, _ = call(capsys, *arguments, "--json")
    found = json.loads(out)
    assert code == 0 and found["labels"] == 8 and found["carried_from"] == "old"
    for level in ("ml", "module", "model"):
        none, few, full = (found[key]["profile"][level] for key in ("no_label", "carried", "full"))
        assert none > 5.0 and few < full + 0.5
    carried = estimator_file.load(two_pcs / "new" / "estimator.json")
    assert carried["hardware"] == "new" and carried["trained_on"]["carried_from"] == "old"
    code, out, err = call(capsys, *arguments, "--no-train")
    assert code == 0 and "8 labels" in out and "no label" in out and "wrote" not in out
    assert "8 of them are taken" in err


def test_the_labels_taken_are_long_runs_of_different_kinds() -> None:
    made = measured("new", 100.0, 2)
    chosen = transfer.choose(made, 6)
    assert len(set(chosen)) == 6 and chosen == transfer.choose(made, 6)
    took = {
        int(m): t for tree in made.trees for m, t in zip(tree.measurement, tree.resources[:, 6], strict=True)
    }
    assert np.median([took[m] for m in chosen]) > np.median(list(took.values()))


@pytest.mark.parametrize("labels", ["100000", "0"])
def test_more_labels_than_there_are_is_wrong_input(
    capsys: pytest.CaptureFixture[str], two_pcs: Path, labels: str
) -> None:
    code, _, err = call(capsys, "calibrate", "--from", "old", "--labels", labels, "--hardware", "new")
    assert code == 2 and "--labels" in err
