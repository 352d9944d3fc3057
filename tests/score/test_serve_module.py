"""``serve`` of an exported module, with nothing but Python: a fake server here, a reader of OpenMetrics there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from irene_build.export.load import load_bundle
from tests.runtime.test_serve import FIRST, LATER, VLLM, samples, server
from tests.score import bundles


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("module")
    bundles.bundle(folder)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    module = folder / "out" / "irene_estimator.py"
    command = [sys.executable, "-I", "-S", str(module), "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_module_attributes_what_its_estimator_says_of_the_passes(folder: Path) -> None:
    with server([VLLM.format(**FIRST), VLLM.format(**LATER)]) as url:
        done = run(
            folder,
            "--metrics",
            url,
            "--tree",
            str(folder / "small.json"),
            "--once",
            "--interval",
            "0.5",
            "--listen",
            "127.0.0.1:0",
        )
    assert done.returncode == 0, done.stderr
    estimator, _ = load_bundle(folder / "out")
    tree = estimator.load_tree(str(folder / "small.json"))
    step = estimator.request(tree, 200, 2, 6, exact=True).decode.energy_j
    prompt = estimator.request(tree, 200, 1).prefill.energy_j
    found = samples(done.stdout)
    assert found["irene_energy_joules_total/decode"] == pytest.approx(100 * step, rel=1e-6)
    assert found["irene_energy_joules_total/prefill"] == pytest.approx(4 * prompt, rel=1e-6)


def test_a_tree_of_one_size_is_told_in_one_line(folder: Path) -> None:
    done = run(
        folder,
        "--metrics",
        "http://127.0.0.1:1/",
        "--tree",
        str(folder / "out" / "trees" / "tiny-gpt.json"),
        "--once",
    )
    assert done.returncode == 2 and "symbolic tree" in done.stderr and done.stderr.count("\n") == 1
