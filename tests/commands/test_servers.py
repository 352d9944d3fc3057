"""Requests to a server, by the estimators that ship."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irene_build.cli import main


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = 0
    try:
        main(list(words))
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


ASK = ("Llama-3.2-1B", "--engine", "vllm", "--prompt", "100", "--new", "400")


@pytest.mark.parametrize("hardware", ["h100", "h200", "b200"])
def test_joules_a_token_by_what_ships(hardware: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "predict", hardware, *ASK, "--batch", "32", "--json")
    assert code == 0
    said = json.loads(out)
    low, high = said["interval_j"]
    assert low < said["energy_per_token_j"] < high
    assert said["energy_per_request_j"] == pytest.approx(400 * said["energy_per_token_j"])
    assert said["prefill"]["energy_j"] + said["decode"]["energy_j"] == pytest.approx(
        said["energy_per_request_j"]
    )
    parts = [p for p in said["parts"] if p["depth"] == 0 or p["scope"] in ("Host", "Prefill")]
    assert sum(p["energy_per_token_j"] for p in parts) == pytest.approx(said["energy_per_token_j"], rel=1e-6)
    assert said["power_w"] < 1000
    assert "measured" in said["provenance"]["kernel_time"]


def test_the_curve_over_batch_falls_and_models_are_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "sweep", "h100", *ASK, "--batch", "1,8,64", "--json")
    assert code == 0
    joules = [cell["energy_per_token_j"] for cell in json.loads(out)["cells"]]
    assert joules == sorted(joules, reverse=True)
    code, out, _ = _run(capsys, "compare", "h100", *ASK, "--max-itl", "4ms", "--json")
    assert code == 0
    best = json.loads(out)["models"][0]["best"]
    assert best is None or best["itl_s"] <= 0.004


def test_two_gpus_are_summed_and_reduce(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "predict", "h100", *ASK, "--tp", "2", "--json")
    assert code == 0
    assert "AllReduce" in {p["scope"] for p in json.loads(out)["parts"]}


def test_an_export_answers_like_the_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = _run(capsys, "export", str(tmp_path / "out"), "--hardware", "h100", "--json")
    assert code == 0
    _, here, _ = _run(capsys, "predict", str(tmp_path / "out"), *ASK, "--json")
    _, there, _ = _run(capsys, "predict", "h100", *ASK, "--json")
    assert json.loads(here) == json.loads(there)


def test_runs_that_it_never_saw_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(
        "task,model,avg_batch_size,avg_output_tokens,energy_per_token_j,output_tokens_per_s,median_itl_ms\n"
        "lm-arena-chat,meta-llama/Llama-3.2-1B-Instruct,32,400,0.05,10000,3.2\n"
    )
    code, out, _ = _run(capsys, "evaluate", "--hardware", "h100", "--against", str(file), "--json")
    assert code == 0
    said = json.loads(out)
    assert set(said["energy_per_token_j"]) == set(said["itl_s"]) == {"mape", "p50", "max", "coverage90", "n"}
    assert said["worst"][0]["part"]
    assert "active_parameters" in said["baselines"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("predict", "pc1", *ASK), "no estimator of kernels"),
        (("predict", "h100", *ASK, "--weights", "int1"), "--weights 'int1': expected one of"),
        (("predict", "h100", *ASK, "--tp", "2", "--ep", "3"), "--tp x --dp = 2"),
        (("compare", "h100", *ASK, "--max-itl", "soon"), "--max-itl 'soon'"),
        (("predict", "h100", *ASK, "--csv", "--past", "0"), "--past, --csv: not beside --engine vllm"),
        (("predict", "pc1", "gpt2", "--tp", "2"), "--tp: of a server, add --engine vllm"),
        (("compare", "pc1", "gpt2", "--max-itl", "4ms"), "--max-itl: of a server, add --engine vllm"),
        (("sweep", "h100", *ASK, "--output", "page"), "neither --output nor --inputs"),
        (("predict", "h100", *ASK, "--batch", "0"), "--batch and --new must be at least 1"),
        (("evaluate", "--hardware", "h100", "--against", __file__), "a table of serving runs"),
        (("predict", "pc1", "gpt2", "--all-logits"), "add --phase prefill"),
        (("sweep", "pc1", "gpt2", "--weights", "fp8", "--dp", "2"), "--dp, --weights: of a server"),
    ],
)
def test_what_cannot_be_asked(words: tuple[str, ...], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _run(capsys, *words)
    assert code == 2
    assert what in err


def test_an_export_of_kernels_says_how_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(capsys, "export", str(tmp_path / "out"), "--hardware", "h100")
    code, _, err = _run(capsys, "predict", str(tmp_path / "out"), "gpt2")
    assert code in (1, 2) and "--engine vllm" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("batch", "tp", "fits"), [("32", "1", True), ("20000", "1", False), ("20000", "8", True)]
)
def test_caches_that_do_not_fit_are_told(
    batch: str, tp: str, fits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = _run(capsys, "predict", "h100", *ASK, "--batch", batch, "--tp", tp)
    assert code == 0
    assert ("does not fit" not in err) == fits


def test_far_outside_the_measured_runs_an_interval_is_wider_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def width(batch: str) -> tuple[float, dict[str, float]]:
        said = json.loads(_run(capsys, "predict", "h100", *ASK, "--batch", batch, "--json")[1])
        return said["interval_j"][1] / said["interval_j"][0], said["outside"]

    usual, inside = width("32")
    wide, outside = width("100000")
    assert wide > usual**2 and inside == {} and set(outside) == {"batch"}
    assert (
        "! batch lies outside the measured runs"
        in _run(capsys, "predict", "h100", *ASK, "--batch", "100000")[1]
    )
