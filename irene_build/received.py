"""Files that may come from somebody else are data: what they name is not run, what they hold is bounded.

SECURITY.md says which files are trusted.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from irene_build.errors import DatasetError, InputError
from irene_runtime.tree import MAX_FILE_BYTES


def refuse_factories(models: Iterable[str], where: str, allowed: Collection[str], option: str) -> None:
    """Raises InputError for a ``package.module:factory`` that a file names and the command line does not.

    ``option``: what allows one. Paths may have a colon, and are no factories.
    """
    for model in dict.fromkeys(models):
        if ":" in model and not Path(model).exists() and model not in allowed:
            raise InputError(
                f"{where} names {model!r}, whose code would run: if you trust it, say so with {option} {model}"
            )


def inflate(blob: Any, where: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """What zlib packed, at most ``limit`` bytes. Raises DatasetError."""
    try:
        stream = zlib.decompressobj()
        content = stream.decompress(blob, limit)
        whole = stream.eof and not stream.unconsumed_tail
    except (zlib.error, TypeError) as error:
        raise DatasetError(f"{where} cannot be unpacked: {error}") from None
    if not whole:
        raise DatasetError(f"{where} is cut off or larger than {limit >> 20} MiB")
    return content


def plain_tables(database: sqlite3.Connection, path: Path) -> None:
    """Raises DatasetError where a SQLite file has views or triggers: ours have none, and they compute."""
    for kind, name in database.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger')"
    ):
        raise DatasetError(f"{path}: {name!s:.80} is a {kind}: no file of irene-build has one")


def json_of(text: Any, where: str) -> Any:
    """JSON out of a file. Raises DatasetError."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{where} is not JSON ({type(error).__name__})") from None
