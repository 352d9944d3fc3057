"""`irene-build compare`: models side by side, energy against accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from irene_build.commands import _server_options

app = typer.Typer()


@app.command()
def compare(
    out: Path = typer.Argument(..., metavar="OUT", help="A bundle that `irene-build export` wrote."),
    models: list[str] = typer.Argument(
        ...,
        metavar="MODEL...",
        help="Named models, patterns ('bert_uncased_*'), configs, factories or tree files.",
    ),
    batch_size: int = typer.Option(8, "--batch", "-b", min=1, help="Batch size."),
    seq_len: int = typer.Option(
        None,
        "--seq",
        "-s",
        min=1,
        help="Tokens of one sequence (default 128, or all positions).",
        show_default=False,
    ),
    prompt: int = typer.Option(
        None, "--prompt", min=1, help="Compare requests: tokens of the prompt.", show_default=False
    ),
    new: int = typer.Option(None, "--new", min=1, help="New tokens of a request.", show_default=False),
    phase: list[str] = typer.Option(
        ["forward"], "--phase", help="forward, prefill or decode; may be given twice."
    ),
    past_len: int = typer.Option(
        0, "--past", min=0, help="Cached tokens before a decode step (default: --seq)."
    ),
    dtype: str = typer.Option("float32", "--dtype", help="float32, float16 or bfloat16."),
    inputs: list[str] = typer.Option(
        [], "--inputs", help="module:function that returns inputs, or name=8x3x224x224[:dtype], repeated."
    ),
    no_cache: bool = typer.Option(False, "--no-cache", help="Trace models anew, and keep nothing of them."),
    accuracy: Path | None = typer.Option(None, "--accuracy", help="CSV with the columns model,accuracy."),
    budget_j: float | None = typer.Option(
        None, "--budget-j", help="Name the most accurate model within this many joules."
    ),
    min_accuracy: float | None = typer.Option(
        None, "--min-accuracy", help="Name the cheapest model of at least this accuracy."
    ),
    engine: str = _server_options.ENGINE,
    tp: int = _server_options.TP,
    ep: int = _server_options.EP,
    dp: int = _server_options.DP,
    weights: str = _server_options.WEIGHTS,
    kv_cache: str = _server_options.KV_CACHE,
    max_itl: str | None = typer.Option(
        None, "--max-itl", metavar="TIME", help="With --engine vllm: the longest time a token, as 50ms."
    ),
    folder: Path | None = typer.Option(
        None, "--output", "-o", help="Folder for the page, its tables and figures."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Compare the predicted energy of models, per phase, sequence and token."""
    from irene_build import console
    from irene_build.commands import _bundles, _serving
    from irene_build.errors import InputError
    from irene_build.export.load import load_bundle
    from irene_build.report import grid, write
    from irene_build.report.tradeoff import read_accuracies
    from irene_build.trace.shapes import parse

    _serving.refuse(engine, tp, ep, dp, kv_cache, weights=weights != "bfloat16", max_itl=max_itl is not None)
    if engine == "vllm":
        spread = _serving.layout(tp, ep, dp, weights, kv_cache, models[0])
        _serving.compare(
            out, models, *_serving.lengths(prompt, new), spread, _serving.seconds(max_itl), as_json
        )
        return
    if (budget_j is not None or min_accuracy is not None) and accuracy is None:
        raise InputError("--budget-j and --min-accuracy need the accuracies: add --accuracy FILE.csv")
    given = read_accuracies(accuracy) if accuracy else None
    if folder is not None:
        write.check_folder(folder)
    estimator, _ = load_bundle(out)
    names = _bundles.expand(models)
    if prompt is not None or new is not None:
        from irene_build.commands._request_tables import compare_requests

        if accuracy is not None or folder is not None:
            raise InputError("--accuracy and --output: not beside --prompt and --new")
        compare_requests(
            estimator, names, prompt or 512, new or 256, batch_size, dtype, not no_cache, as_json
        )
        return
    predictions = []
    with console.Progress(len(names) * len(phase), "predicting", quiet=as_json) as progress:
        for one in phase:
            for name in names:
                size = [(batch_size, seq_len)]
                predictions += _bundles.predicted(
                    estimator, name, size, one, past_len, dtype, parse(inputs), not no_cache
                )
                progress.update(len(predictions), name)
    known = [str(p["model"]) for p in predictions]
    rated = _bundles.accuracies_for(known, given) if given is not None else None
    if given is not None and not rated:
        raise InputError(f"{accuracy}: holds none of the compared models, such as {known[0]}")
    result = grid.compare(predictions, rated, budget_j, min_accuracy)
    if folder is not None:
        _save(folder, result, predictions)
        console.note(f"wrote {folder / 'index.html'}")
    if as_json:
        console.emit_json(result)
    else:
        _print(result)


def _save(folder: Path, result: dict[str, Any], predictions: list[dict[str, Any]]) -> None:
    from irene_build.report import drawings, html, write

    figures = drawings.of_compare(result)
    bottlenecks = [{"model": m, **row} for m, rows in result["bottlenecks"].items() for row in rows]
    tables = {"models": result["rows"], "totals": result["totals"], "bottlenecks": bottlenecks}
    page = html.render_compare(result, predictions, figures)
    write.save_folder(folder, page, result, tables, figures, predictions)


def _print(result: dict[str, Any]) -> None:
    from irene_build import console
    from irene_build.report.html import joules
    from irene_build.report.predictions import is_simulated

    if is_simulated(result):
        console.say("SIMULATED: these joules descend from a simulated power meter.\n")
    sizes = sorted({(row["batch_size"], row["length"]) for row in result["rows"]})
    console.say("batch x tokens: " + ", ".join(f"{b} x {s}" for b, s in sizes))
    rated = any(row["accuracy"] is not None for row in result["rows"])
    most = max(row["energy_j"] for row in result["rows"])
    lines = []
    for row in result["rows"]:
        low, high = row["interval_j"]
        bar = "█" * max(0, round(8 * row["energy_j"] / most)) if most > 0 else ""
        mark = ("!" if row["extrapolates"] else "") + ("?" if row["uncalibrated"] else "")
        name = row["model"] if len(row["model"]) <= 26 else "…" + row["model"][-25:]
        cells = [name, *([row["phase"][:7]] if len(result["phases"]) > 1 else []), joules(row["energy_j"])]
        half = f"{50 * (high - low) / row['energy_j']:.1f}" if row["energy_j"] else "–"
        cells += [half, joules(row["energy_per_token_j"]), bar, mark]
        if rated:
            cells += [
                "" if row["accuracy"] is None else f"{row['accuracy']:g}",
                "*" if row["model"] in result["pareto"] else "",
            ]
        lines.append(cells)
    phase = ["phase"] if len(result["phases"]) > 1 else []
    header = ["model", *phase, "energy", "± %", "a token", "", "", *(["acc.", ""] if rated else [])]
    console.say(console.table(lines, header))
    if any(row["extrapolates"] for row in result["rows"]):
        console.say("! outside what was calibrated, interval widened")
    if any(row["uncalibrated"] for row in result["rows"]):
        console.say("? a primitive was never calibrated")
    if rated:
        console.say("* on the Pareto front of energy and accuracy")
    for key, words in (
        ("best_under", "best within {budget_j:g} J"),
        ("cheapest_above", "cheapest with accuracy {min_accuracy:g} or more"),
    ):
        if key in result:
            choice = result[key]["choice"]
            found = "  none"
            if choice:
                found = f"  {choice['model']}: {joules(choice['energy_j'])}, accuracy {choice['accuracy']:g}"
            console.say(f"{words.format(**result[key])}:\n{found}")
