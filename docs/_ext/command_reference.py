"""Writes ``commands.md`` from the command line itself, so that the two cannot drift apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def _section(command: Any, title: str, depth: int) -> list[str]:
    """A heading, what the command does, its usage and its options; then the commands below it."""
    words = title.split()
    context = command.context_class(command, info_name=words[-1])
    usage = " ".join([*words, *command.collect_usage_pieces(context)])
    lines = [f"{'#' * depth} {title}", "", (command.help or "").strip(), "", "```text", usage, "```", ""]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            name, text = parameter.human_readable_name, getattr(parameter, "help", "") or ""
        else:
            name, text = record
        lines += [f"`{name}`", f": {' '.join(text.split()) or 'Needed.'}", ""]
    for name, below in getattr(command, "commands", {}).items():
        lines += _section(below, f"{title} {name}", depth + 1)
    return lines


def text() -> str:
    """The whole page, as MyST Markdown."""
    import typer.main

    from irene_build.cli import COMMANDS, app

    group = typer.main.get_command(app)
    context = group.context_class(group, info_name="irene-build")
    lines = [
        "# Commands",
        "",
        "Generated from the command line (`irene-build COMMAND --help` says the same).",
        "",
    ]
    for name in COMMANDS:
        lines += _section(group.get_command(context, name), f"irene-build {name}", 2)
    return "\n".join(lines) + "\n"


def _write(app: Any) -> None:
    path = Path(app.srcdir) / "commands.md"
    new = text()
    if not path.exists() or path.read_text(encoding="utf-8") != new:
        path.write_text(new, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}
