"""`report`, `compare` and `sweep` as a user runs them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from irene_runtime.model import Estimator
from tests.report.conftest import MODELS, SIZES, Run, dataset, estimator


def test_report_writes_page_numbers_figures_and_flame_graphs(report: tuple[Path, str, str]) -> None:
    folder, out, err = report
    assert "no evaluation.json" in err and "mean error on the trees it was trained on" in out
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert {"index.html", "report.json", "trees.json"} <= names
    for table in ("errors", "errors-by-model", "bottlenecks", "models", "pairs"):
        rows = json.loads((folder / "tables" / f"{table}.json").read_text())
        with (folder / "tables" / f"{table}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(rows) > 0
    for figure in ("error-cdf-model", "coverage", "predicted-measured-live", "bottlenecks", "tree"):
        assert {f"figures/{figure}.png", f"figures/{figure}.svg"} <= names
    for model in MODELS:
        assert any(n.startswith(f"flame/{model}") and n.endswith(".speedscope.json") for n in names)
        assert any(n.startswith(f"flame/{model}") and n.endswith(".trace.json") for n in names)


def test_made_again_in_its_place_a_report_has_the_same_bytes(
    irene: Run, report: tuple[Path, str, str]
) -> None:
    before = {p: p.read_bytes() for p in report[0].rglob("*") if p.is_file()}
    assert irene("report", "--hardware", "bench", "-o", report[0])[0] == 0
    assert {p: p.read_bytes() for p in report[0].rglob("*") if p.is_file()} == before


def test_numbers_of_a_report_are_those_of_its_json_and_of_the_estimator(
    irene: Run, report: tuple[Path, str, str]
) -> None:
    code, out, _ = irene("report", "--hardware", "bench", "--json")
    data = json.loads(out)
    assert code == 0
    assert data == json.loads((report[0] / "report.json").read_text())
    assert data["dataset"]["trees"] == len(MODELS) * len(SIZES)
    assert data["dataset"]["standard_error_percent_median"] == pytest.approx(1.0)
    assert data["dataset"]["nodes"] - data["dataset"]["labelled_nodes"] == data["dataset"]["trees"]
    # Labels lie within e^0.05 of the static prediction, and the live reading is the label itself.
    rows = {(r["tier"], r["level"]): r for r in data["errors"]["by_level"]}
    assert 1.0 < rows["static", "ml"]["mape"] < 4.0
    assert rows["static", "ml"]["max"] <= 100 * (1.0513 - 1)
    assert rows["static", "ml"]["coverage90"] == 100.0
    first = dataset().trees[0]
    whole = [t for t in dataset().trees if t.model == MODELS[0]]
    engine = Estimator(estimator())
    mean = sum(engine.predict(t.tree, tier="static").energy_j for t in whole) / len(whole)
    row = next(m for m in data["models"] if m["model"] == MODELS[0])
    assert row["predicted_j"]["static"] == pytest.approx(mean)
    assert row["measured_j"] == pytest.approx(sum(t.energy_j[0] for t in whole) / len(whole))
    trees = json.loads((report[0] / "trees.json").read_text())
    model = next(m for m in trees["models"] if m["name"] == MODELS[0])
    at = [s["label"] for s in model["sizes"]].index("2 × 32")
    assert model["tiers"]["static"][at]["e"][0] == pytest.approx(
        engine.predict(first.tree, tier="static").energy_j, rel=1e-4
    )
    assert model["tiers"]["measured"][at]["e"][3] is None


def test_figures_of_in_sample_numbers_say_so(report: tuple[Path, str, str]) -> None:
    page = (report[0] / "index.html").read_text()
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    shown = [title for title in titles if "error" in title or "measured" in title.lower()]
    assert shown and all("in sample" in title for title in shown)


def test_a_held_out_evaluation_takes_the_place_of_in_sample_errors(
    irene: Run, artifacts: Path, tmp_path: Path
) -> None:
    level = {
        "mape": 1.25,
        "p50": 1.0,
        "p95": 3.0,
        "p99": 4.0,
        "max": 5.0,
        "n": 10,
        "n_distinct": 9,
        "coverage90": 0.905,
    }
    evaluation = {
        "hardware": "bench", "method": "best", "protocol": "model-out", "provenance": "measured",
        "seconds": 1.0,
        "tiers": {"static": {"model": level, "per_model": {MODELS[0]: {"model": 1.5}}}},
        "baselines": {"latency": {"model": 5.25}, "gpu energy": {"model": {"mape": 2.75}}},
        "pairs": {
            "static": {"model": {"model": ["x", "x"], "measured_j": [1.0, 2.0], "predicted_j": [1.1, 2.0]}}
        },
    }  # fmt: skip
    path = artifacts / "bench" / "evaluation.json"
    path.write_text(json.dumps(evaluation))
    try:
        code, out, err = irene("report", "--hardware", "bench", "-o", tmp_path / "r", "--json")
    finally:
        path.unlink()
    assert code == 0, err
    errors = json.loads(out)["errors"]
    assert errors["in_sample"] is False and errors["pairs_in_sample"] is False
    assert errors["by_level"] == [{"tier": "static", "level": "model", **level, "coverage90": 90.5}]
    assert [b["model_level"] for b in errors["baselines"]] == [5.25, 2.75]
    page = (tmp_path / "r" / "index.html").read_text()
    assert "1.25 %" in page and "protocol model-out" in page and "Not evaluated" not in page
    with (tmp_path / "r" / "tables" / "pairs.csv").open() as file:
        assert [r["predicted_j"] for r in csv.DictReader(file)] == ["1.1", "2.0"]


def test_simulated_joules_are_called_so_everywhere(simulated_report: tuple[Path, str, str]) -> None:
    folder, out, _ = simulated_report
    assert out.startswith("SIMULATED")
    page = (folder / "index.html").read_text()
    assert "<title>SIMULATED: " in page and 'class="sim-across"' in page
    for figure in (folder / "figures").glob("*.svg"):
        assert "SIMULATED" in figure.read_text(), figure.name
    for flame in (folder / "flame").iterdir():
        assert "SIMULATED" in flame.read_text(), flame.name
    assert json.loads((folder / "report.json").read_text())["provenance"] == "simulated"


def test_report_refuses_what_it_cannot_do(irene: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    for arguments, words in (
        (("--hardware", "bench", "-o", tmp_path / "mine"), "holds no report of irene-build"),
        (("--hardware", "bench", "-o", tmp_path / "mine" / "thesis.txt"), "is a file"),
        (("--hardware", "absent", "-o", tmp_path / "r"), "no estimator.json for hardware 'absent'"),
        (("--hardware", "bench"), "-o DIR"),
    ):
        code, _, err = irene("report", *arguments)
        assert code == 2 and words in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_compare_puts_models_side_by_side(irene: Run, bundle: Path, tmp_path: Path) -> None:
    accuracies = tmp_path / "acc.csv"
    accuracies.write_text(f"model,accuracy\n{MODELS[0]},83.5\ngoogle/{MODELS[1]},85\nother,99\n")
    base = ("compare", bundle, *MODELS, "-b", 4, "-s", 32, "--accuracy", accuracies, "--min-accuracy", 84)
    code, out, err = irene(*base, "--budget-j", 1e-6, "-o", tmp_path / "c")
    assert code == 0, err
    assert all(len(line) <= 80 for line in out.splitlines()), out
    assert "best within 1e-06 J:\n  none" in out
    assert f"cheapest with accuracy 84 or more:\n  {MODELS[1]}: " in out
    data = json.loads((tmp_path / "c" / "report.json").read_text())
    assert data["pareto"] == list(MODELS)
    code, out, _ = irene(*base, "--json")
    assert code == 0 and json.loads(out)["rows"] == data["rows"]
    assert (tmp_path / "c" / "figures" / "energy-accuracy.png").is_file()
    from irene_build.trace import trace

    exact = Estimator(estimator()).predict(trace(MODELS[0], 4, 32, attention="eager"), tier="static")
    row = next(r for r in data["rows"] if r["model"] == MODELS[0])
    assert row["energy_j"] == exact.energy_j
    assert row["energy_per_token_j"] == exact.energy_j / 128


def test_compare_takes_patterns_and_tree_files(irene: Run, bundle: Path, tmp_path: Path) -> None:
    from irene_build.trace import trace

    trace(MODELS[1], 4, 32, attention="eager").save(str(tmp_path / "tree.json"))
    code, out, err = irene(
        "compare", bundle, "bert_uncased_L-2_H-[15]*", tmp_path / "tree.json", "-b", 4, "-s", 32, "--json"
    )
    assert code == 0, err
    models = {r["model"] for r in json.loads(out)["rows"]}
    assert models == {MODELS[0], "bert_uncased_L-2_H-512_A-8", MODELS[1]}


def test_sweep_fills_the_grid_and_marks_extrapolation(irene: Run, bundle: Path, tmp_path: Path) -> None:
    grid = ("--batch", "2,1", "--seq", "32,128")
    code, out, err = irene("sweep", bundle, MODELS[0], *grid, "-o", tmp_path / "s")
    assert code == 0, err
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "*" in out and "outside what was calibrated" in out
    data = json.loads((tmp_path / "s" / "report.json").read_text())
    cells = [(c["batch_size"], c["seq_len"], c["extrapolates"]) for c in data["cells"]]
    assert cells == [(1, 32, False), (2, 32, False), (1, 128, True), (2, 128, True)]
    for name in ("energy-per-token", "energy-per-sequence"):
        assert (tmp_path / "s" / "figures" / f"{name}.png").is_file()
        assert (tmp_path / "s" / "figures" / f"{name}.svg").is_file()
    code, out, _ = irene("sweep", bundle, MODELS[0], *grid, "--json")
    assert json.loads(out) == data
    code, out, _ = irene("sweep", bundle, MODELS[0], *grid, "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert [float(r["energy_per_token_j"]) for r in rows] == [c["energy_per_token_j"] for c in data["cells"]]
    assert [float(r["interval_per_token_j_low"]) for r in rows] == [
        c["interval_per_token_j"][0] for c in data["cells"]
    ]


def test_wrong_input_is_one_line_and_exit_code_2(irene: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "irene_estimator.py").write_text("x = 1\n")
    (tmp_path / "acc.csv").write_text("model,accuracy\nother,1\n")
    for arguments, words in (
        (("compare", tmp_path, MODELS[0]), "manifest"),
        (("compare", tmp_path / "odd", MODELS[0]), "manifest"),
        (("compare", bundle, "no_such_*"), "no named model matches"),
        (("compare", bundle, MODELS[0], "--budget-j", 3), "--accuracy FILE.csv"),
        (("compare", bundle, MODELS[0], "--accuracy", tmp_path / "acc.csv"), "none of the compared models"),
        (("sweep", bundle, MODELS[0], "--batch", "0,1"), "--batch '0,1'"),
        (("sweep", bundle, MODELS[0], "--seq", "many"), "--seq 'many'"),
        (("sweep", bundle, "no-such-model", "--batch", "1", "--seq", "32"), "no-such-model"),
    ):
        code, _, err = irene(*arguments)
        assert code == 2, (arguments, err)
        assert words in err and len(err.strip().splitlines()) == 1, err


def test_predict_writes_a_page_and_flame_graphs(irene: Run, bundle: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("page.html", "p.speedscope.json", "p.trace.json")}
    code, out, err = irene(
        "predict", bundle, MODELS[0], "-b", 2, "-s", 32, "--json", "--html", files["page.html"],
        "--speedscope", files["p.speedscope.json"], "--chrome-trace", files["p.trace.json"],
    )  # fmt: skip
    assert code == 0, err
    whole = json.loads(out)
    assert f"<title>{MODELS[0]}" in files["page.html"].read_text()
    profile = json.loads(files["p.speedscope.json"].read_text())["profiles"][0]
    assert profile["endValue"] == pytest.approx(whole["energy_j"])
    events = json.loads(files["p.trace.json"].read_text())["traceEvents"]
    assert [e["args"]["energy_j"] for e in events if e["ph"] == "X"] == [
        n["energy_j"] for n in whole["nodes"]
    ]
    code, _, err = irene("predict", bundle, MODELS[0], "--html", tmp_path / "absent" / "page.html")
    assert code == 2 and "cannot write" in err
