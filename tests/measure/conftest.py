"""Fixtures of the campaign's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clocks import clock_library, shifted_clocks
from tests.measure.rig import Rig
from tests.measure.wires import Line
from tests.nvml import fake_nvml, nvml_library

__all__ = ["clock_library", "fake_nvml", "line", "make_rig", "nvml_library", "shifted_clocks"]


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    cable = Line(tmp_path)
    yield cable
    cable.unplug()


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """``Rig`` in a folder of the test's own; its process does not outlive the test."""
    made: list[Rig] = []

    def make(*arguments: Any, **more: Any) -> Rig:
        made.append(Rig(tmp_path, *arguments, **more))
        return made[-1]

    yield make
    for rig in made:
        rig.kill()
