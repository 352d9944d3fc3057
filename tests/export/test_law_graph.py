"""The graph evaluates the physical law itself: what the runtime says, for any dtype, clock and power limit."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest

from irene_build.export.arrays import encode, without_law
from irene_build.export.backends import OnnxRuntime, Reference
from irene_build.export.bundle import export
from irene_build.export.graph import build_model
from irene_build.export.law_graph import graph_features
from irene_build.export.load import load_bundle
from irene_build.hardware.datasheets import datasheet
from irene_build.train.law.fit import from_datasheet
from irene_runtime.law import ENERGY, TIME
from irene_runtime.model import Estimator
from irene_runtime.tree import ModelTree, Node
from tests.runtime.examples import estimator, term

COUNTED = ("flops", "mem_bytes", "matmul_flops", "elementwise_flops", "read_bytes", "write_bytes", "weight_bytes",
           "kernels", "gemm_batch", "gemm_m", "gemm_n", "gemm_k")  # fmt: skip


def with_law(device: str = "A100") -> dict[str, Any]:
    """Every leaf is what the law says of it, but Softmax, which costs a tenth more."""
    features = ["flops", "mem_bytes", TIME, ENERGY, "latency", "gpu_energy"]  # what its columns read
    data = estimator(law=from_datasheet(datasheet(device)), features=features)
    data["primitives"] = ["Linear", "Softmax", "Attention", "Host"]
    static = data["tiers"]["static"]
    static["columns"] = [*static["columns"], {"feature": ENERGY}, {"feature": TIME, "map": "log"}]
    energy = len(static["columns"]) - 2
    static["fallback"] = {"terms": [term("law", [energy], 1.0)]}
    static["leaf"] = {"Softmax": {"terms": [term("law", [energy], 1.1)]}}
    static["ranges"] = {}
    return data


def random_tree(seed: int, **header: Any) -> ModelTree:
    rng = Random(seed)
    nodes = [Node("", "Net", "model", -1)]
    block = 0
    for number in range(12):
        if number % 4 == 0:
            block = len(nodes)
            nodes.append(Node(f"b{number}", "Block", "module", 0))
        primitive = rng.choice(["Linear", "Softmax", "Attention", "GELU"])
        features = {name: 10.0 ** rng.uniform(-2, 4) for name in COUNTED[:7]}
        features["kernels"] = float(rng.randint(1, 5))
        if primitive in ("Linear", "Attention"):
            shape = [float(rng.randint(1, 64)), *(float(rng.randint(1, 5000)) for _ in range(3))]
            features.update(zip(COUNTED[8:], shape, strict=True), matmul_flops=2e-6 * float(np.prod(shape)))
            if primitive == "Attention" and rng.random() < 0.5:
                features["attended"] = 0.5 * shape[0] * shape[1] * shape[2]
        nodes.append(Node(f"b.{number}", primitive, "ml", block, primitive, 0, features))
    return ModelTree(nodes, {"model": "net", "batch_size": 1, "seq_len": 8, "attention": "eager", **header})


HEADERS: list[dict[str, Any]] = [
    {}, {"dtype": "bfloat16"}, {"dtype": "float16", "clock_mhz": 700.0}, {"dtype": "float64", "power_limit_w": 90.0},
    {"dtype": "float8", "clock_mhz": 1200.0, "power_limit_w": 150.0},
]  # fmt: skip


@pytest.mark.parametrize("device", ["A100", "RTX 4090", "M1 Pro"])
def test_a_forest_of_any_dtype_clock_and_limit(device: str) -> None:
    data = with_law(device)
    model = build_model(data, {})
    trees = [random_tree(seed, **header) for seed, header in enumerate(HEADERS)]
    expected = [n.energy_j for tree in trees for n in Estimator(data).predict(tree)]
    raw = without_law(data, encode(data, trees))
    assert np.isnan(raw["features"][:, [graph_features(data).index(TIME)]]).all()
    for graph in (OnnxRuntime(model.SerializeToString()), Reference(model)):
        np.testing.assert_allclose(graph.run_arrays(raw, "static")["energy"], expected, rtol=1e-12)


def test_conditions_may_be_left_out_and_what_is_said_is_taken() -> None:
    data, tree = with_law(), random_tree(7)
    graph = OnnxRuntime(build_model(data, {}).SerializeToString())
    arrays = encode(data, [tree])
    raw = without_law(data, arrays)
    del raw["conditions"]
    expected = [n.energy_j for n in Estimator(data).predict(tree)]
    np.testing.assert_allclose(graph.run_arrays(raw, "static")["energy"], expected, rtol=1e-12)
    arrays["features"][:, graph_features(data).index(ENERGY)] = 2.0
    leaves = graph.run_arrays(arrays, "static")["leaf_energy"]
    assert set(leaves[~np.isnan(leaves)]) <= {2.0, 2.2}


def test_a_bundle_with_a_law_is_exported_verified_and_read(tmp_path: Path) -> None:
    data, tree = with_law(), random_tree(3, dtype="float16", clock_mhz=900.0)
    done = export(data, tmp_path / "out", {"net.json": tree})
    assert done.verified.worst.agrees and not done.left_out
    onnx.checker.check_model(onnx.load(str(done.folder / "irene_estimator.onnx")), full_check=True)
    want = Estimator(data).predict(tree)
    for backend in ("python", "onnx"):
        got = load_bundle(done.folder, backend)[0].predict(tree)
        assert [n.scope for n in got][-1] == "host"
        np.testing.assert_allclose([n.energy_j for n in got], [n.energy_j for n in want], rtol=1e-12)
