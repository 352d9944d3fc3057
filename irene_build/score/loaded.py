"""What a run of `irene-build score` works with, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from irene_build.score.tables import EnergySource


@dataclass(frozen=True)
class Loaded:
    """An estimator with the models that it can score. ``payload``: the same as the bytes of a file, for workers;
    ``store``: a folder where tables are kept for later runs."""

    sources: Mapping[str, EnergySource]
    digest: str
    about: Mapping[str, str] = field(default_factory=dict)
    payload: bytes = b""
    store: Path | None = None
