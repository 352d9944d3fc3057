"""The fit of the law: it finds a device again from whole models, whatever datasheet it starts from."""

import numpy as np
import pytest

from irene_build.dataset.table import LabelledTree
from irene_build.hardware.datasheets import datasheet
from irene_build.train.law.device import guessed, named
from irene_build.train.law.evaluate import spent
from irene_build.train.law.fit import fit, from_datasheet, labels
from irene_runtime.law import Law
from irene_runtime.tree import ModelTree, Node


def model(name, width, layers, tokens, dtype="bfloat16", clock=None):
    """A stack of products and element-wise operations."""
    nodes = [Node("", name, "model", -1)]
    for layer in range(layers):
        product = {
            "matmul_flops": 2e-6 * tokens * width * width, "weight_bytes": 2.0 * width * width / 2**20,
            "read_bytes": 2.0 * tokens * width / 2**20, "write_bytes": 2.0 * tokens * width / 2**20, "kernels": 1.0,
            "gemm_batch": 1.0, "gemm_m": float(tokens), "gemm_n": float(width), "gemm_k": float(width),
        }  # fmt: skip
        rest = {"read_bytes": 8.0 * tokens * width / 2**20, "write_bytes": 4.0 * tokens * width / 2**20,
                "elementwise_flops": 4e-6 * tokens * width, "matmul_flops": 0.0, "kernels": 3.0}  # fmt: skip
        nodes.append(Node(f"{layer}.p", "Linear", "ml", 0, "Linear", 0, product))
        nodes.append(Node(f"{layer}.e", "Elementwise", "ml", 0, "Elementwise", 0, rest))
    flops = sum(n.features.get("matmul_flops", 0.0) for n in nodes)
    nodes[0].features.update(
        flops=flops, weight_bytes=sum(n.features.get("weight_bytes", 0.0) for n in nodes)
    )
    return ModelTree(
        nodes, {"model": name, "batch_size": 1, "seq_len": tokens, "dtype": dtype, "clock_mhz": clock}
    )


@pytest.fixture(scope="module")
def measured():
    """Four models on an A100 whose numbers are not those of its datasheet."""
    data = from_datasheet(datasheet("A100"))
    for name, factor in {"efficiency_16": 1.2, "static_w": 1.4, "byte_j": 0.7, "host_s": 1.6}.items():
        data["numbers"][name]["value"] *= factor
    truth, out = Law(data), []
    for name, width, layers in (("a", 768, 12), ("b", 1024, 24), ("c", 2048, 24), ("d", 4096, 32)):
        for tokens in (32, 128, 512, 2048, 8192):
            for clock in (900.0, 1410.0):
                tree = Law.with_host(model(name, width, layers, tokens, clock=clock))
                spent_ = truth.nodes(tree)[0]
                n = len(tree.nodes)
                energy, resources = np.full(n, np.nan), np.full((n, 8), np.nan)
                energy[0], resources[0, 6] = spent_.energy_j, spent_.time_s
                out.append(LabelledTree(tree, energy, resources, np.full(n, -1), np.full(n, np.nan)))
    return out


@pytest.mark.parametrize("sheet", ["the device's", "guessed"])
def test_a_left_out_model_is_predicted(measured, sheet):
    data = labels(measured)
    device = datasheet("A100") if sheet == "the device's" else guessed(measured)
    loose = 1.0 if sheet == "the device's" else 1.5
    for left_out, bound in (("b", 0.08 * loose), ("d", 0.25 * loose)):
        law = fit(data.pick(data.model != left_out), device)
        error = spent(law, data.runs).pass_j / data.energy_j - 1.0
        assert np.abs(error[data.model == left_out]).max() < bound


def test_numbers_have_units_and_say_where_they_come_from(measured):
    law = fit(labels(measured), datasheet("A100"))
    for name, entry in law["numbers"].items():
        assert entry["unit"] and entry["meaning"] and "40 whole models" in entry["source"], name
        assert 0.0 < entry["deviation"] <= 1.01 * entry["width"]
    assert law["clock_hz"] == pytest.approx(1155e6)


def test_seconds_are_used_where_they_are_known_and_joules_alone_do(measured):
    for tree in measured[:10]:
        tree.resources[0] = np.nan
    law = fit(labels(measured), datasheet("A100"))
    error = spent(law, labels(measured).runs).pass_j / labels(measured).energy_j - 1.0
    assert np.abs(error).max() < 0.1


@pytest.mark.parametrize(
    ("text", "device"),
    [("ea-a10-bf16", "A10"), ("gw-m1-pro", "Apple M1 Pro"), ("lab-rtx-4090", "GeForce RTX 4090"), ("ea-dvfs", None),
     ("pc1", None), ("h200-host", "H200 SXM5 141GB")],
)  # fmt: skip
def test_a_device_is_read_in_a_name(text, device):
    found = named(text)
    assert (found.name if found else None) == device
