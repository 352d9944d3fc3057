"""One exported bundle that the tests of this folder read; tests that change it take a copy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from irene_build.export.bundle import export
from tests.export import examples


@pytest.fixture(scope="session")
def estimator() -> dict[str, Any]:
    """An estimator that uses every form of train/FORMAT.md, in all three tiers."""
    return examples.estimator()


@pytest.fixture(scope="session")
def bundle(estimator: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle, checked by the exporter; do not write into it."""
    folder = tmp_path_factory.mktemp("export") / "out"
    export(estimator, folder, examples.trees(estimator))
    return folder


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to spoil."""
    folder = tmp_path / "out"
    shutil.copytree(bundle, folder)
    return folder
