"""Fixtures of the meters' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meters.wire import Wire
from tests.nvml import fake_nvml, nvml_library

__all__ = ["fake_nvml", "nvml_library", "wire"]


@pytest.fixture(scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def nothing_is_kept_for_the_user(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled for a test is not left in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache))


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    cable = Wire(tmp_path)
    yield cable
    cable.unplug()
