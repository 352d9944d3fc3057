"""`irene-build predict`: the module's numbers, bit for bit, from a bundle that is only read."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from irene_build.cli import main
from irene_build.export.bundle import export
from tests.runtime.examples import estimator, tree


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    tree().save(str(folder / "tree.json"))
    tree(cost_model="irene2021").save(str(folder / "other.json"))
    export(estimator(), folder / "out", {"net.json": tree()})
    export(estimator(provenance="simulated", hardware="virtual"), folder / "simulated", {"net.json": tree()})
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "bert",
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 64,
                "vocab_size": 99,
            }
        )
    )
    return folder


@pytest.fixture
def predict(bundle: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*args: str, out: str = "out") -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(
                [
                    "predict",
                    str(bundle / out),
                    *[str(bundle / a) if (bundle / a).is_file() else a for a in args],
                ]
            )
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def test_the_module_says_the_same_numbers(predict: Any, bundle: Path) -> None:
    command = [
        sys.executable,
        "-I",
        "-S",
        str(bundle / "out" / "irene_estimator.py"),
        "predict",
        str(bundle / "tree.json"),
    ]
    theirs = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    code, ours, _ = predict("tree.json", "--json")
    assert code == 0 and json.loads(ours) == json.loads(theirs)
    theirs = subprocess.run([*command, "--csv"], capture_output=True, text=True, check=True).stdout
    assert predict("tree.json", "--csv")[1] == theirs


def test_every_form(predict: Any, bundle: Path) -> None:
    assert "15.00 J a run" in predict("tree.json")[1]
    assert "0.0015 g CO2" in predict("tree.json", "--co2", "360")[1]
    assert json.loads(predict("tree.json", "--co2", "360", "--json")[1])["co2_g"] == pytest.approx(0.0015)
    assert len(list(csv.DictReader(io.StringIO(predict("tree.json", "--csv")[1])))) == 5
    assert predict("tree.json", "--openmetrics")[1].endswith("# EOF\n")
    assert "terms of Linear" in predict("tree.json", "--explain", "head")[1]
    assert "fc:Linear" not in predict("tree.json", "--depth", "1")[1]
    assert "needs gpu_energy, latency" in predict("tree.json", "--tier", "live")[1]
    assert json.loads(predict("tree.json", "--backend", "onnx", "--json")[1])["energy_j"] == 15.0


def test_a_page_is_written(predict: Any, bundle: Path) -> None:
    code, _, err = predict("tree.json", "--html", str(bundle / "page.html"))
    assert code == 0 and "page.html" in err
    assert "<html" in (bundle / "page.html").read_text(encoding="utf-8")


def test_simulated_energy_is_named(predict: Any) -> None:
    code, out, err = predict("tree.json", out="simulated")
    assert code == 0 and out.startswith("SIMULATED") and err.startswith("SIMULATED")
    assert json.loads(predict("tree.json", "--json", out="simulated")[1])["provenance"] == "simulated"


def test_a_model_is_traced_as_it_was_calibrated(predict: Any) -> None:
    code, out, err = predict("config.json", "-b", "2", "-s", "16", "--json")
    assert code == 0, err
    data = json.loads(out)
    assert (data["batch_size"], data["seq_len"], data["attention"]) == (2, 16, "eager")
    assert data["nodes"][0]["type"] == "BertModel" and data["energy_j"] > 0.0


def test_live_runs_the_model_here(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from irene_build.commands import predict as command

    monkeypatch.setattr(command, "LIVE_SECONDS", 0.3)
    code, out, err = predict("config.json", "-b", "2", "-s", "16", "--live", "--device", "cpu", "--json")
    assert code == 0, err
    data = json.loads(out)
    assert "running" in err and "on cpu" in err
    assert data["tier"] == "static" and "fell-back" in data["flags"]
    assert any(note.startswith("tier live: needs gpu_energy") for note in data["notes"])
    assert any(note.startswith("gpu_energy is missing: ") for note in data["notes"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["other.json"], "--cost-model analytic"),
        (["missing.json"], "no such file"),
        (["config.json", "--phase", "sideways"], "sideways"),
        (["config.json", "-b", "0"], "batch_size is 0"),
        (["no-such-model"], "no-such-model"),
        (["tree.json", "--tier", "best"], "tier 'best'"),
        (["tree.json", "--backend", "torch"], "backend 'torch'"),
        (["tree.json", "--json", "--csv"], "one of --json"),
        (["tree.json", "--co2", "-1"], "--co2 -1"),
        (["tree.json", "--live"], "--live needs the MODEL itself"),
        (["tree.json", "--explain", "block.fcc"], "near: block.fc"),
        (["tree.json", "--html", "/nowhere/page.html"], "cannot write"),
        (["config.json", "--live", "--device", "tpu"], "unknown device 'tpu'"),
    ],
)  # fmt: skip
def test_wrong_input_gets_one_line_and_exit_code_2(predict: Any, args: list[str], message: str) -> None:
    code, out, err = predict(*args)
    assert code == 2 and out == ""
    assert message in err and err.count("\n") == 1 and err.startswith("irene-build: ")


@pytest.mark.parametrize(("device", "fits"), [("GeForce RTX 2060", False), ("H200", True)])
def test_what_no_device_of_its_kind_can_hold_is_told(
    bundle: Path, device: str, fits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["predict", "--device", device, str(bundle / "config.json"), "-b", "300000", "--depth", "0"])
    assert ("does not fit" not in capsys.readouterr().err) == fits


def test_no_bundle(predict: Any, bundle: Path) -> None:
    code, _, err = predict("tree.json", out="nowhere")
    assert code == 2 and "is no folder" in err and err.count("\n") == 1
