"""``irene-build verify OUT``: is a bundle what it says, and do its engines agree here."""

from __future__ import annotations

from pathlib import Path

import typer

from irene_build import console

app = typer.Typer()


@app.command()
def verify(
    out: Path = typer.Argument(..., help="A folder that `irene-build export` wrote."),
    python: str = typer.Option("", "--python", help="Interpreter that runs the module (default: this one)."),
    as_json: bool = typer.Option(False, "--json", help="The result as JSON."),
) -> None:
    """Check hashes and digests, run the module's self test, and compare every engine with the module.

    Engines: onnxruntime, onnx.reference, the trainer's arithmetic, and skl2onnx conversions of the leaves.
    """
    import sys

    from irene_build.export.verify import a_few, to_json, verify_bundle

    report = verify_bundle(out, (python or sys.executable, "-I", "-S"))
    if report.manifest["provenance"] == "simulated":
        console.note("SIMULATED: this estimator was calibrated on simulated energy.")
    if as_json:
        console.emit_json(to_json(report))
        return
    for reason, cases in report.refused.items():
        console.note(f"not compared: {a_few(cases)}: the module refuses it: {reason}")
    console.say(
        f"{out}: {len(report.manifest['files'])} files unchanged; manifest, module and graph have the digest "
        f"{report.manifest['digest']}"
    )
    rows = [
        [
            name,
            f"{d.absolute:.3g} J",
            f"{d.relative:.2g}",
            f"{d.root_relative:.2g}",
            f"{100 * d.share:.2g} %",
            d.where,
        ]
        for name, d in report.engines.items()
    ]
    console.say(
        console.table(rows, ["engine", "largest deviation", "relative", "at a root", "of the bound", "where"])
    )
    console.say(
        f"{report.cases} predictions, {report.nodes} nodes; bound 16 eps x sum of |terms|, 1e-12 relative at a root"
    )
    for line in report.selftest:
        console.say(f"selftest: {line}")
