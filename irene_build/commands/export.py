"""``irene-build export OUT``: the fitted estimator as a bundle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from irene_build import console
from irene_build.errors import InputError
from irene_build.files import check_writable

app = typer.Typer()


@app.command()
def export(
    out: Path = typer.Argument(
        ..., help="Folder to write: the ONNX graph, the Python module, manifest, README, trees."
    ),
    hardware: str = typer.Option(
        "",
        "--hardware",
        help="Whose estimator (default: the one that was calibrated here, else the only one in the artifacts folder).",
    ),
    device: str = typer.Option(
        "",
        "--device",
        help="A device that nobody measured: an estimator of its datasheet (irene-build devices).",
    ),
    estimator_file: str = typer.Option("", "--estimator", help="An estimator file instead of --hardware's."),
    tree: list[str] = typer.Option(
        [],
        "--tree",
        metavar="FILE_OR_MODEL",
        help="Tree to ship instead of the example trees (repeatable); of a MODEL, one of every size.",
    ),
    force: bool = typer.Option(
        False, "--force", help="Also write into a folder with other files; they are kept."
    ),
    as_json: bool = typer.Option(False, "--json", help="What was written, as JSON."),
) -> None:
    """Compile an estimator into one ONNX graph and one Python module that needs no packages.

    Nothing is written unless onnxruntime, onnx.reference, the module and the trainer agree.
    """
    from irene_build.commands import _gpus
    from irene_build.engines.estimator import is_kernels
    from irene_build.export.bundle import export as write
    from irene_build.export.verify import to_json
    from irene_build.paths import find_artifact
    from irene_build.train.estimator_file import load as load_estimator

    if bool(hardware) + bool(estimator_file) + bool(device) > 1:
        raise InputError("give --hardware, --estimator or --device, not both")
    if device:
        from irene_build.hardware.datasheets import datasheet
        from irene_build.train.law.datasheet_estimator import estimator as of_datasheet

        sheet = datasheet(device)
        estimator, path = of_datasheet(sheet), Path(sheet.name)
    else:
        path = (
            Path(estimator_file)
            if estimator_file
            else find_artifact(hardware or _only_hardware(), "estimator.json")
        )
        if is_kernels(path):
            _gpus.export(path, out, as_json)
            return
        estimator = load_estimator(path)
    check_writable(out)
    trees = dict(_tree(name, estimator) for name in tree) if tree else None
    if trees is not None and len(trees) < len(tree):
        raise InputError("two --tree files have the same name")
    done = write(estimator, out, trees, force, (lambda text: None) if as_json else console.note)
    for name, reason in done.left_out.items():
        console.note(f"example tree {name} is left out, this estimator cannot predict it: {reason}")
    for text in done.warnings:
        console.note(f"warning: {text}")
    if done.manifest["provenance"] == "simulated":
        console.note("SIMULATED: this estimator was calibrated on simulated energy.")
    if done.manifest["provenance"] == "datasheet":
        console.note("DATASHEET: nothing was measured; joules are those of the board, intervals are wide.")
    if as_json:
        console.emit_json({
            "format": "irene-export", "version": 1, "folder": str(done.folder), "estimator": str(path),
            "files": done.sizes, "left_out": done.left_out, "warnings": done.warnings,
            "verified": to_json(done.verified),
        })  # fmt: skip
        return
    console.say(f"{done.folder}: estimator of {done.manifest['hardware']}, {done.manifest['provenance']}, "
                f"tiers {', '.join(done.manifest['tiers'])}, digest {done.manifest['digest'][:12]}")  # fmt: skip
    console.say(console.table([[name, f"{size / 1000:.1f} KB"] for name, size in done.sizes.items()]))
    worst = done.verified.worst
    console.say(
        f"engines agree on {done.verified.cases} predictions ({done.verified.nodes} nodes): largest deviation "
        f"{worst.absolute:.2g}, {100 * worst.share:.2g} % of the bound"
    )
    console.say(f"next: irene-build predict {out} MODEL, or python {out}/irene_estimator.py predict TREE")


def _tree(name: str, estimator: dict[str, Any]) -> tuple[str, Any]:
    """File name and tree: of a file, or of a MODEL at every size, traced as the estimator was calibrated."""
    from irene_build.export.samples import attention_of
    from irene_build.trace.cached import tree_of_every_size
    from irene_runtime.symbolic import load_any

    path = Path(name)
    if path.suffix == ".json" and b'"model_type"' not in (
        path.read_bytes()[: 1 << 16] if path.is_file() else b""
    ):
        return path.name, load_any(name)
    if estimator["cost_model"] != "analytic":
        raise InputError(
            f"--tree {name}: trees of every size are counted by the cost model analytic alone: give a file"
        )
    tree = tree_of_every_size(name, attention=attention_of(str(estimator["attention"])))
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name.removesuffix('.json')).strip('-')}.json", tree


def _only_hardware() -> str:
    """The hardware meant when none is named: the one that was calibrated here, else the only one there is.

    Raises InputError where that is not exactly one.
    """
    from irene_build.paths import artifacts_dir, shipped_artifacts_dir

    for root in (artifacts_dir(), shipped_artifacts_dir()):
        found = sorted(path.parent for path in root.glob("*/estimator.json"))
        measured = [folder for folder in found if (folder / "campaign.sqlite").is_file()]
        candidates = [folder.name for folder in measured or found]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            names = ", ".join(candidates)
            raise InputError(f"several estimators in {root} ({names}): say which with --hardware")
    raise InputError(
        f"no estimator in {artifacts_dir()}: run `irene-build calibrate` first, or name a --hardware that ships"
    )
