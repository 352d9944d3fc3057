"""Whole models measured on a device whose numbers are not those of its datasheet: what a fit has to find again."""

from __future__ import annotations

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.hardware.datasheets import datasheet
from irene_build.train.law.fit import from_datasheet
from irene_runtime.law import Law
from irene_runtime.tree import ModelTree, Node

SHAPES = (("a", 768, 12), ("b", 1024, 24), ("c", 2048, 24), ("d", 4096, 32))


def model(
    name: str, width: int, layers: int, tokens: int, dtype: str = "bfloat16", clock: float | None = None
) -> ModelTree:
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
    for feature in ("matmul_flops", "weight_bytes", "read_bytes", "write_bytes", "kernels"):
        nodes[0].features[feature] = sum(node.features.get(feature, 0.0) for node in nodes[1:])
    nodes[0].features["flops"] = nodes[0].features["matmul_flops"]
    header = {"model": name, "batch_size": 1, "seq_len": tokens, "dtype": dtype, "clock_mhz": clock}
    return ModelTree(nodes, header)


def labelled(tree: ModelTree, energy_j: float, time_s: float, number: int = -1) -> LabelledTree:
    n = len(tree.nodes)
    energy, resources, measurement = np.full(n, np.nan), np.full((n, 8), np.nan), np.full(n, -1)
    energy[0], resources[0, 6], measurement[0] = energy_j, time_s, number
    return LabelledTree(tree, energy, resources, measurement, np.full(n, np.nan))


def measured(clocks: tuple[float, ...] = (900.0, 1410.0), noise: float = 0.0) -> list[LabelledTree]:
    """Four models at five sizes on a device like an A100."""
    data = from_datasheet(datasheet("A100"))
    for name, factor in {"efficiency_16": 1.2, "static_w": 1.4, "byte_j": 0.7, "host_s": 1.6}.items():
        data["numbers"][name]["value"] *= factor
    truth, out, random = Law(data), [], np.random.default_rng(0)
    for name, width, layers in SHAPES:
        for tokens in (32, 128, 512, 2048, 8192):
            for clock in clocks:
                tree = model(name, width, layers, tokens, clock=clock)
                spent = truth.nodes(Law.with_host(tree))[0]
                off = float(np.exp(noise * random.standard_normal()))
                out.append(labelled(tree, spent.energy_j * off, spent.time_s, len(out)))
    return out


def dataset(trees: list[LabelledTree], device: str = "A100") -> Dataset:
    return Dataset("mine", "gpu", "measured", "table", trees, {"labels": "model", "device": device})
