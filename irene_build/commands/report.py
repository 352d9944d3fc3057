"""`irene-build report`: one page about a PC: what was measured, how well, and where the energy goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

app = typer.Typer()


@app.command()
def report(
    hardware: str = typer.Option(..., "--hardware", help="The calibrated PC."),
    folder: Path | None = typer.Option(
        None, "--output", "-o", help="Folder for the page, its tables and figures."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print every number of the page as JSON."),
) -> None:
    """Write a self-contained page (and CSV, JSON, PNG, SVG and flame graphs) about a calibrated PC."""
    import json

    from irene_build import console
    from irene_build.dataset.store import load_dataset
    from irene_build.dataset.view import view
    from irene_build.errors import EstimatorError, InputError
    from irene_build.paths import find_artifact
    from irene_build.report import collect, write
    from irene_build.report import evaluation as ev

    if folder is None and not as_json:
        raise InputError("say where the page goes (-o DIR), or --json")
    if folder is not None:
        write.check_folder(folder)
    path = find_artifact(hardware, "estimator.json")
    try:
        estimator = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EstimatorError(
            f"{path}: {error}; run `irene-build train --hardware {hardware}` again"
        ) from None
    dataset = load_dataset(find_artifact(hardware, "campaign.sqlite"))
    if estimator.get("cost_model") == "irene2021":
        dataset = view(dataset, "irene2021")
    evaluation = None
    try:
        evaluation = ev.load(find_artifact(hardware, "evaluation.json"))
    except InputError as error:
        if "no evaluation.json" not in str(error):
            raise
        console.note(f"{error}; the report shows errors on the training trees, and says so")
    with console.Progress(len(dataset.trees), "predicting", quiet=as_json) as progress:
        predicted = collect.predict_all(estimator, dataset, progress.update)
    data, pairs = collect.report_data(dataset, estimator, evaluation, predicted)
    if folder is not None:
        _save(folder, data, pairs, predicted)
        console.note(f"wrote {folder / 'index.html'}")
    if as_json:
        console.emit_json(data)
    elif folder is not None:
        _print(data)


def _save(folder: Path, data: dict[str, Any], pairs: dict[str, Any], predicted: Any) -> None:
    import json

    from irene_build.report import collect, drawings, html, write
    from irene_build.report.payload import forest

    examples = collect.examples(predicted.predictions)
    trees = forest(predicted.predictions, predicted.labels)
    figures = drawings.of_report(data, pairs, examples[0] if examples else None)
    page = html.render_report(data, trees, figures)
    write.save_folder(folder, page, data, collect.tables(data, pairs), figures, examples)
    write.save(folder / "trees.json", json.dumps(trees, separators=(",", ":"), allow_nan=False) + "\n")


def _print(data: dict[str, Any]) -> None:
    from irene_build import console
    from irene_build.report.html import number
    from irene_build.report.predictions import is_simulated

    if is_simulated(data):
        console.say("SIMULATED: these joules descend from a simulated power meter.\n")
    errors = data["errors"]
    kind = "on the trees it was trained on" if errors["in_sample"] else "on held-out models"
    console.say(f"{data['hardware']}: mean error {kind}, percent")
    rows = [
        [
            r["tier"],
            r["level"],
            number(r["mape"]),
            number(r["p99"]),
            number(r["coverage90"], 1),
            number(r["n"], 0),
        ]
        for r in errors["by_level"]
    ]
    console.say(console.table(rows, ["tier", "level", "mean", "99th", "in 90 %", "nodes"]))
    for tier, models in list(data["bottlenecks"].items())[:1]:
        console.say(f"\nlargest consumers, tier {tier}")
        best = [
            [model, table[0]["module"], f"{100 * table[0]['share']:.1f} %"] for model, table in models.items()
        ]
        console.say(console.table(best, ["model", "part", "share"]))
