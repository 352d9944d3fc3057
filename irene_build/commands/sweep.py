"""`irene-build sweep`: one model over a grid of batch sizes and sequence lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from irene_build.commands import _server_options

app = typer.Typer()


@app.command()
def sweep(
    out: Path = typer.Argument(..., metavar="OUT", help="A bundle that `irene-build export` wrote."),
    model: str = typer.Argument(..., metavar="MODEL", help="A named model, config or factory."),
    batch: str = typer.Option(
        "1,2,4,8,16,32", "--batch", "-b", help="Batch sizes, with commas between them."
    ),
    seq: str = typer.Option(
        "32,64,128,256,512", "--seq", "-s", help="Sequence lengths, with commas between them."
    ),
    phase: str = typer.Option(
        "forward", "--phase", help="forward, prefill or decode (one token after each length of --seq)."
    ),
    prompt: str = typer.Option(
        "", "--prompt", help="Sweep requests instead: tokens of their prompts, with commas between them."
    ),
    new: str = typer.Option("", "--new", help="New tokens of requests, with commas between them."),
    dtype: str = typer.Option("float32", "--dtype", help="float32, float16 or bfloat16."),
    inputs: list[str] = typer.Option(
        [], "--inputs", help="module:function that returns inputs, or name=8x3x224x224[:dtype], repeated."
    ),
    no_cache: bool = typer.Option(False, "--no-cache", help="Trace MODEL anew, and keep nothing of it."),
    engine: str = _server_options.ENGINE,
    tp: int = _server_options.TP,
    ep: int = _server_options.EP,
    dp: int = _server_options.DP,
    weights: str = _server_options.WEIGHTS,
    kv_cache: str = _server_options.KV_CACHE,
    folder: Path | None = typer.Option(
        None, "--output", "-o", help="Folder for the page, its tables and figures."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
    as_csv: bool = typer.Option(False, "--csv", help="Print the result as CSV."),
) -> None:
    """Predict energy per token and per sequence over a grid; * marks sizes outside what was calibrated."""
    from irene_build import console
    from irene_build.commands import _bundles, _serving
    from irene_build.errors import InputError
    from irene_build.export.load import load_bundle
    from irene_build.report import grid, write
    from irene_build.trace.shapes import parse
    from irene_runtime.symbolic import SymbolicTree

    _serving.refuse(engine, tp, ep, dp, kv_cache, weights=weights != "bfloat16")
    if engine == "vllm":
        if folder is not None or inputs or "," in prompt or "," in new:
            raise InputError("--engine vllm: one --prompt and one --new, and neither --output nor --inputs")
        spread = _serving.layout(tp, ep, dp, weights, kv_cache, model)
        in_flight = _bundles.whole_numbers(batch, "--batch")
        asked = [
            _bundles.whole_numbers(text, name)[0] if text else None
            for text, name in ((prompt, "--prompt"), (new, "--new"))
        ]
        _serving.sweep(out, model, in_flight, *_serving.lengths(*asked), spread, as_json, as_csv)
        return
    batches, seqs = _bundles.whole_numbers(batch, "--batch"), _bundles.whole_numbers(seq, "--seq")
    if as_json and as_csv:
        raise InputError("--json or --csv, not both")
    if folder is not None:
        write.check_folder(folder)
    estimator, _ = load_bundle(out)
    if _bundles.is_tree_file(Path(model)) and not isinstance(estimator.load_tree(model), SymbolicTree):
        raise InputError(f"{model} is a tree of one size: give the model itself, or a symbolic tree")
    if prompt or new:
        from irene_build.commands._request_tables import sweep_requests

        lists = (
            _bundles.whole_numbers(prompt or "128,512,2048", "--prompt"),
            _bundles.whole_numbers(new or "64,256", "--new"),
        )
        sweep_requests(estimator, model, *lists, batches, dtype, not no_cache, folder, as_json, as_csv)
        return
    sizes = [(b, s) for s in seqs for b in batches]
    predictions = []
    with console.Progress(len(sizes), "predicting", quiet=as_json or as_csv) as progress:
        for (b, s), found in zip(
            sizes,
            _bundles.predicted(estimator, model, sizes, phase, 0, dtype, parse(inputs), not no_cache),
            strict=True,
        ):
            predictions.append(found)
            progress.update(len(predictions), f"{b} x {s}")
    result = grid.sweep(predictions)
    if folder is not None:
        _save(folder, result, predictions)
        console.note(f"wrote {folder / 'index.html'}")
    if as_json:
        console.emit_json(result)
    elif as_csv:
        console.say(write.csv_text(result["cells"]).rstrip("\n"))
    else:
        _print(result, batches, seqs)


def _save(folder: Path, result: dict[str, Any], predictions: list[dict[str, Any]]) -> None:
    from irene_build.report import drawings, html, write

    figures = drawings.of_sweep(result)
    page = html.render_sweep(result, predictions, figures)
    write.save_folder(folder, page, result, {"cells": result["cells"]}, figures, predictions)


def _print(result: dict[str, Any], batches: list[int], seqs: list[int]) -> None:
    from irene_build import console
    from irene_build.report.html import joules
    from irene_build.report.predictions import is_simulated

    if is_simulated(result):
        console.say("SIMULATED: these joules descend from a simulated power meter.\n")
    cells = {(c["batch_size"], c["length"]): c for c in result["cells"]}
    for per in ("token", "sequence"):
        console.say(f"{result['model']}: predicted energy per {per}")
        lines: list[list[object]] = []
        for s in seqs:
            row = [cells[b, s] for b in batches]
            lines.append(
                [s, *(joules(c[f"energy_per_{per}_j"]) + ("*" if c["extrapolates"] else "") for c in row)]
            )
        console.say(console.table(lines, ["seq \\ batch", *map(str, batches)]) + "\n")
    best = min(result["cells"], key=lambda c: c["energy_per_token_j"])
    low, high = best["interval_per_token_j"]
    console.say(
        f"least per token: {best['batch_size']} x {best['length']}, {joules(best['energy_per_token_j'])} "
        f"({joules(low)} to {joules(high)})"
    )
    if any(c["extrapolates"] for c in result["cells"]):
        console.say("* outside what was calibrated, interval widened")
