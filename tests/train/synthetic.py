"""A PC with a known law, and small transformers on it: what the tests of training learn from.

Energy is 60 W of idle draw times the time of a run, plus what bytes and operations take. The time of a kernel is
a launch plus a roofline. Modules are their children and 0 to a few per cent; equal nodes share a measurement.
"""

from __future__ import annotations

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import ModelTree, Node

MIB = 4 / 2**20


def _leaf(primitive: str, **features: float) -> tuple[str, dict[str, float]]:
    out = {"kernels": 1.0, **{k: float(v) for k, v in features.items()}}
    parts = ("read_bytes", "write_bytes", "weight_bytes")
    out["mem_bytes"] = sum(out.get(part, 0.0) for part in parts)
    out["flops"] = out.get("matmul_flops", 0.0) + out.get("elementwise_flops", 0.0)
    return primitive, out


def linear(rows: int, n: int, k: int) -> tuple[str, dict[str, float]]:
    return _leaf(
        "Linear", gemm_batch=1, gemm_m=rows, gemm_n=n, gemm_k=k, matmul_flops=2e-6 * rows * n * k,
        read_bytes=rows * k * MIB, write_bytes=rows * n * MIB, weight_bytes=n * k * MIB, elements=rows * n,
        num_parameters=n * k + n,
    )  # fmt: skip


def rowwise(primitive: str, rows: int, cols: int) -> tuple[str, dict[str, float]]:
    size = rows * cols * MIB
    return _leaf(primitive, rows=rows, cols=cols, elements=rows * cols, read_bytes=size, write_bytes=size,
                 elementwise_flops=5e-6 * rows * cols)  # fmt: skip


def pointwise(primitive: str, elements: int, reads: int = 1) -> tuple[str, dict[str, float]]:
    return _leaf(primitive, elements=elements, read_bytes=reads * elements * MIB, write_bytes=elements * MIB,
                 elementwise_flops=1e-6 * elements)  # fmt: skip


def tree(model: str, layers: int, hidden: int, batch: int, length: int) -> ModelTree:
    """A small encoder: per layer an attention-like and a feed-forward module."""
    rows = batch * length
    nodes: list[Node] = []

    def add(scope: str, kind: str, parent: int, leaf: tuple[str, dict[str, float]] | None = None) -> int:
        level = "model" if parent < 0 else "ml" if leaf else "module"
        nodes.append(
            Node(scope, kind, level, parent, leaf[0] if leaf else None, 0, dict(leaf[1]) if leaf else {})
        )
        return len(nodes) - 1

    root = add("", model, -1)
    for i in range(layers):
        layer = add(f"layer.{i}", "Layer", root)
        mix = add(f"layer.{i}.mix", "Mix", layer)
        for name in ("q", "o"):
            add(f"layer.{i}.mix.{name}", "Linear", mix, linear(rows, hidden, hidden))
        add(f"layer.{i}.mix", "Softmax", mix, rowwise("Softmax", rows * 4, length))
        add(f"layer.{i}.mix", "Copy", mix, pointwise("Copy", rows * hidden))
        feed = add(f"layer.{i}.feed", "Feed", layer)
        add(f"layer.{i}.feed.up", "Linear", feed, linear(rows, 4 * hidden, hidden))
        add(f"layer.{i}.feed.act", "GELU", feed, pointwise("GELU", rows * 4 * hidden))
        add(f"layer.{i}.feed.down", "Linear", feed, linear(rows, hidden, 4 * hidden))
        add(f"layer.{i}.norm", "LayerNorm", layer, rowwise("LayerNorm", rows, hidden))
        add(f"layer.{i}", "Elementwise", layer, pointwise("Elementwise", rows * hidden, 2))
    summed = ("flops", "mem_bytes", "matmul_flops", "elementwise_flops", "kernels", "num_parameters",
              "read_bytes", "write_bytes", "weight_bytes")  # fmt: skip
    for index in range(len(nodes) - 1, 0, -1):
        above = nodes[nodes[index].parent].features
        for name in summed:
            above[name] = above.get(name, 0.0) + nodes[index].features.get(name, 0.0)
    return ModelTree(nodes, {"model": model, "batch_size": batch, "seq_len": length})


def truth(made: ModelTree, idle_w: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Energy and time of one run of every node, without noise: float64[n] each."""
    time = np.zeros(len(made.nodes))
    work = np.zeros(len(made.nodes))
    for index in range(len(made.nodes) - 1, -1, -1):
        node = made.nodes[index]
        if node.level == "ml":
            f = node.features
            time[index] = 8e-6 * f["kernels"] + 1e-5 * f["mem_bytes"] + 4e-8 * f["flops"] * 1e2
            work[index] = 2e-4 * f["mem_bytes"] + 8e-5 * f["flops"]
        if node.parent >= 0:
            time[node.parent] += time[index]
            work[node.parent] += work[index]
    return idle_w * time + work, time


def labelled(
    made: ModelTree, rng: np.random.Generator, noise: float, first: int, gpu: bool = True,
    hidden: tuple[str, ...] = (), idle_w: float = 60.0,
) -> LabelledTree:  # fmt: skip
    energy, time = truth(made, idle_w)
    keys: dict[tuple[object, ...], int] = {}
    measurement = np.array([
        keys.setdefault((n.type, *sorted(n.features.items())), len(keys)) for n in made.nodes
    ])  # fmt: skip
    wobble = np.exp(noise * rng.normal(size=len(keys)))
    resources = np.full((len(energy), len(RESOURCE_FEATURES)), np.nan)
    column = RESOURCE_FEATURES.index
    resources[:, column("latency")] = time * np.exp(0.2 * noise * rng.normal(size=len(keys)))[measurement]
    resources[:, column("cpu_util")] = 20.0 + rng.random(len(keys))[measurement]
    if gpu:
        resources[:, column("gpu_energy")] = (energy - idle_w * time) * wobble[measurement] + 1e-9
    label = energy * wobble[measurement]
    drop = np.array([n.primitive in hidden for n in made.nodes])
    label[drop], resources[drop] = np.nan, np.nan
    return LabelledTree(
        made, label, resources, np.where(drop, -1, first + measurement), np.full(len(label), np.nan)
    )


def dataset(
    models: dict[str, tuple[int, int]], sizes: list[tuple[int, int]], noise: float = 0.01, gpu: bool = True,
    hidden: tuple[str, ...] = (), seed: int = 0, label_source: str = "emonpi", idle_w: float = 60.0,
) -> Dataset:  # fmt: skip
    """``models``: name -> (layers, hidden size). ``sizes``: (batch, length)."""
    rng = np.random.default_rng(seed)
    trees = []
    for name, (layers, width) in models.items():
        for batch, length in sizes:
            made = tree(name, layers, width, batch, length)
            trees.append(labelled(made, rng, noise, 1000 * len(trees), gpu, hidden, idle_w))
    return Dataset("synthetic", "wall", "simulated", label_source, trees)
