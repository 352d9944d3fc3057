"""The command line: finds commands in ``irene_build.commands``, and turns errors into exit codes.

Every module there holds one Typer ``app`` with one command (``import`` and ``models`` may have
several). Such modules import nothing heavier than typer at their top; stages are imported inside.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import typer
import typer.main
from typer.core import TyperGroup

from irene_build import __version__
from irene_build.errors import InputError, IreneError

try:  # recent releases of typer carry their own copy of click
    from typer._click import exceptions as click_errors
except ImportError:
    from click import exceptions as click_errors  # type: ignore[no-redef]

#: command -> its module in irene_build.commands, in the order of ``--help``.
COMMANDS = {
    "doctor": "doctor", "models": "models", "devices": "devices", "trace": "trace", "calibrate": "calibrate",
    "relabel": "relabel",
    "import": "import_", "train": "train", "evaluate": "evaluate", "export": "export", "verify": "verify",
    "predict": "predict", "diff": "diff", "report": "report", "compare": "compare", "sweep": "sweep",
    "score": "score", "card": "card", "pool": "pool",
}  # fmt: skip


#: Commands that keep what they have done, and go on where they were interrupted.
RESUMABLE = ("calibrate", "score")


class _LazyGroup(TyperGroup):
    """Imports a command's module only when that command (or the list) is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in COMMANDS:
            close = get_close_matches(name, COMMANDS, n=1)
            meant = f": did you mean {close[0]}?" if close else ""
            raise InputError(f"there is no command {name!r}{meant} `irene-build --help` lists them")
        module = import_module(f"irene_build.commands.{COMMANDS[name]}")
        # Plain help for every command: boxes break copy and paste, and markup swallows [brackets].
        module.app.rich_markup_mode, module.app._add_completion = None, False
        command = typer.main.get_command(module.app)
        command.name = name
        _short_help(command)
        if "_IRENE_BUILD_COMPLETE" in os.environ:
            from irene_build.commands._completion import attach

            attach(command)
        return command


def _short_help(command: Any) -> None:
    """``-h`` beside ``--help``, at a command and at those below it."""
    command.context_settings = {**command.context_settings, "help_option_names": ["-h", "--help"]}
    for below in getattr(command, "commands", {}).values():
        _short_help(below)


app = typer.Typer(
    cls=_LazyGroup,
    name="irene-build",
    help="Calibrate a PC once; predict the joules of every part of a neural network anywhere.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
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
        code = app(arguments, standalone_mode=False, prog_name="irene-build")
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
        _close_output()
        code = 1
    except OSError as error:  # a full disk behind stdout, a terminal that went away
        if debug:
            traceback.print_exc()
        _close_output()
        where = f"{error.filename}: " if error.filename else ""
        _last_words(f"irene-build: cannot write or read: {where}{error.strerror or error}")
        code = 1
    if code == 130:  # some versions of typer turn Ctrl-C into this exit code themselves
        command = next((word for word in arguments if word in COMMANDS), "")
        again = _go_on(command, arguments)
        _last_words(f"irene-build: interrupted{again}")
    sys.exit(code if isinstance(code, int) else 0)


def _go_on(command: str, arguments: list[str]) -> str:
    """How an interrupted command is taken up again; empty where it begins anew."""
    if command not in RESUMABLE or "--dry-run" in arguments:
        return ""
    if "--new" in arguments:  # which would set aside what was measured
        return "; run it again with --resume instead of --new to go on"
    return "; run the same command again to go on"


def _close_output() -> None:
    """Nothing more is written to a stdout that failed, not even what is still in its buffer."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _last_words(text: str) -> None:
    with suppress(OSError):
        typer.echo(text, err=True)


if __name__ == "__main__":
    main()
