"""``irene-build card OUT MODEL``: the predicted energy of a model as SPDX, CycloneDX and a model card."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import typer

from irene_build.errors import InputError

app = typer.Typer()

FORMATS = ("spdx", "cyclonedx", "model-card")


@app.command()
def card(
    out: Path = typer.Argument(..., metavar="OUT", help="A bundle that `irene-build export` wrote."),
    model: str = typer.Argument(..., metavar="MODEL", help="A MODEL as `irene-build trace` takes it, or a tree file."),
    folder: Path = typer.Option(Path("card"), "--output", "-o", metavar="FOLDER", help="Where the records go."),
    formats: str = typer.Option(",".join(FORMATS), "--format", help="Some of spdx,cyclonedx,model-card."),
    batch_size: int = typer.Option(1, "--batch", "-b", help="Batch size of an inference."),
    seq_len: int = typer.Option(128, "--seq", "-s", help="Input tokens of one sequence."),
    phase: str = typer.Option("forward", "--phase", help="forward, prefill or decode."),
    past_len: int = typer.Option(0, "--past", help="Cached tokens in phase decode (default: --seq)."),
    dtype: str = typer.Option("float32", "--dtype", help="float32, float16 or bfloat16."),
    runs: int = typer.Option(1000, "--runs", help="Inferences that the energy is given for."),
    cyclonedx: str = typer.Option("1.6", "--cyclonedx", help="Version of CycloneDX: 1.6 or 1.7."),
    co2: float = typer.Option(None, "--co2", metavar="G_PER_KWH", help="Grams of CO2 of one kWh."),
    supplier: str = typer.Option("", "--supplier", help="Who supplies the model."),
    model_version: str = typer.Option("", "--model-version", help="Version of the model."),
    download: str = typer.Option("", "--download", metavar="URL", help="Where the model comes from."),
    released: str = typer.Option("", "--released", metavar="DATE", help="When it was released (2024-05-10)."),
    licence: str = typer.Option("", "--licence", help="Licence of the model, as the Hub names it."),
) -> None:  # fmt: skip
    """Write records of a model's predicted energy: an estimate, with boundary, interval and method."""
    from irene_build import __version__, console
    from irene_build.card import cyclonedx as cdx
    from irene_build.card import model_card, spdx
    from irene_build.card.facts import of_prediction
    from irene_build.commands import _bundles
    from irene_build.export.load import load_bundle
    from irene_build.files import write_text_atomic
    from irene_build.report.write import file_stem

    chosen = [name.strip() for name in formats.split(",") if name.strip()]
    if not chosen or not set(chosen) <= set(FORMATS):
        raise InputError(f"--format {formats!r}: some of {','.join(FORMATS)}")
    if runs < 1:
        raise InputError(f"--runs {runs}: expected 1 or more")
    if co2 is not None and not 0.0 <= co2 < 1e6:
        raise InputError(f"--co2 {co2}: expected grams of CO2 per kWh")
    more: dict[str, Any] = {
        "created": _moment(), "released": _date(released), "tool_version": __version__, "co2_g_per_kwh": co2,
        "supplier": supplier, "model_version": model_version, "download": download, "licence": licence,
    }  # fmt: skip
    estimator, manifest = load_bundle(out)
    prediction = next(_bundles.predicted(estimator, model, [(batch_size, seq_len)], phase, past_len, dtype))
    facts = of_prediction(prediction, runs, str(manifest["method"]), **more)
    if facts.is_simulated:
        console.note("SIMULATED: this estimator was calibrated on simulated energy; the records say so.")
    stem, written = file_stem(facts.model), {}
    if "spdx" in chosen:
        written[f"{stem}.spdx.json"] = spdx.text(facts)
    if "cyclonedx" in chosen:
        written[f"{stem}.cdx.json"] = cdx.text(facts, cyclonedx)
    if "model-card" in chosen:
        written[f"{stem}.README.md"] = model_card.text(facts)
    for name, content in written.items():
        path = folder / name
        write_text_atomic(path, content)
        console.say(str(path))


def _moment() -> datetime:
    """Now, or what SOURCE_DATE_EPOCH says, so that the same inputs give the same bytes."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        seconds = int(text) if text else None
    except ValueError:
        raise InputError(f"SOURCE_DATE_EPOCH {text!r}: expected seconds since 1970") from None
    now = datetime.now(timezone.utc) if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    return now.replace(microsecond=0)


def _date(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--released {text!r}: expected a date such as 2024-05-10") from None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
