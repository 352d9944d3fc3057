"""``irene-build models``: the named architectures."""

from __future__ import annotations

import typer

from irene_build.console import emit_json, say, table
from irene_build.errors import InputError

app = typer.Typer()


@app.command(name="models")
def models_command(
    search: str = typer.Argument("", help="Only names or families that contain this.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List the named architectures, with their parameters in millions."""
    from irene_build.models import architectures

    wanted = search.lower()
    found = {
        name: entry
        for name, entry in architectures().items()
        if wanted in name.lower() or wanted in entry.get("family", "").lower()
    }
    if not found:
        raise InputError(f"no named architecture contains {search!r}")
    if as_json:
        emit_json([{"name": name, **entry} for name, entry in found.items()])
        return
    rows = [
        (
            name,
            f"{entry['parameters']:,.1f}",
            entry["class"],
            entry.get("family", ""),
        )
        for name, entry in found.items()
    ]
    say(table(rows, ("model", "parameters (M)", "class", "family")))
