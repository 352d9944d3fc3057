"""Shell completion of names: hardware, models, devices. Only loaded while a shell asks for words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:  # recent releases of typer carry their own copy of click
    from typer._click.shell_completion import CompletionItem
except ImportError:
    from click.shell_completion import CompletionItem  # type: ignore[assignment]


def hardware_names() -> list[str]:
    """Everything that ``--hardware`` can mean here: profiles, and folders of artifacts."""
    from irene_build.hardware import profile_names
    from irene_build.paths import artifacts_dir, shipped_artifacts_dir

    folders = {
        path.parent.name
        for root in (artifacts_dir(), shipped_artifacts_dir())
        for file in ("estimator.json", "campaign.sqlite")
        for path in root.glob(f"*/{file}")
    }
    return sorted(folders.union(profile_names()))


def model_names() -> list[str]:
    """The named architectures."""
    from irene_build.models import architectures

    return sorted(architectures())


def attach(command: Any) -> None:
    """Let the command's options and arguments complete names, by what they are called."""
    for parameter in command.params:
        shown = str(getattr(parameter, "metavar", "") or "")
        if parameter.name == "hardware":
            parameter.shell_complete = _completer(hardware_names)
        elif "MODEL" in shown or parameter.name == "model":
            parameter.shell_complete = _completer(model_names)
    for below in getattr(command, "commands", {}).values():
        attach(below)


def _completer(names: Callable[[], list[str]]) -> Callable[[Any, str], list[Any]]:
    def complete(context: Any, incomplete: str) -> list[Any]:
        return [CompletionItem(name) for name in names() if name.startswith(incomplete)]

    return complete
