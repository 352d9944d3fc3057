"""Where artifacts, templates and the runtime's own source are found."""

from __future__ import annotations

import os
import re
from pathlib import Path

import irene_runtime
from irene_build.errors import InputError

_PACKAGE = Path(__file__).resolve().parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def artifacts_dir() -> Path:
    """The folder that is written to: ``--artifacts``, ``IRENE_ARTIFACTS``, else ``./artifacts``."""
    return Path(os.environ.get("IRENE_ARTIFACTS") or "artifacts")


def shipped_artifacts_dir() -> Path:
    """Artifacts that came with the package (read only)."""
    packaged = _PACKAGE / "_artifacts"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "artifacts"


def check_name(hardware: str) -> str:
    """A hardware name is a folder name; anything else is wrong input."""
    if not _NAME.fullmatch(hardware):
        raise InputError(f"hardware name {hardware!r}: use letters, digits, '.', '_' and '-'")
    return hardware


def hardware_dir(hardware: str) -> Path:
    """The writable folder of one hardware (not created here)."""
    return artifacts_dir() / check_name(hardware)


def find_artifact(hardware: str, file_name: str) -> Path:
    """An existing artifact: the user's own first, then the shipped one.

    Raises InputError that says what would make it.
    """
    for root in (artifacts_dir(), shipped_artifacts_dir()):
        path = root / check_name(hardware) / file_name
        if path.is_file():
            return path
    made_by = {"estimator.json": "train", "evaluation.json": "evaluate"}.get(file_name, "calibrate")
    instead = ""
    if made_by == "calibrate":
        instead = (
            ", which measures this PC; for measurements that were published, `irene-build import --help`"
        )
    there = [f"; there is one of {', '.join(names)}" for names in [artifacts_with(file_name)] if names]
    instead += "".join(there)
    raise InputError(
        f"no {file_name} for hardware {hardware!r} in {artifacts_dir()}/{hardware}: "
        f"run `irene-build {made_by} --hardware {hardware}` first{instead}"
    )


def artifacts_with(file_name: str) -> list[str]:
    """The hardware that has such an artifact, its own or shipped."""
    roots = (artifacts_dir(), shipped_artifacts_dir())
    return sorted({path.parent.name for root in roots for path in root.glob(f"*/{file_name}")})


def templates_dir() -> Path:
    packaged = _PACKAGE / "_templates"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "templates"


def runtime_source(module: str) -> str:
    """Source text of ``irene_runtime.<module>``."""
    return (Path(irene_runtime.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
