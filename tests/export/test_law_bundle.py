"""A bundle of a law: every engine agrees, the module tests itself, and says the law's numbers."""

import subprocess
import sys
from pathlib import Path

import pytest

from irene_build.export.bundle import export
from irene_build.hardware.datasheets import datasheet
from irene_build.train import api
from irene_build.train.law.datasheet_estimator import estimator
from tests.train.law.models import dataset, measured, model


@pytest.fixture(scope="module", params=["datasheet", "fitted"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported, which compares all engines, with one small tree."""
    data = (
        estimator(datasheet("RTX 5090"))
        if request.param == "datasheet"
        else api.fit(dataset(measured(noise=0.03)))
    )
    folder = tmp_path_factory.mktemp("law") / "out"
    done = export(data, folder, {"tiny.json": model("tiny", 256, 2, 16)})
    assert done.verified.cases and not done.left_out
    return folder


def run(bundle: Path, *arguments: str) -> str:
    command = [sys.executable, "-I", "-S", str(bundle / "irene_estimator.py"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_module_agrees_with_itself_and_predicts_the_host(bundle: Path) -> None:
    assert "equal to the last bit" in run(bundle, "selftest")
    assert "Host" in run(bundle, "predict", str(bundle / "trees" / "tiny.json"))


def test_info_prints_the_law_number_by_number(bundle: Path) -> None:
    shown = run(bundle, "info")
    assert "law, static_w" in shown
    assert "W (power that flows whatever the clock; " in shown
