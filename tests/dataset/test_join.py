"""Published rows find their node in the traced tree; what has no partner is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irene_build.dataset.irene import read
from irene_build.dataset.join import join, join_all, scope_key
from irene_build.dataset.table import LabelledTree
from irene_build.dataset.view import has_published_counts, view
from irene_build.errors import DatasetError
from irene_runtime.tree import ModelTree, Node
from tests import synthetic
from tests.published import small_tree, write_csv, write_jsonl


def traced(model: str = "distilgpt2", batch_size: int = 2, seq_len: int = 8) -> ModelTree:
    """Today's names of the same architecture, with a module's own operations as leaves."""
    source = small_tree(model, batch_size, seq_len)
    nodes: list[Node] = []
    new: dict[int, int] = {}
    for index, node in enumerate(source.nodes):
        kind = {"Block": "GPT2Block", "Attention": "GPT2Attention"}.get(node.type, node.type)
        parent = new[node.parent] if node.parent >= 0 else -1
        features = {"flops": node.features["flops"] + 1.0, "mem_bytes": 1.0, "num_parameters": 5.0}
        new[index] = len(nodes)
        nodes.append(Node(node.scope, kind, node.level, parent, node.primitive, node.call, features))
        if kind == "GPT2Attention":
            own = Node(node.scope, "Copy", "ml", new[index], "Copy", 0, {"mem_bytes": 2.0})
            nodes.append(own)
    header = {"model": model, "batch_size": batch_size, "seq_len": seq_len, "attention": "eager"}
    return ModelTree(nodes, header)


@pytest.fixture
def published(tmp_path: Path) -> LabelledTree:
    return read(write_csv(tmp_path / "c", [small_tree()])).trees[0]


def test_every_row_finds_its_node(published: LabelledTree) -> None:
    joined = join(published, traced())
    assert joined.rows_without_node == []
    assert joined.nodes_without_row == {"Copy": 2}
    tree = joined.tree
    assert sorted(tree.energy_j[np.isfinite(tree.energy_j)]) == sorted(published.energy_j)
    for node, energy in zip(tree.tree.nodes, tree.energy_j, strict=True):
        assert np.isnan(energy) == (node.primitive == "Copy") == ("flops_2021" not in node.features)
        if node.primitive != "Copy":
            assert node.features["flops"] == node.features["flops_2021"] + 1.0


def test_the_jsonl_without_list_names_finds_the_same_nodes(tmp_path: Path) -> None:
    tree = read(write_jsonl(tmp_path / "d.jsonl", [small_tree()])).trees[0]
    assert join(tree, traced()).rows_without_node == []


def test_rows_of_nothing_are_reported(published: LabelledTree) -> None:
    today = traced()
    for node in today.nodes:
        node.scope = node.scope.replace("c_attn", "qkv")
    dataset, summary = join_all("pc", [published], lambda model, batch, length: today)
    assert summary["rows_without_node"] == {"distilgpt2 Conv1D": 2}
    assert summary["rows_joined"] == len(published.energy_j) - 2
    assert (dataset.boundary, dataset.provenance, dataset.label_source) == ("wall", "measured", "emonpi")


@pytest.mark.parametrize("times", [1, 2])
def test_a_lookup_counts_the_rows_that_its_published_bytes_say(published: LabelledTree, times: int) -> None:
    """Position embeddings were looked up once a sequence in 2021 (``times``), and are once a batch today."""
    rows, cols = 8.0, 32.0
    index, leaf = next((i, n) for i, n in enumerate(published.tree.nodes) if n.primitive == "Embedding")
    leaf.features["mem_bytes"] = times * rows * (8.0 + 4.0 * cols) / 2**20
    today = traced()
    moved = rows * (8.0 + 4.0 * cols) / 2**20
    today_leaf = next(n for n in today.nodes if n.primitive == "Embedding" and n.scope == leaf.scope)
    today_leaf.features.update(
        rows=rows, cols=cols, elements=rows * cols, mem_bytes=moved, read_bytes=0.5 * moved, kernels=1.0
    )
    joined = join(published, today)
    found = next(n for n in joined.tree.tree.nodes if n.primitive == "Embedding" and n.scope == leaf.scope)
    expected = {"rows": rows, "elements": rows * cols, "mem_bytes": moved, "read_bytes": 0.5 * moved}
    for name, value in expected.items():
        assert found.features[name] == pytest.approx(times * value)
    assert (found.features["cols"], found.features["kernels"]) == (cols, 1.0)
    assert today_leaf.features["rows"] == rows, "the traced tree itself stays as it was"
    assert joined.tree.energy_j[joined.tree.tree.nodes.index(found)] == published.energy_j[index]


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        ("encoder.layer.0.attention.self", "encoder.0.attention.self"),
        ("h.10.attn", "10.attn"),
        ("transformer.layer.0", "transformer.0"),
        ("wte", "wte"),
        ("", ""),
    ],
)
def test_scope_keys_agree_on_both_forms(scope: str, key: str) -> None:
    assert scope_key(scope) == scope_key(key)


def test_scope_keys_tell_blocks_and_modules_apart() -> None:
    scopes = ["h.0", "h.1", "h.11", "h.0.attn", "h.0.mlp", "h", "wte"]
    assert len({scope_key(scope) for scope in scopes}) == len(scopes)


def test_views_hold_the_published_nodes(published: LabelledTree) -> None:
    dataset, _ = join_all("pc", [published], lambda *size: traced())
    assert has_published_counts(dataset)
    shown = view(dataset, "published").trees[0]
    today = {"Block": "GPT2Block", "Attention": "GPT2Attention"}

    def content(labelled: LabelledTree) -> dict[str, tuple[float, ...]]:
        nodes = labelled.tree.nodes
        out: dict[str, tuple[float, ...]] = {}
        for n, energy in zip(nodes, labelled.energy_j, strict=True):
            above = nodes[n.parent].scope if n.parent >= 0 else None
            name = f"{n.scope}:{today.get(n.type, n.type)}#{n.call} below {above}"
            out[name] = (n.features["flops"], n.features["mem_bytes"], float(energy))
        return out

    assert content(shown) == content(published)
    assert shown.tree.header["cost_model"] == "irene2021"


def test_summed_counts_are_those_of_the_leaves(published: LabelledTree) -> None:
    dataset, _ = join_all("pc", [published], lambda *size: traced())
    shown = view(dataset, "irene2021").trees[0].tree
    for index, node in enumerate(shown.nodes):
        below = [n.features["flops"] for n in shown.nodes if n.parent == index]
        if below:
            assert node.features["flops"] == pytest.approx(sum(below), rel=1e-12)


def test_campaigns_have_no_published_counts() -> None:
    dataset = synthetic.dataset(["tiny-bert"])
    assert not has_published_counts(dataset)
    with pytest.raises(DatasetError, match="import irene"):
        view(dataset, "published")
    with pytest.raises(DatasetError, match="unknown counts"):
        view(dataset, "analytic")
