"""What doctor found out about a meter, kept in the folder of artifacts for later campaigns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irene_build.files import write_text_atomic
from irene_build.paths import artifacts_dir


def kept(store: str, key: str) -> dict[str, Any]:
    """The figures under ``key`` of ``store``, a JSON file of the artifacts; empty where there are none."""
    found = _read(artifacts_dir() / store).get(key)
    return dict(found) if isinstance(found, Mapping) else {}


def keep(store: str, key: str, figures: Mapping[str, Any]) -> Path:
    """Keeps figures beside those of other keys. Raises OutputError where nothing can be written."""
    path = artifacts_dir() / store
    text = json.dumps({**_read(path), key: dict(figures)}, indent=2, sort_keys=True)
    write_text_atomic(path, text + "\n")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
