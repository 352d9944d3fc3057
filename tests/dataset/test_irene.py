"""The published dataset in both of its forms, and what breaks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.dataset.irene import read
from irene_build.errors import DatasetError
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import from_json
from tests.published import rows, small_tree, values, write_csv, write_jsonl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "device", [small_tree(), small_tree(batch_size=4), small_tree("gpt2")])


def edit(path: Path, change: Any) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(lines)))


def test_rows_become_trees(folder: Path) -> None:
    published = read(folder)
    assert [(t.model, t.tree.header["batch_size"]) for t in published.trees] == [
        ("gpt2", 2), ("distilgpt2", 2), ("distilgpt2", 4),
    ]  # fmt: skip
    tree = published.trees[1]
    expected = small_tree()
    assert {(n.scope, n.type, n.call) for n in tree.tree.nodes[1:]} == {
        (n.scope, n.type, n.call) for n in expected.nodes[1:]
    }
    by_name = {node.name: node for node in tree.tree.nodes}
    for node in tree.tree.nodes[1:]:
        parent = tree.tree.nodes[node.parent]
        wanted = next(n for n in expected.nodes if n.name == node.name)
        assert parent.scope == expected.nodes[wanted.parent].scope
    assert by_name["h.1.attn:Softmax"].primitive == "Softmax"
    from_json(tree.tree.to_json())
    assert published.dropped == {}


def test_numbers_go_where_they_belong(folder: Path) -> None:
    tree = read(folder).trees[1]
    index = next(i for i, n in enumerate(tree.tree.nodes) if n.name == "h.0.attn.c_attn:Conv1D")
    node = tree.tree.nodes[index]
    expected = values(small_tree(), node)
    assert tree.energy_j[index] == expected["energy_mean"]
    assert node.features == {"flops": expected["flops"], "mem_bytes": expected["mem_bytes"]}
    resources = dict(zip(RESOURCE_FEATURES, tree.resources[index], strict=True))
    assert resources["latency"] == expected["times_mean"]
    assert resources["gpu_energy"] == expected["gpu_energy_mean"]
    assert resources["gm_clk"] == 3802.0


def test_copies_share_a_measurement_within_a_configuration_only(folder: Path) -> None:
    trees = read(folder).trees
    first = [trees[1].measurement[i] for i, n in enumerate(trees[1].tree.nodes) if n.type == "MatMul"]
    assert len(set(first)) == 1
    assert not set(trees[0].measurement) & set(trees[1].measurement)


def test_jsonl_gives_the_same_labels(tmp_path: Path) -> None:
    sources = [small_tree(), small_tree("gpt2")]
    by_csv = read(write_csv(tmp_path / "c", sources)).trees
    by_json = read(write_jsonl(tmp_path / "d.jsonl", sources)).trees
    for one, other in zip(by_csv, by_json, strict=True):
        assert one.model == other.model
        assert sorted(one.energy_j) == sorted(other.energy_j)
        assert sorted(n.primitive or "" for n in one.tree.nodes) == sorted(
            n.primitive or "" for n in other.tree.nodes
        )
        assert other.tree.nodes[0].features["num_parameters"] == 7.0


def test_other_models_and_orphans_are_dropped_and_counted(tmp_path: Path) -> None:
    orphan = small_tree(batch_size=4)
    orphan.nodes = orphan.nodes[:0]
    folder = write_csv(tmp_path, [small_tree(), small_tree("sshleifer/tiny-ctrl")])
    extra = rows([small_tree(batch_size=4)])["ml2_level_features"]
    with (folder / "ml2_level_features.csv").open("a") as file:
        file.writelines(",".join(str(v) for v in row.values()) + "\n" for row in extra)
    published = read(folder)
    assert len(published.trees) == 1
    assert published.dropped == {
        "rows of sshleifer/tiny-ctrl, which is not one of the paper's six models": len(small_tree().nodes),
        "rows of distilgpt2 4x8, which has no row for the whole model": 6,
    }


def test_repeated_rows_are_dropped_and_contradictions_refused(folder: Path) -> None:
    path = folder / "ml1_level_features.csv"
    edit(path, lambda lines: [*lines, lines[1]])
    assert read(folder).dropped == {"repeated rows of ml1_level_features.csv": 1}
    edit(path, lambda lines: [*lines, lines[1].replace("8.5", "9.5")])
    with pytest.raises(DatasetError, match=r"ml1_level_features.csv, line \d+: a second, different row"):
        read(folder)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("ml1", lambda ls: [ls[0].replace("flops", "flop"), *ls[1:]], "line 1: column 'flops'"),
        ("ml2", lambda ls: [*ls[:2], ls[2].replace("3802.0", "fast"), *ls[3:]], "line 3: gpu_mem_clk"),
        ("module", lambda ls: [*ls[:-1], ls[-1][:20]], "cells where the header has 15"),
        ("module", lambda ls: [*ls[:-1], ls[-1][:-4]], "the file ends inside a row"),
        ("model", lambda ls: ls[:1], "header without rows"),
        ("ml1", lambda ls: [*ls[:1], ls[1].replace(":", "."), *ls[2:]], "line 2: level_name"),
        ("ml1", lambda ls: [*ls[:1], ls[1].replace("2.0,8.0", "2.5,8.0"), *ls[2:]], "whole number"),
    ],
)
def test_broken_files_say_where(folder: Path, name: str, change: Any, says: str) -> None:
    name += "_level_features.csv"
    edit(folder / name, change)
    with pytest.raises(DatasetError, match=says) as caught:
        read(folder)
    assert name in str(caught.value)


def test_a_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "ml2_level_features.csv").unlink()
    with pytest.raises(DatasetError, match=r"lacks ml2_level_features\.csv"):
        read(folder)
    with pytest.raises(DatasetError, match="no such file"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("frontend_tree"), "no frontend_tree"),
        (lambda d: d.update(model_name=3), "model_name"),
        (lambda d: d.update(batch_size=0), "batch_size"),
        (lambda d: d["frontend_tree"].update(ground_truth_energy=None), "ground_truth_energy"),
        (lambda d: d["frontend_tree"].update(ground_truth_energy=0), "ground_truth_energy"),
        (lambda d: d["frontend_tree"].update(flops=1e400), "flops"),
        (lambda d: d["frontend_tree"].update(flops=10**400), "flops"),
        (lambda d: d["frontend_tree"].update(type="module"), "type is 'module'"),
        (lambda d: d["frontend_tree"].update(child_nodes_obj=None), "child_nodes_obj"),
        (lambda d: d["frontend_tree"]["child_nodes_obj"].append(5), "expected an object"),
    ],
)
def test_broken_jsonl_says_where(tmp_path: Path, change: Any, says: str) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [small_tree(), small_tree("gpt2")])
    first, second = path.read_text().splitlines()
    data = json.loads(second)
    change(data)
    path.write_text(first + "\n" + json.dumps(data) + "\n")
    with pytest.raises(DatasetError, match=says) as caught:
        read(path)
    assert "d.jsonl, line 2" in str(caught.value)


def test_truncated_jsonl(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [small_tree()])
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DatasetError, match="line 1: not JSON, or cut off"):
        read(path)


@given(data=st.data())
def test_no_json_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    leaves = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
    keys = st.sampled_from(["scope", "instance_type", "type", "child_nodes_obj", "flops", "mem_bytes", "cpu"])
    values_ = st.recursive(
        leaves, lambda s: st.lists(s, max_size=3) | st.dictionaries(keys, s, max_size=7), max_leaves=9
    )
    node = data.draw(st.dictionaries(keys, values_, max_size=7))
    line = {"model_name": "gpt2", "batch_size": data.draw(leaves), "seq_len": 8, "frontend_tree": node}
    path = tmp_path_factory.mktemp("fuzz") / "f.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(DatasetError):
        read(path)


def test_the_published_files(irene_dataset: Path) -> None:
    """data.md: 166 trees, 24,597 nodes, 2,440 measurements."""
    published = read(irene_dataset)
    nodes = [
        (n.level, int(m)) for t in published.trees for n, m in zip(t.tree.nodes, t.measurement, strict=True)
    ]
    assert (len(published.trees), len(nodes)) == (166, 24597)
    distinct = {level: len({m for at, m in nodes if at == level}) for level in ("ml", "module", "model")}
    assert distinct == {"ml": 1384, "module": 890, "model": 166}
    assert sorted(published.dropped.values()) == [36, 891]
    bert = next(t for t in published.trees if t.model == "bert-base-uncased")
    levels = [n.level for n in bert.tree.nodes]
    assert (levels.count("ml"), levels.count("module"), max(bert.tree.depths) + 1) == (138, 75, 6)
    assert all(np.isfinite(t.energy_j).all() and np.isfinite(t.resources).all() for t in published.trees)


def test_readings_of_zero_are_unknown_and_copies_stay_copies(folder: Path) -> None:
    before = read(folder)
    for name in ("ml2_level_features.csv", "model_level_features.csv"):
        lines = (folder / name).read_text().splitlines()
        columns = lines[0].split(",")
        cells = [line.split(",") for line in lines[1:]]
        for row in cells:
            row[columns.index("gpu_energy_mean")] = "0.0"
            row[columns.index("gpu_mem")] = "0.0"
        (folder / name).write_text("\n".join([lines[0], *map(",".join, cells)]) + "\n")
    after = read(folder)
    unknown = 0
    energy, usage = (RESOURCE_FEATURES.index(name) for name in ("gpu_energy", "gm_usg"))
    for one, other in zip(before.trees, after.trees, strict=True):
        gone = np.isnan(other.resources[:, energy])
        kinds = {n.type for n, lost in zip(other.tree.nodes[1:], gone[1:], strict=True) if lost}
        assert gone[0] and kinds == {"MatMul", "Softmax"}
        assert (other.resources[gone, usage] == 0.0).all()
        assert len(np.unique(one.measurement)) == len(np.unique(other.measurement))
        unknown += int(gone.sum())
    assert after.dropped == {"readings of 0 (times_mean, gpu_energy_mean): unknown": unknown}
