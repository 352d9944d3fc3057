"""Fixtures that several folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return _ROOT


@pytest.fixture(scope="session")
def irene_dataset() -> Path:
    """The published measurements of PC1 (IRENE_DATASET, or beside the checkout); skips where they are not."""
    path = Path(os.environ.get("IRENE_DATASET", _ROOT.parent / "shared" / "irene-dataset" / "device_1"))
    if not (path / "model_level_features.csv").is_file():
        pytest.skip(f"the published IrEne measurements are not here (IRENE_DATASET, tried {path})")
    return path
