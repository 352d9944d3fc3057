"""``irene-build predict OUT TREE_OR_MODEL``: the joules of every node, by an exported bundle."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from irene_build import console
from irene_build.commands import _requests, _server_options, _serving, _trees
from irene_build.errors import InputError
from irene_build.files import check_writable, write_text_atomic
from irene_build.trace.shapes import parse

app = typer.Typer()

#: `--live` runs the model until the window is this long, so that counters and utilisations mean something.
LIVE_SECONDS = 3.0


@app.command()
def predict(
    out: Path = typer.Argument(
        ..., metavar="OUT", help="A bundle that `irene-build export` wrote; none with --device NAME."
    ),
    what: str = typer.Argument(
        "", metavar="TREE_OR_MODEL", help="A tree file, or a MODEL as `irene-build trace` takes it."
    ),
    batch_size: int = typer.Option(
        None, "--batch", "-b", help="Batch size (of a MODEL; default 8, of a request 1).", show_default=False
    ),
    seq_len: int = typer.Option(
        None,
        "--seq",
        "-s",
        help="Input tokens of one sequence (of a MODEL; default 128).",
        show_default=False,
    ),
    phase: str = typer.Option(
        None, "--phase", help="forward (default), prefill, decode or extend (of a MODEL).", show_default=False
    ),
    past_len: int = typer.Option(
        None, "--past", help="Cached tokens in phases decode (default: --seq) and extend.", show_default=False
    ),
    prompt: int = typer.Option(
        None, "--prompt", help="Predict a request: tokens of its prompt.", show_default=False
    ),
    new: int = typer.Option(None, "--new", help="New tokens of a request.", show_default=False),
    shared_prefix: int = typer.Option(
        0, "--shared-prefix", help="Tokens of the prompt that all requests of the batch share: run once."
    ),
    speculative: str = typer.Option(
        "",
        "--speculative",
        metavar="K,SHARE",
        help="Guesses a check, and the share of them that is accepted.",
    ),
    beams: int = typer.Option(1, "--beams", help="Beams of a request."),
    all_logits: bool = typer.Option(
        False,
        "--all-logits",
        help="A prefill computes logits of every token, not of the last as generate does.",
    ),
    dtype: str = typer.Option(
        None, "--dtype", help="float32 (default), float16 or bfloat16 (of a MODEL).", show_default=False
    ),
    attention: str = typer.Option("", "--attention", help="eager or sdpa (default: as calibrated)."),
    inputs: list[str] = typer.Option(
        [], "--inputs", help="module:function that returns inputs, or name=8x3x224x224[:dtype], repeated."
    ),
    no_cache: bool = typer.Option(False, "--no-cache", help="Trace MODEL anew, and keep nothing of it."),
    tier: str = typer.Option("", "--tier", help="static, live or profile (default: the best there is)."),
    live: bool = typer.Option(False, "--live", help="Run MODEL on this PC and predict from its readings."),
    device: str = typer.Option(
        "",
        "--device",
        help="Where --live runs it (cpu, cuda, cuda:N); or a device's name: its datasheet stands for OUT.",
    ),
    weights: str = typer.Option(
        "",
        "--weights",
        help="How matrices are stored (of a MODEL): int8, int8-pure, nf4, int4, gptq, awq, ...",
    ),
    clock: float = typer.Option(None, "--clock", metavar="MHZ", help="Core clock that the run is asked for."),
    power_limit: float = typer.Option(None, "--power-limit", metavar="W", help="Power limit of the board."),
    backend: str = typer.Option(
        "python", "--backend", help="What evaluates: python, or onnx (the bundle's graph)."
    ),
    engine: str = _server_options.ENGINE,
    tp: int = _server_options.TP,
    ep: int = _server_options.EP,
    dp: int = _server_options.DP,
    kv_cache: str = _server_options.KV_CACHE,
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
    """Predict the energy of one run, node by node, or of a request (--prompt, --new) from prompt to last token.

    The bundle's module says the same numbers. A MODEL is traced once, for every size, and kept in the cache.

    The module's code is not run: its constants are read, checked against the digest, and evaluated here.
    """
    if as_json + as_csv + as_openmetrics + (explain is not None) > 1:
        raise InputError("one of --json, --csv, --openmetrics and --explain")
    if co2 is not None and not 0.0 <= co2 < math.inf:
        raise InputError(f"--co2 {co2}: expected grams of CO2 per kWh")
    for path in (html, speedscope, chrome_trace):
        if path is not None:
            check_writable(path)
    _serving.refuse(engine, tp, ep, dp, kv_cache)
    if engine == "vllm":
        of_runs = {
            "--seq": seq_len is not None, "--phase": phase, "--past": past_len is not None, "--beams": beams != 1,
            "--shared-prefix": shared_prefix, "--speculative": speculative, "--all-logits": all_logits,
            "--dtype": dtype, "--attention": attention, "--inputs": inputs, "--tier": tier, "--live": live,
            "--clock": clock is not None, "--power-limit": power_limit is not None, "--backend": backend != "python",
            "--explain": explain is not None, "--co2": co2 is not None, "--html": html, "--csv": as_csv,
            "--speedscope": speedscope, "--chrome-trace": chrome_trace, "--openmetrics": as_openmetrics,
        }  # fmt: skip
        _trees.refuse_beside(
            "--engine vllm", [n for n, v in of_runs.items() if v], "a server's requests have neither"
        )
        place, model = (Path(device), str(out)) if device and not what else (out, what)
        if not model:
            raise InputError("give OUT and a MODEL, or --device NAME and a MODEL")
        spread = _serving.layout(tp, ep, dp, weights or "bfloat16", kv_cache, model)
        _serving.predict(
            place,
            model,
            8 if batch_size is None else batch_size,
            *_serving.lengths(prompt, new),
            spread,
            depth,
            as_json,
        )
        return
    if all_logits and prompt is None and new is None and phase not in ("prefill", "extend"):
        raise InputError("--all-logits: of a prefill, add --phase prefill")
    from irene_build.engines.quantised import launched
    from irene_build.export.load import load_bundle
    from irene_build.export.samples import attention_of

    named = "" if live or device == "cpu" or device.startswith("cuda") else device
    if named:
        if what or backend != "python":
            raise InputError(f"--device {named} stands for a bundle: give MODEL alone, and no --backend")
        estimator, what = _of_datasheet(named), str(out)
    elif not what:
        raise InputError("give OUT and TREE_OR_MODEL, or --device NAME and a MODEL")
    else:
        estimator, _ = load_bundle(out, backend)
    file = _trees.tree_file(what)
    if file is not None and live:
        raise InputError(f"{what} is a tree: --live needs the MODEL itself, to run it")
    if live and device:
        from irene_build.measure.device import open_device

        open_device(device)  # a device that is not here is told before MODEL is traced
    sized = {"--batch": batch_size, "--seq": seq_len, "--phase": phase, "--past": past_len}
    wanted = {"--shared-prefix": shared_prefix, "--speculative": speculative, "--beams": beams > 1}
    if file is not None:
        of_model = {
            "--dtype": dtype,
            "--attention": attention,
            "--inputs": inputs,
            "--all-logits": all_logits,
            "--weights": weights,
        }
        _trees.refuse_beside(
            "a tree file", [n for n, v in of_model.items() if v], "which was traced with its own"
        )
    if prompt is None and new is None:
        _trees.refuse_beside("a single run", [n for n, v in wanted.items() if v], "give --prompt and --new")
    else:
        single = {
            "--seq": seq_len is not None, "--phase": phase, "--past": past_len is not None, "--live": live,
            "--tier": tier, "--csv": as_csv, "--openmetrics": as_openmetrics, "--explain": explain is not None,
            "--inputs": inputs, "--all-logits": all_logits, "--weights": weights, "--clock": clock,
            "--power-limit": power_limit, "--speedscope": speedscope, "--chrome-trace": chrome_trace,
        }  # fmt: skip
        _trees.refuse_beside(
            "--prompt and --new", [n for n, v in single.items() if v], "a request has its own"
        )
        guesses = _requests.speculation(speculative)
    attention = attention or attention_of(estimator.attention)
    if prompt is not None or new is not None:
        options = {
            "prompt": _requests.DEFAULT_PROMPT if prompt is None else prompt,
            "new": _requests.DEFAULT_NEW if new is None else new, "batch_size": 1 if batch_size is None else batch_size,
            "shared_prefix": shared_prefix, "speculative": guesses, "beams": beams,
        }  # fmt: skip
        found = _requests.request(
            estimator, what, file, options, dtype or "float32", attention, use_cache=not no_cache
        )
        _requests.shown(estimator, *found, depth=depth, html=html, as_json=as_json, co2=co2)
        return
    size: dict[str, Any] = {
        "phase": phase or "forward", "past_len": past_len or 0, "dtype": dtype or "float32", "attention": attention,
    }  # fmt: skip
    batch_size_asked, seq_len_asked = batch_size, seq_len
    batch_size, seq_len = 8 if batch_size is None else batch_size, 128 if seq_len is None else seq_len
    if file is not None:
        tree = _of_file(estimator, file, sized, batch_size_asked, seq_len_asked, past_len, phase)
    else:
        tree = _trees.Sizes(
            what,
            size["phase"],
            size["dtype"],
            attention,
            estimator.cost_model,
            parse(inputs),
            not no_cache,
            all_logits,
            weights,
        ).at(batch_size, seq_len_asked, past_len or 0)
    _tell_memory(estimator, tree)
    tree = _under(estimator, launched(tree), clock, power_limit)
    window = _run(estimator, what, batch_size, seq_len, device, size) if live else None
    prediction = estimator.predict(tree, window, tier or None)
    data = prediction.to_dict()
    if co2 is not None:
        data["co2_g"] = prediction.co2_g(co2)
    counts = [node.features for node in prediction.tree.nodes]
    _write_views(data, counts, html, speedscope, chrome_trace)
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


def _of_datasheet(device: str) -> Any:
    """The estimator of a device that nobody measured."""
    from irene_build.hardware.datasheets import datasheet
    from irene_build.train.law.datasheet_estimator import estimator
    from irene_runtime.model import Estimator

    return Estimator(estimator(datasheet(device)))


def _tell_memory(estimator: Any, tree: Any) -> None:
    """A note where the device cannot hold the parameters, or what one product reads and writes."""
    law = estimator.data.get("law") or {"device": {}}
    memory = float(law["device"].get("memory_bytes") or math.inf)
    whole = tree.nodes[0].features
    width = {"float16": 2.0, "bfloat16": 2.0, "float64": 8.0}.get(str(tree.header["dtype"]), 4.0)
    parameters = width * whole.get("num_parameters", 0.0)
    if tree.header.get("weights"):
        parameters = min(parameters, 2.0**20 * whole.get("weight_bytes", math.inf))
    products = [n.features.get("mem_bytes", 0.0) for n in tree.nodes if n.primitive in ("Linear", "Conv1D")]
    needed = max(parameters, 2.0**20 * max(products, default=0.0))
    if needed > memory:
        console.note(
            f"does not fit: at least {needed / 2**30:.0f} GiB at once, and the device has "
            f"{memory / 2**30:.0f}; these are the joules of such a device with more memory"
        )


def _under(estimator: Any, tree: Any, clock: float | None, power_limit: float | None) -> Any:
    """The tree under a clock and a power limit. Raises InputError where the estimator knows neither."""
    from irene_runtime.tree import ModelTree

    asked = {"--clock": clock, "--power-limit": power_limit}
    if clock is None and power_limit is None:
        return tree
    if estimator.law is None:
        raise InputError(
            f"{' and '.join(n for n, v in asked.items() if v is not None)}: this estimator has no physical law, "
            "which says what clocks and limits change; import a table with a column freq or power_limit_w"
        )
    for name, value in asked.items():
        if value is not None and not 0.0 < value < 1e6:
            raise InputError(f"{name} {value:g}: expected a positive number")
    highest = estimator.law.max_clock_hz / 1e6
    if clock is not None and clock > 1.001 * highest:
        raise InputError(f"--clock {clock:g}: the device's highest is {highest:g} MHz")
    return ModelTree(tree.nodes, {**tree.header, "clock_mhz": clock, "power_limit_w": power_limit})


def _of_file(
    estimator: Any,
    file: Path,
    sized: dict[str, Any],
    batch_size: Any,
    seq_len: Any,
    past_len: Any,
    phase: Any,
) -> Any:
    """The tree of a file; a symbolic one at the size that is asked for. Raises InputError."""
    from irene_runtime.symbolic import SymbolicTree

    tree = estimator.load_tree(str(file))
    if isinstance(tree, SymbolicTree):
        if seq_len is None and not past_len:
            positions: Any = tree.header["positions"]
            seq_len = (
                _trees.DEFAULT_SEQ_LEN if positions is None else min(_trees.DEFAULT_SEQ_LEN, positions - 1)
            )
        return tree.at(8 if batch_size is None else batch_size, seq_len, past_len or 0, phase)
    given = [name for name, value in sized.items() if value is not None]
    _trees.refuse_beside(
        "a tree of one size", given, f"which is {tree.header['batch_size']} x {tree.header['seq_len']}"
    )
    return tree


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
    data: dict[str, Any],
    counts: list[dict[str, float]],
    html: Path | None,
    speedscope: Path | None,
    chrome: Path | None,
) -> None:
    """The page and flame graphs that were asked for; ``counts``: features of each node, which the page explains by."""
    import json

    from irene_build.report import flame
    from irene_build.report.html import render_prediction

    nodes = [{**node, "features": own} for node, own in zip(data["nodes"], counts, strict=True)]

    def page(shown: dict[str, Any]) -> str:
        return render_prediction({**shown, "nodes": nodes})

    views: tuple[tuple[Path | None, Callable[[dict[str, Any]], str]], ...] = (
        (html, page),
        (speedscope, lambda shown: json.dumps(flame.speedscope(shown), allow_nan=False)),
        (chrome, lambda shown: json.dumps(flame.chrome_trace(shown), allow_nan=False)),
    )
    for path, render in views:
        if path is None:
            continue
        write_text_atomic(path, render(data), parents=False)
        console.note(f"wrote {path}")
