"""Fixtures of the meters' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meters.wire import Wire
from tests.nvml import fake_nvml, nvml_library

__all__ = ["fake_nvml", "nvml_library", "wire"]


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    cable = Wire(tmp_path)
    yield cable
    cable.unplug()
