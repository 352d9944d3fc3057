"""``irene-build predict OUT TREE_OR_MODEL``: the joules of every node, by an exported bundle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import typer

from irene_build import console
from irene_build.errors import InputError
from irene_build.files import write_text_atomic

app = typer.Typer()

#: `--live` runs the model until the window is this long, so that counters and utilisations mean something.
LIVE_SECONDS = 3.0


@app.command()
def predict(
    out: Path = typer.Argument(..., metavar="OUT", help="A bundle that `irene-build export` wrote."),
    what: str = typer.Argument(
        ..., metavar="TREE_OR_MODEL", help="A tree file, or a MODEL as `irene-build trace` takes it."
    ),
    batch_size: int = typer.Option(8, "--batch", "-b", help="Batch size (of a MODEL)."),
    seq_len: int = typer.Option(128, "--seq", "-s", help="Input tokens of one sequence (of a MODEL)."),
    phase: str = typer.Option("forward", "--phase", help="forward, prefill or decode (of a MODEL)."),
    past_len: int = typer.Option(0, "--past", help="Cached tokens in phase decode (default: --seq)."),
    dtype: str = typer.Option("float32", "--dtype", help="float32, float16 or bfloat16 (of a MODEL)."),
    attention: str = typer.Option("", "--attention", help="eager or sdpa (default: as calibrated)."),
    tier: str = typer.Option("", "--tier", help="static, live or profile (default: the best there is)."),
    live: bool = typer.Option(False, "--live", help="Run MODEL on this PC and predict from its readings."),
    device: str = typer.Option("", "--device", help="Where --live runs it: cpu, cuda or cuda:N."),
    backend: str = typer.Option(
        "python", "--backend", help="What evaluates: python, or onnx (the bundle's graph)."
    ),
    depth: int = typer.Option(3, "--depth", help="Levels below the root to print."),
    explain: str = typer.Option(None, "--explain", metavar="SCOPE", help="How one node's number came about."),
    co2: float = typer.Option(None, "--co2", metavar="G_PER_KWH", help="Grams of CO2 of one kWh."),
    html: Path = typer.Option(None, "--html", metavar="FILE", help="Also write a page to look at."),
    speedscope: Path = typer.Option(
        None,
        "--speedscope",
        metavar="FILE",
        help="Also write a flame graph for speedscope; widths are joules.",
    ),
    chrome_trace: Path = typer.Option(
        None, "--chrome-trace", metavar="FILE", help="Also write a trace for Perfetto or chrome://tracing."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the prediction as JSON."),
    as_csv: bool = typer.Option(False, "--csv", help="Print one line a node."),
    as_openmetrics: bool = typer.Option(False, "--openmetrics", help="Print OpenMetrics text."),
) -> None:
    """Predict the energy of one run, node by node. The bundle's module says the same numbers.

    The module's code is not run: its constants are read, checked against the digest, and evaluated here.
    """
    if as_json + as_csv + as_openmetrics + (explain is not None) > 1:
        raise InputError("one of --json, --csv, --openmetrics and --explain")
    if co2 is not None and not 0.0 <= co2 < math.inf:
        raise InputError(f"--co2 {co2}: expected grams of CO2 per kWh")
    from irene_build.export.load import load_bundle
    from irene_build.export.samples import attention_of

    estimator, _ = load_bundle(out, backend)
    file = _tree_file(what)
    if file is not None and live:
        raise InputError(f"{what} is a tree: --live needs the MODEL itself, to run it")
    size: dict[str, Any] = {
        "phase": phase, "past_len": past_len, "dtype": dtype,
        "attention": attention or attention_of(estimator.attention),
    }  # fmt: skip
    if file is not None:
        tree = estimator.load_tree(str(file))
    else:
        from irene_build.trace import trace

        tree = trace(what, batch_size, seq_len, cost_model=estimator.cost_model, **size)
    window = _run(estimator, what, batch_size, seq_len, device, size) if live else None
    prediction = estimator.predict(tree, window, tier or None)
    data = prediction.to_dict()
    if co2 is not None:
        data["co2_g"] = prediction.co2_g(co2)
    _write_views(data, html, speedscope, chrome_trace)
    if prediction.simulated:
        console.note("SIMULATED: this estimator was calibrated on simulated energy.")
    if as_json:
        console.emit_json(data)
    elif as_csv:
        console.say(prediction.to_csv().rstrip("\n"))
    elif as_openmetrics:
        console.say(prediction.to_openmetrics().rstrip("\n"))
    elif explain is not None:
        console.say(prediction.explain(explain).rstrip("\n"))
    else:
        console.say(prediction.table(depth=depth, g_per_kwh=co2).rstrip("\n"))


def _tree_file(what: str) -> Path | None:
    """The path where ``what`` is meant as a tree file; None where it is a MODEL.

    A file is a tree unless it is a transformers configuration; a name that ends like a file must exist.
    """
    path = Path(what)
    if path.is_dir() or (":" in what and not path.exists()):
        return None
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(1 << 16)
        return None if b'"model_type"' in head and b'"irene-tree"' not in head else path
    if path.suffix == ".json":
        raise InputError(
            f"{what}: no such file; give a tree file or a MODEL (`irene-build models` lists names)"
        )
    return None


def _run(estimator: Any, model: str, batch_size: int, seq_len: int, device: str, size: dict[str, Any]) -> Any:
    """A monitored window of whole runs of ``model`` on this PC, with random weights."""
    import time

    import torch

    from irene_build.measure.device import open_device
    from irene_build.trace.replay import capture

    chosen = open_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    console.note(f"running {model} on {chosen.name} for about {LIVE_SECONDS:g} s")
    run = capture(model, batch_size, seq_len, device=chosen.name, only={0}, **size).runners[0]
    run()
    chosen.synchronize()
    with estimator.monitor() as window:
        runs, start = 0, time.monotonic()
        while runs == 0 or time.monotonic() - start < LIVE_SECONDS:
            run()
            chosen.synchronize()
            runs += 1
        window.runs = runs
    return window


def _write_views(
    data: dict[str, Any], html: Path | None, speedscope: Path | None, chrome: Path | None
) -> None:
    """The page and the flame graphs that were asked for."""
    import json

    from irene_build.report import flame
    from irene_build.report.html import render_prediction

    views = (
        (html, render_prediction),
        (speedscope, lambda shown: json.dumps(flame.speedscope(shown), allow_nan=False)),
        (chrome, lambda shown: json.dumps(flame.chrome_trace(shown), allow_nan=False)),
    )
    for path, render in views:
        if path is None:
            continue
        write_text_atomic(path, render(data), parents=False)
        console.note(f"wrote {path}")
