"""The command line: finds commands in ``irene_build.commands``, and turns errors into exit codes.

Every module there holds one Typer ``app`` with one command (``import`` and ``models`` may have
several). Such modules import nothing heavier than typer at their top; stages are imported inside.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

from irene_build import __version__
from irene_build.errors import IreneError

try:  # recent releases of typer carry their own copy of click
    from typer._click import exceptions as click_errors
except ImportError:
    from click import exceptions as click_errors  # type: ignore[no-redef]

#: command -> its module in irene_build.commands, in the order of ``--help``.
COMMANDS = {
    "doctor": "doctor", "models": "models", "trace": "trace", "calibrate": "calibrate", "relabel": "relabel",
    "import": "import_", "train": "train", "evaluate": "evaluate", "export": "export", "verify": "verify",
    "predict": "predict", "diff": "diff", "report": "report", "compare": "compare", "sweep": "sweep",
}  # fmt: skip


class _LazyGroup(TyperGroup):
    """Imports a command's module only when that command (or the list) is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        module = import_module(f"irene_build.commands.{COMMANDS[name]}")
        # Plain help for every command: boxes break copy and paste, and markup swallows [brackets].
        module.app.rich_markup_mode, module.app._add_completion = None, False
        command = typer.main.get_command(module.app)
        command.name = name
        return command


app = typer.Typer(
    cls=_LazyGroup,
    name="irene-build",
    help="Calibrate a PC once; predict the joules of every part of a neural network anywhere.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"irene-build {__version__}")
        raise typer.Exit


@app.callback()
def root(
    artifacts: str = typer.Option(
        "", "--artifacts", envvar="IRENE_ARTIFACTS", help="Folder of artifacts (default ./artifacts)."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the trace of an error."),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    if artifacts:
        os.environ["IRENE_ARTIFACTS"] = artifacts


def _root_options_first(arguments: list[str]) -> list[str]:
    """Accept ``--debug`` and ``--artifacts`` anywhere, so that they can be added to a line that failed."""
    first: list[str] = []
    rest: list[str] = []
    pending = iter(arguments)
    for argument in pending:
        if argument == "--":
            rest += [argument, *pending]
        elif argument == "--debug" or argument.startswith("--artifacts="):
            first.append(argument)
        elif argument == "--artifacts":
            first += [argument, *([value] if (value := next(pending, None)) is not None else [])]
        else:
            rest.append(argument)
    return first + rest


def main(argv: list[str] | None = None) -> Any:
    """Entry point. Exit codes: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    arguments = _root_options_first(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        code = app(arguments, standalone_mode=False)
    except IreneError as error:
        if debug:
            traceback.print_exc()
        typer.echo(f"irene-build: {error}", err=True)
        code = error.exit_code
    except click_errors.NoArgsIsHelpError as error:
        typer.echo(error.ctx.get_help() if error.ctx else "")
        code = 2
    except click_errors.ClickException as error:
        command = (
            error.ctx.command_path
            if isinstance(error, click_errors.UsageError) and error.ctx
            else "irene-build"
        )
        typer.echo(f"irene-build: {error.format_message()} (see `{command} --help`)", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    if code == 130:  # some versions of typer turn Ctrl-C into this exit code themselves
        typer.echo("irene-build: interrupted; run the same command again to go on", err=True)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
