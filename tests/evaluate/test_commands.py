"""import, train and evaluate from the command line, on files in the published form with invented numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from irene_build import cli
from irene_build.dataset.store import load_dataset, save_dataset
from irene_build.train import estimator_file
from tests import synthetic
from tests.published import write_csv


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of two architectures at two sizes: scopes and counts of the tracer, joules of an invented law."""
    from irene_build.trace import trace

    sizes = [("distilgpt2", 2, 8), ("distilgpt2", 2, 16), ("distilbert-base-uncased", 2, 8),
             ("distilbert-base-uncased", 2, 16)]  # fmt: skip
    trees = [trace(model, b, s, cost_model="irene2021") for model, b, s in sizes]
    return write_csv(tmp_path_factory.mktemp("published") / "device", trees)


def test_import_train_evaluate(
    capsys: pytest.CaptureFixture[str], artifacts: Path, published: Path, tmp_path: Path
) -> None:
    code, out, _ = call(capsys, "import", "irene", str(published), "--hardware", "lab", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["rows_without_node"] == {} and result["dropped"] == {}
    assert result["labels"]["model"] == {"nodes": 4, "measurements": 4}
    assert result["labels"]["ml"]["nodes"] == 2 * (57 + 69) > result["labels"]["ml"]["measurements"]
    assert set(result["nodes_without_row"]) >= {"Elementwise", "Copy"}

    code, out, _ = call(capsys, "train", "--hardware", "lab", "--method", "paper", "--no-evaluate", "--json")
    assert code == 0
    estimator = estimator_file.load(json.loads(out)["file"])
    assert estimator["cost_model"] == "irene2021" and estimator["hardware"] == "lab"

    code, out, _ = call(
        capsys, "evaluate", "--hardware", "lab", "--method", "paper", "--tier", "profile", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert list(found["tiers"]) == ["profile"] and "pairs" not in found
    saved = json.loads((artifacts / "lab" / "evaluation.json").read_text())
    assert saved["pairs"]["profile"]["model"]["model"] and saved["tiers"] == found["tiers"]

    figure = tmp_path / "figure_3.svg"
    code, out, _ = call(
        capsys, "evaluate", "--hardware", "lab", "--method", "paper", "--tables", "--figure", str(figure)
    )
    assert code == 0 and "<svg" in figure.read_text()
    for number in (5, 6, 7, 8, 9):
        assert f"Table {number}:" in out
    assert "DistilGPT2" in out and "PredictedSum" in out


def test_importing_twice_changes_nothing_and_other_data_needs_force(
    capsys: pytest.CaptureFixture[str], artifacts: Path, published: Path
) -> None:
    arguments = ("import", "irene", str(published), "--hardware", "lab")
    assert call(capsys, *arguments)[0] == 0
    target = artifacts / "lab" / "campaign.sqlite"
    before = target.read_bytes()
    code, out, err = call(capsys, *arguments)
    assert (code, target.read_bytes()) == (0, before)
    assert "nothing was changed" in err and "took" in out
    save_dataset(synthetic.dataset(["tiny-bert"]), target)
    code, _, err = call(capsys, *arguments)
    assert code == 2 and "holds another dataset" in err and "--force" in err
    assert load_dataset(target).models == ["tiny-bert"]
    assert call(capsys, *arguments, "--force")[0] == 0
    assert load_dataset(target).models == ["distilbert-base-uncased", "distilgpt2"]


def test_import_table(capsys: pytest.CaptureFixture[str], artifacts: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(
        "model,batch_size,seq_len,energy_j,latency_s,room\n"
        "distilgpt2,2,8,1.5,0.01,3\ndistilgpt2,2,8,1.7,0.01,3\ndistilgpt2,2,16,2.5,0.02,3\n"
    )
    code, out, _ = call(capsys, "import", "table", str(path), "--hardware", "lab", "--meter", "plug")
    assert code == 0
    assert "column 'room' is not used" in out and "whole models only" in out
    dataset = load_dataset(artifacts / "lab" / "campaign.sqlite")
    assert (dataset.label_source, dataset.boundary, len(dataset.trees)) == ("plug", "wall", 2)
    assert dataset.trees[0].energy_j[0] == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("import", "irene", "nowhere", "--hardware", "lab"), "no such file or folder"),
        (("import", "irene", ".", "--hardware", "../x"), "lacks"),
        (("import", "table", "nowhere.csv", "--hardware", "lab"), "cannot read nowhere.csv"),
        (("train", "--hardware", "lab"), "calibrate"),
        (("train", "--hardware", "../x"), "hardware name"),
        (("evaluate", "--hardware", "lab"), "calibrate"),
        (("evaluate", "--hardware", "lab", "--tables"), "--method paper"),
        (("evaluate", "--hardware", "lab", "--recipe", "authors"), "--method paper"),
        (("evaluate", "--hardware", "lab", "--figure", "x.png"), "--tables"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], artifacts: Path, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = call(capsys, *arguments)
    assert code == 2 and says in err and err.count("\n") == 1


def test_simulated_datasets_go_the_same_way_and_say_so(
    capsys: pytest.CaptureFixture[str], artifacts: Path
) -> None:
    save_dataset(
        synthetic.dataset(["tiny-bert", "tiny-gpt"], provenance="simulated"),
        artifacts / "virtual" / "campaign.sqlite",
    )
    code, out, err = call(capsys, "train", "--hardware", "virtual", "--method", "paper", "--tier", "static")
    assert code == 0 and "simulated" in err
    assert "error on models left out" in out
    estimator: dict[str, Any] = estimator_file.load(artifacts / "virtual" / "estimator.json")
    assert (estimator["provenance"], estimator["cost_model"]) == ("simulated", "analytic")
    assert estimator["evaluation"]["static"]["model-out"]["ml"]["n"] > 0
    code, out, _ = call(
        capsys, "evaluate", "--hardware", "virtual", "--method", "paper", "--protocol", "family-out"
    )
    assert code == 0 and "SIMULATED" in out
    assert (artifacts / "virtual" / "evaluation-paper-family-out.json").is_file()


def test_one_model_alone_trains_and_cannot_be_evaluated(
    capsys: pytest.CaptureFixture[str], artifacts: Path
) -> None:
    save_dataset(synthetic.dataset(["tiny-bert"]), artifacts / "lab" / "campaign.sqlite")
    code, out, _ = call(capsys, "train", "--hardware", "lab", "--method", "paper", "--tier", "static")
    assert code == 0 and "one model only" in out
    code, _, err = call(capsys, "evaluate", "--hardware", "lab", "--method", "paper")
    assert code == 2 and "one model only" in err
