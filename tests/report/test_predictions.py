"""Predictions as data: checking files, laying nodes out on the joule axis, folding repeated layers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.errors import InputError
from irene_build.report.predictions import check, folded, is_simulated, load, node_name, size_label, spans
from tests.report.samples import bert_nodes, moe_nodes, prediction


def test_a_prediction_passes_and_is_returned_as_it_is() -> None:
    given_ = prediction()
    assert check(given_) is given_


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.update(format="irene-tree"), "not a prediction"),
        (lambda p: p.update(version=2), "newer than 1: update irene-build"),
        (lambda p: p.update(version="1"), "expected a whole number"),
        (lambda p: p.pop("tier"), "lacks 'tier'"),
        (lambda p: p.update(nodes=[]), "not empty"),
        (lambda p: p["nodes"][7].pop("scope"), "node 7 lacks 'scope'"),
        (lambda p: p["nodes"][7].update(energy_j=float("nan")), "node 7 has energy_j nan"),
        (lambda p: p["nodes"][7].update(energy_j="3"), "node 7 has energy_j '3'"),
        (lambda p: p["nodes"][7].update(interval_j=[1.0]), "node 7 has interval_j"),
        (lambda p: p["nodes"][7].update(parent=9), "node 7 has parent 9"),
        (lambda p: p["nodes"][0].update(parent=0), "node 0 has parent 0"),
        (lambda p: p["nodes"].__setitem__(3, "x"), "node 3 is str"),
    ],
)
def test_what_is_wrong_is_named(change: Any, words: str) -> None:
    broken = copy.deepcopy(prediction())
    change(broken)
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        check(broken, "file.json")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        load(tmp_path / "absent.json")
    (tmp_path / "torn.json").write_text(json.dumps(prediction())[:-40])
    with pytest.raises(InputError, match=r"torn\.json: not JSON"):
        load(tmp_path / "torn.json")
    (tmp_path / "whole.json").write_text(json.dumps(prediction()))
    assert load(tmp_path / "whole.json") == prediction()


def test_sizes_and_names_read_well() -> None:
    assert size_label(prediction(batch_size=8, seq_len=32)) == "8 × 32"
    assert (
        size_label(prediction(batch_size=1, seq_len=1, phase="decode", past_len=512))
        == "1 × 1 decode after 512"
    )
    assert node_name({"scope": "a.b", "type": "Linear", "call": 2}) == "a.b:Linear#2"
    assert node_name({"scope": "", "type": "BertModel"}) == "BertModel"
    assert is_simulated(prediction(provenance="simulated")) and not is_simulated(prediction())


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[int], list[float]]:
    """Random trees in pre-order with any finite energies, negative ones among them."""
    parents, path = [-1], [0]
    for index in range(1, draw(st.integers(1, 40))):
        del path[draw(st.integers(1, len(path))) :]
        parents.append(path[-1])
        path.append(index)
    energies = draw(st.lists(st.floats(-5, 1e6), min_size=len(parents), max_size=len(parents)))
    return parents, energies


@given(trees())
def test_spans_nest_and_never_overlap(tree: tuple[list[int], list[float]]) -> None:
    parents, energies = tree
    where = spans(parents, energies)
    slack = 1e-9 * max(1.0, where[0][1])
    for index, parent in enumerate(parents):
        start, width = where[index]
        assert width >= 0
        assert width <= max(0.0, energies[index]) + slack
        if parent >= 0:
            assert start >= where[parent][0] - slack
            assert start + width <= where[parent][0] + where[parent][1] + slack
            before = [k for k in range(index) if parents[k] == parent]
            if before:
                assert start >= sum(where[before[-1]]) - slack


def test_children_that_fit_are_as_wide_as_their_joules_and_others_shrink_alike() -> None:
    assert spans([-1, 0, 0], [10.0, 4.0, 3.0]) == [(0.0, 10.0), (0.0, 4.0), (4.0, 3.0)]
    assert spans([-1, 0, 0], [10.0, 15.0, 5.0]) == [(0.0, 10.0), (0.0, 7.5), (7.5, 2.5)]


def test_folding_keeps_every_joule_and_shortens_the_tree() -> None:
    nodes = prediction(nodes=bert_nodes(12))["nodes"]
    short = folded(nodes)
    layers = [n for n in short if n["type"].startswith("BertLayer")]
    assert [n["type"] for n in layers] == ["BertLayer ×12"]
    for kind in ("BertSelfAttention", "BertOutput", "Softmax", "Embedding"):
        whole = sum(n["energy_j"] for n in nodes if n["type"] == kind)
        assert sum(n["energy_j"] for n in short if n["type"] == kind) == pytest.approx(whole, rel=1e-12)
    assert all(n["parent"] < n["index"] == k for k, n in enumerate(short))
    # 3 dense layers, then 58 with experts: two runs.
    moe = folded(prediction(nodes=moe_nodes())["nodes"])
    assert [n["type"] for n in moe if "×" in n["type"] and n["parent"] == 0] == [
        "DeepseekV3DecoderLayer ×3",
        "DeepseekV3DecoderLayer ×58",
    ]
