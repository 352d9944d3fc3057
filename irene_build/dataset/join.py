"""Puts published rows onto traced trees, so that kernels that have no row of their own are known as well."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_runtime.tree import ModelTree, Node

#: (model, batch_size, seq_len) -> the analytic tree under eager attention.
Tracer = Callable[[str, int, int], ModelTree]
_LIST_NAME = re.compile(r"(?<![^.])(?!\d+\.)[^.]+\.(?=\d+(\.|$))")


@dataclass
class Joined:
    """One tree with its labels, and what did not find a partner: row names, nodes by primitive or type."""

    tree: LabelledTree
    rows_without_node: list[str] = field(default_factory=list)
    nodes_without_row: dict[str, int] = field(default_factory=dict)


def scope_key(scope: str) -> str:
    """A scope without the names above numbers: of ``encoder.layer.0.output`` the authors' JSONL says
    ``encoder.0.output``, their CSV all; ``0.output`` is what both have.
    """
    shorter = _LIST_NAME.sub("", scope)
    return scope if shorter == scope else scope_key(shorter)


def _keys(nodes: Iterable[Node]) -> Iterator[tuple[Any, ...]]:
    """Per node what it is found by: level, scope, primitive and its number among equal ones.

    Modules go by scope alone: their classes were renamed since (``Block`` is ``GPT2Block`` today).
    """
    counts: dict[tuple[Any, ...], int] = {}
    for node in nodes:
        if node.level == "model":
            yield ("model",)
            continue
        key = (node.level, scope_key(node.scope), node.primitive)
        number = counts.get(key, 0)
        counts[key] = number + 1
        yield (*key, number)


def join(published: LabelledTree, traced: ModelTree) -> Joined:
    """The traced tree with the published labels, resources and counts (flops_2021, mem_bytes_2021)."""
    size = len(traced.nodes)
    where = {key: index for index, key in enumerate(_keys(traced.nodes))}
    energy = np.full(size, np.nan)
    resources = np.full((size, published.resources.shape[1]), np.nan)
    measurement = np.full(size, -1, dtype=np.int64)
    nodes = [
        Node(n.scope, n.type, n.level, n.parent, n.primitive, n.call, dict(n.features), n.shapes)
        for n in traced.nodes
    ]
    out = Joined(
        LabelledTree(ModelTree(nodes, traced.header), energy, resources, measurement, np.full(size, np.nan))
    )
    for row, (key, node) in enumerate(zip(_keys(published.tree.nodes), published.tree.nodes, strict=True)):
        index = where.get(key)
        if index is None:
            out.rows_without_node.append(node.name)
            continue
        energy[index] = published.energy_j[row]
        resources[index] = published.resources[row]
        measurement[index] = published.measurement[row]
        nodes[index].features["flops_2021"] = node.features["flops"]
        nodes[index].features["mem_bytes_2021"] = node.features["mem_bytes"]
        if nodes[index].primitive == "Embedding":
            _as_looked_up(nodes[index].features)
    for index, node in enumerate(nodes):
        if measurement[index] < 0:
            kind = node.primitive or node.type
            out.nodes_without_row[kind] = out.nodes_without_row.get(kind, 0) + 1
    return out


def _as_looked_up(features: dict[str, float]) -> None:
    """Rows that the published lookup worked on, as its bytes say (8 an index, and the output).

    DistilBERT looked its positions up for every sequence of the batch in 2021, and does so once today.
    """
    rows, cols = features.get("rows", 0.0), features.get("cols", 0.0)
    if rows > 0.0 and cols > 0.0:
        size = features.get("bytes_per_element", 4.0)
        times = features["mem_bytes_2021"] * 2**20 / (8.0 + size * cols) / rows
        if abs(times - 1.0) > 0.01:
            for name in ("rows", "elements", "read_bytes", "write_bytes", "weight_bytes", "mem_bytes"):
                if name in features:
                    features[name] *= times


def join_all(
    hardware: str,
    published: list[LabelledTree],
    trace: Tracer,
    progress: Callable[[int, str], None] | None = None,
) -> tuple[Dataset, dict[str, Any]]:
    """The dataset of all trees, and a summary of the join.

    Wall energy of an emonPi, as the paper says; the resources are the authors' own samples.
    """
    trees: list[LabelledTree] = []
    lost: dict[str, int] = {}
    unlabelled: dict[str, int] = {}
    for number, tree in enumerate(published):
        if progress is not None:
            progress(number, tree.model)
        header = tree.tree.header
        joined = join(tree, trace(tree.model, header["batch_size"], header["seq_len"]))
        trees.append(joined.tree)
        for name in joined.rows_without_node:
            reason = f"{tree.model} {name.rpartition(':')[2]}"
            lost[reason] = lost.get(reason, 0) + 1
        for kind, count in joined.nodes_without_row.items():
            unlabelled[kind] = unlabelled.get(kind, 0) + count
    summary = {
        "trees": len(trees),
        "rows_joined": int(sum((tree.measurement >= 0).sum() for tree in trees)),
        "measurements": len(set(np.concatenate([tree.measurement for tree in trees])) - {-1}),
        "rows_without_node": lost,
        "nodes_without_row": unlabelled,
        "labels_of_other_shapes": int(sum(tree.of_another_shape.sum() for tree in trees)),
    }
    return Dataset(hardware, "wall", "measured", "emonpi", trees, {"source": "irene", **summary}), summary
