"""`irene-build evaluate`: errors on what a fit did not see, with baselines beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

app = typer.Typer()


@app.command()
def evaluate(
    hardware: str = typer.Option("", "--hardware", help="The PC whose dataset is used."),
    device: str = typer.Option(
        "", "--device", help="With --against: a device's datasheet alone (irene-build devices)."
    ),
    method: str = typer.Option("best", "--method", help="best, or paper (IrEne as published)."),
    protocol: str = typer.Option("model-out", "--protocol", help="model-out, family-out or model+size-out."),
    tier: list[str] = typer.Option(
        [], "--tier", help="static, live or profile; may be repeated (default: all)."
    ),
    recipe: str | None = typer.Option(
        None, "--recipe", help="With --method paper: converged (default) or authors (Adam, 8 epochs)."
    ),
    tables: bool = typer.Option(
        False, "--tables", help="With --method paper: Tables 5 to 9 and Figure 3 beside the paper's numbers."
    ),
    figure: Path | None = typer.Option(None, "--figure", help="With --tables: draw Figure 3 (PNG or SVG)."),
    labels: str = typer.Option(
        "all", "--labels", help="all, or model: fits see whole-model labels alone (method best)."
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of what is random (recipe authors)."),
    against: Path | None = typer.Option(
        None,
        "--against",
        metavar="FILE.csv",
        help="Runs that the estimator never saw: whole runs of a server, whole models, or generated tokens.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Measure how well a method predicts what it was not trained on."""
    from irene_build import console
    from irene_build.commands import _gpus
    from irene_build.dataset.serving import is_serving
    from irene_build.dataset.store import load_dataset
    from irene_build.engines import build
    from irene_build.errors import InputError
    from irene_build.evaluate import run
    from irene_build.paths import find_artifact

    if bool(hardware) == bool(device):
        raise InputError("give --hardware, or --device with --against")
    if device and against is None:
        raise InputError("--device goes with --against FILE: a datasheet has no measurements of its own")
    if against is not None and (device or not is_serving(against)):
        _against(hardware, device, against, as_json)
        return
    if against is not None or build.has_measurements(hardware):
        _gpus.evaluate(hardware, against, as_json)
        return
    if tables and method != "paper":
        raise InputError("--tables are the paper's: add --method paper")
    if figure is not None and not tables:
        raise InputError("--figure goes with --tables")
    if recipe is not None and method != "paper":
        raise InputError("--recipe belongs to --method paper")
    dataset = load_dataset(find_artifact(hardware, "campaign.sqlite"))
    constants = _constants(hardware)
    if tables:
        _tables(dataset, recipe or "converged", seed, constants, figure, as_json)
        return
    with console.Progress(1.0, "evaluating", quiet=as_json) as progress:
        result = run.evaluate(
            dataset,
            method,
            protocol,
            tuple(tier) or run.TIERS,
            recipe,
            seed,
            constants,
            report=progress.update,
            labels=labels,
        )
    target = _save(hardware, result)
    if as_json:
        console.emit_json({key: value for key, value in result.items() if key != "pairs"})
        return
    from irene_build.evaluate.text import evaluation_text

    console.say(evaluation_text(result))
    console.note(f"wrote {target}")


def _against(hardware: str, device: str, path: Path, as_json: bool) -> None:
    """A device's datasheet, or a trained estimator, beside measurements that it never saw."""
    from irene_build import console
    from irene_build.engines.estimator import is_kernels
    from irene_build.errors import InputError
    from irene_build.evaluate import against
    from irene_build.hardware.datasheets import datasheet
    from irene_build.paths import find_artifact
    from irene_build.trace import trace_model
    from irene_build.train.estimator_file import load
    from irene_build.train.law.datasheet_estimator import estimator
    from irene_runtime.model import Estimator

    if not path.is_file():
        raise InputError(f"--against {path}: no such file")
    own = None if device else find_artifact(hardware, "estimator.json")
    if own is not None and is_kernels(own):
        raise InputError(
            f"{path}: {hardware} has an estimator of kernels and servers, which is judged by a table of serving runs "
            "(columns as `irene-build import serving` takes them); for whole models give --device instead"
        )
    data = estimator(datasheet(device)) if own is None else load(own)
    compiled = Estimator(data)
    compare = against.generation if against.is_generation(path) else against.whole
    with console.Progress(1.0, "tracing", quiet=as_json):
        result = {
            "hardware": data["hardware"], "provenance": data["provenance"], "against": str(path),
            **compare(compiled, path, trace_model),
        }  # fmt: skip
    if as_json:
        console.emit_json(result)
    else:
        console.say(against.text(result))


def _constants(hardware: str) -> dict[str, float] | None:
    """The Strubell formula's, from the hardware profile; None where the PC has no profile."""
    from dataclasses import asdict

    from irene_build.errors import HardwareError
    from irene_build.hardware import load_profile

    try:
        return asdict(load_profile(hardware).strubell)
    except HardwareError:
        return None


def _save(hardware: str, result: dict[str, Any]) -> Path:
    """evaluation.json is the one that reports show: the method of the estimator, models left out."""
    import json

    from irene_build.files import write_text_atomic
    from irene_build.paths import hardware_dir

    folder = hardware_dir(hardware)
    name = "evaluation.json"
    plain = result["protocol"] == "model-out" and "labels" not in result
    if not plain or result["method"] != _trained_method(folder, result["method"]):
        labels = "-root-labels" if "labels" in result else ""
        name = f"evaluation-{result['method']}-{result['protocol']}{labels}.json"
    target = folder / name
    write_text_atomic(target, json.dumps(result, sort_keys=True, allow_nan=False) + "\n")
    return target


def _trained_method(folder: Path, default: str) -> str:
    from irene_build.errors import EstimatorError
    from irene_build.train import estimator_file

    if not (folder / "estimator.json").is_file():
        return default
    try:
        return str(estimator_file.load(folder / "estimator.json")["method"])
    except EstimatorError:
        return default


def _tables(dataset: Any, recipe: str, seed: int, constants: Any, figure: Path | None, as_json: bool) -> None:
    from irene_build import console
    from irene_build.evaluate import tables
    from irene_build.evaluate.text import tables_text

    with console.Progress(1.0, "evaluating", quiet=as_json) as progress:
        result = tables.compute(dataset, recipe, seed, constants, progress.update)
    if figure is not None:
        from irene_build.evaluate.figure import draw_cdf

        draw_cdf(result["figure_3"], figure)
        console.note(f"wrote {figure}")
    if as_json:
        console.emit_json(result)
    else:
        console.say(tables_text(result))
