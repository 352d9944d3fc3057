"""A small calibrated PC: real traces, an estimator of two constants, labels with known errors, a bundle."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irene_build.dataset.store import save_dataset
from irene_build.dataset.table import Dataset, LabelledTree
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.model import Estimator

MODELS = ("bert_uncased_L-2_H-128_A-2", "bert_uncased_L-4_H-128_A-2")
SIZES = ((2, 32), (4, 32), (8, 64))


def estimator(provenance: str = "measured") -> dict[str, Any]:
    """1 mJ a node and 1 mJ a MiB; readings count 2 J a GPU joule and 100 W; intervals of 10 %."""

    def term(name: str, columns: list[int], weight: float) -> dict[str, Any]:
        return {"name": name, "columns": columns, "weight": weight, "mean": 0.0, "scale": 1.0}

    levels = ("ml", "module", "model")
    features = ["mem_bytes", "latency", "gpu_energy", "seq_len"]
    leaf = {"terms": [term("launch", [], 1e-3), term("bytes", [0], 1e-3)], "floor": 0.0, "correction": None}
    direct = {"terms": [term("gpu", [2], 2.0), term("time", [1], 100.0)], "pool": 0.5, "floor": 0.0}
    static = {
        "columns": [{"feature": name, "map": "identity"} for name in features], "leaf": {}, "fallback": leaf,
        "aggregation": None, "direct": {}, "rescale": {}, "ranges": {"model": {"seq_len": [32.0, 64.0]}},
        "interval": {"levels": {level: {"q": 0.1, "slope": 1.0} for level in levels}, "primitives": {}},
    }  # fmt: skip
    primitives = [
        "Linear",
        "LayerNorm",
        "Embedding",
        "MatMul",
        "Softmax",
        "GELU",
        "Tanh",
        "Elementwise",
        "Copy",
    ]
    static["leaf"] = dict.fromkeys(primitives, leaf)
    return {
        "format": "irene-estimator", "version": 1, "hardware": "bench", "method": "best", "boundary": "wall",
        "provenance": provenance, "label_source": "emonpi", "cost_model": "analytic", "attention": "eager",
        "created_by": {"irene-build": "0"}, "fingerprint": {"cpu": "a CPU"}, "features": features,
        "primitives": primitives,
        "trained_on": {"models": list(MODELS), "trees": 6, "nodes": 1, "distinct": 1},
        "tiers": {
            "static": static,
            "live": {"base": "static", "direct": {"model": direct}, "rescale": {"ml": 1.0, "module": 1.0}},
            "profile": {"base": "static", "direct": dict.fromkeys(levels, direct)},
        },
        "evaluation": {},
    }  # fmt: skip


def dataset(provenance: str = "measured") -> Dataset:
    """Labels are the static prediction times e^±0.05, readings such that they agree with the labels."""
    from irene_build.trace import trace

    engine = Estimator(estimator())
    draw = random.Random(7)
    trees = []
    for model in MODELS:
        for batch, length in SIZES:
            tree = trace(model, batch, length, attention="eager")
            exact = [node.energy_j for node in engine.predict(tree, tier="static")]
            label = np.array([e * math.exp(draw.uniform(-0.05, 0.05)) for e in exact])
            resources = np.full((len(label), len(RESOURCE_FEATURES)), np.nan)
            resources[:, RESOURCE_FEATURES.index("gpu_energy")] = label / 4.0
            resources[:, RESOURCE_FEATURES.index("latency")] = label / 200.0
            numbers = np.arange(len(label), dtype=np.int64) + 1000 * len(trees)
            label[3], numbers[3] = np.nan, -1
            trees.append(LabelledTree(tree, label, resources, numbers, 0.01 * label))
    return Dataset("bench", "wall", provenance, "emonpi", trees, {"campaign": "made for the tests"})


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the estimator, as `export` writes it."""
    from irene_build.export.bundle import export
    from irene_build.trace import trace

    folder = tmp_path_factory.mktemp("bundles") / "out"
    export(estimator(), folder, trees={"tiny.json": trace(MODELS[0], 2, 32, attention="eager")})
    return folder


@pytest.fixture(scope="package")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of two PCs: ``bench``, and ``bench-sim`` whose joules are simulated."""
    root = tmp_path_factory.mktemp("artifacts")
    for name, provenance in (("bench", "measured"), ("bench-sim", "simulated")):
        (root / name).mkdir()
        data = dataset(provenance)
        data.hardware = name
        save_dataset(data, root / name / "campaign.sqlite")
        fitted = {**estimator(provenance), "hardware": name}
        (root / name / "estimator.json").write_text(json.dumps(fitted))
    return root


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="package")
def irene(artifacts: Path) -> Run:
    """Runs `irene-build ARGUMENTS`; gives (exit code, stdout, stderr)."""
    from irene_build.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            patch.setenv("IRENE_ARTIFACTS", str(artifacts))
            main([str(a) for a in arguments])
        code = end.value.code
        return (code if isinstance(code, int) else 0), out.getvalue(), err.getvalue()

    return run


@pytest.fixture(scope="package")
def report(irene: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A report of ``bench``: its folder, and what the command wrote to stdout and stderr."""
    folder = tmp_path_factory.mktemp("made") / "report"
    code, out, err = irene("report", "--hardware", "bench", "-o", folder)
    assert code == 0, err
    return folder, out, err


@pytest.fixture(scope="package")
def simulated_report(irene: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A report of ``bench-sim``."""
    folder = tmp_path_factory.mktemp("made") / "report"
    code, out, err = irene("report", "--hardware", "bench-sim", "-o", folder)
    assert code == 0, err
    return folder, out, err
