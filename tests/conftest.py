"""Fixtures that several folders share, and how hypothesis draws its cases.

The tests draw the same cases every time, for as long as they take: what fails, fails again. ``make fuzz`` draws new
ones (tests/fuzz/new_cases.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_ROOT = Path(__file__).resolve().parent.parent
_SLOW = [HealthCheck.too_slow]  # a machine that is busy is no fault of a test
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("new", deadline=None, print_blob=True, suppress_health_check=_SLOW)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def trees_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Symbolic trees that commands keep: in a folder of this run, not in the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["IRENE_CACHE"] = str(folder)
    return folder


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
