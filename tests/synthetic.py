"""Small labelled datasets whose law is known, for tests that need no measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import ModelTree, Node

#: Model -> (class of its root, layers, hidden size).
MODELS = {
    "tiny-bert": ("BertModel", 2, 64), "small-bert": ("BertModel", 3, 128), "tiny-gpt": ("GPT2Model", 2, 96),
    "small-gpt": ("GPT2Model", 4, 64),
}  # fmt: skip
SIZES = ((2, 16), (4, 32), (8, 64))


def tree(model: str, batch_size: int, seq_len: int) -> ModelTree:
    """Root, layers of an attention and an MLP module each, leaves Linear, MatMul, Softmax, LayerNorm."""
    kind, layers, hidden = MODELS[model]
    rows = batch_size * seq_len
    nodes: list[Node] = []

    def add(scope: str, type_: str, level: str, parent: int, **features: float) -> int:
        primitive = type_ if level == "ml" else None
        call = sum(n.scope == scope and n.type == type_ for n in nodes)
        nodes.append(Node(scope, type_, level, parent, primitive, call, dict(features)))
        return len(nodes) - 1

    def linear(scope: str, parent: int, n: int, k: int) -> None:
        add(
            scope, "Linear", "ml", parent, flops=2e-6 * rows * n * k,
            mem_bytes=4.0 * (rows * (n + k) + n * k) / 2**20, num_parameters=float(n * k + n), kernels=1.0,
            elements=float(rows * n), gemm_m=float(rows), gemm_n=float(n), gemm_k=float(k), gemm_batch=1.0,
            matmul_flops=2e-6 * rows * n * k,
        )  # fmt: skip

    def pointwise(scope: str, type_: str, parent: int, cost: float, elements: float) -> None:
        add(
            scope, type_, "ml", parent, flops=1e-6 * cost * elements, mem_bytes=8.0 * elements / 2**20,
            num_parameters=0.0, kernels=1.0, elements=elements, rows=elements / hidden, cols=float(hidden),
            elementwise_flops=1e-6 * cost * elements,
        )  # fmt: skip

    add("", kind, "model", -1)
    for number in range(layers):
        layer = add(f"layer.{number}", "Layer", "module", 0)
        attention = add(f"layer.{number}.attention", "Attention", "module", layer)
        linear(f"layer.{number}.attention.query", attention, hidden, hidden)
        scores = float(batch_size * seq_len * seq_len)
        pointwise(f"layer.{number}.attention", "Softmax", attention, 5.0, scores)
        mlp = add(f"layer.{number}.mlp", "MLP", "module", layer)
        linear(f"layer.{number}.mlp.up", mlp, 4 * hidden, hidden)
        linear(f"layer.{number}.mlp.down", mlp, hidden, 4 * hidden)
        pointwise(f"layer.{number}.norm", "LayerNorm", layer, 8.0, float(rows * hidden))
    for node in reversed(nodes[1:]):
        above = nodes[node.parent].features
        for name in ("flops", "mem_bytes", "num_parameters", "kernels", "matmul_flops", "elementwise_flops"):
            above[name] = above.get(name, 0.0) + node.features.get(name, 0.0)
    return ModelTree(
        nodes, {"model": model, "batch_size": batch_size, "seq_len": seq_len, "attention": "eager"}
    )


def labelled(source: ModelTree, seed: int = 0, noise: float = 0.0, first: int = 0) -> LabelledTree:
    """Labels by a law: gpu = 2e-3 J a MFLOP + 1e-2 J a MiB, latency = 1e-5 s + gpu / 150 W,
    E = 1.1 gpu + 90 W latency.

    Modules add 4 % of their own to what their leaves need. ``noise``: relative, drawn from ``seed``.
    """
    random = Random(seed)
    size = len(source.nodes)
    energy, resources = np.empty(size), np.full((size, len(RESOURCE_FEATURES)), np.nan)
    for index, node in enumerate(source.nodes):
        own = 1.0 if node.level == "ml" else 1.04
        gpu = own * (2e-3 * node.features["flops"] + 1e-2 * node.features["mem_bytes"])
        latency = 1e-5 * node.features["kernels"] + gpu / 150.0
        energy[index] = (1.1 * gpu + 90.0 * latency) * math.exp(noise * random.gauss(0.0, 1.0))
        busy = 100.0 * gpu / (gpu + 0.05)
        resources[index] = (8.0, 10.0, busy, 0.4 * busy, 1900.0 - 0.5 * busy, 3800.0, latency, gpu)
    measurement = np.arange(first, first + size, dtype=np.int64)
    return LabelledTree(source, energy, resources, measurement, np.full(size, np.nan))


def dataset(
    models: Sequence[str] = tuple(MODELS), sizes: Sequence[tuple[int, int]] = SIZES, noise: float = 0.0,
    provenance: str = "measured", label_source: str = "emonpi",
) -> Dataset:  # fmt: skip
    """All models at all sizes."""
    trees: list[LabelledTree] = []
    for model in models:
        for batch_size, seq_len in sizes:
            first = sum(len(t.energy_j) for t in trees)
            trees.append(labelled(tree(model, batch_size, seq_len), len(trees), noise, first))
    return Dataset("lab", "wall", provenance, label_source, trees, {})
