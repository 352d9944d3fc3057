"""A prediction as table, JSON, CSV, OpenMetrics and explanation; provenance is visible in each."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from irene_runtime.errors import InputError, TreeError
from irene_runtime.model import Estimator
from irene_runtime.prediction import Prediction, joules, printable
from irene_runtime.tree import ModelTree, Node
from tests.runtime.examples import estimator, tree

NAMES = st.text(max_size=12) | st.sampled_from(
    ['"', "\\", "\n", "=cmd()", "\x1b[2J", "é", "a,b", "\\n", "{x}"]
)


def predict(model_tree: ModelTree | None = None, **changes: Any) -> Prediction:
    return Estimator(estimator(**changes)).predict(model_tree or tree())


@pytest.mark.parametrize(
    ("key", "index"),
    [
        ("", 0),
        ("Net", 0),
        (0, 0),
        ("block", 1),
        ("block:Block", 1),
        ("block:softmax", 3),
        ("block.fc", 2),
        ("block.fc:Linear", 2),
        (4, 4),
    ],
)
def test_nodes_are_found_by_index_scope_and_type(key: int | str, index: int) -> None:
    assert predict()[key].index == index


def test_later_calls_have_a_number() -> None:
    nodes = [*tree().nodes, Node("head", "Linear", "ml", 0, "Linear", 1, {"flops": 1.0, "mem_bytes": 1.0})]
    p = predict(ModelTree(nodes, tree().header))
    assert p["head:Linear"].index == 4 and p["head:Linear#1"].index == 5


@pytest.mark.parametrize("key", ["block.fcc", 5, -1, "x" * 10_000])
def test_an_unknown_node_is_a_key_error_and_ours(key: int | str) -> None:
    with pytest.raises(KeyError) as caught:
        predict()[key]
    assert isinstance(caught.value, TreeError) and not str(caught.value).startswith("'")


def test_an_unknown_scope_names_near_ones() -> None:
    with pytest.raises(InputError, match=r"no node 'block\.fcc' in net; near: block\.fc"):
        predict()["block.fcc"]


def test_units() -> None:
    p = predict()
    assert p.energy_wh == 15.0 / 3600.0
    assert p.co2_g(360.0) == pytest.approx(15.0 / 3.6e6 * 360.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345.6, "12.35 kJ"),
        (12.3456, "12.35 J"),
        (0.8120, "812.0 mJ"),
        (3.2e-6, "3.200 uJ"),
        (0.0, "0.000 uJ"),
        (-0.5, "-500.0 mJ"),
        (999.99, "1000.0 J"),
    ],
)
def test_joules(value: float, text: str) -> None:
    assert joules(value) == text


def test_json_follows_its_format() -> None:
    out = json.loads(predict().to_json())
    assert out["format"] == "irene-prediction" and out["version"] == 1
    assert out["energy_j"] == 15.0 and out["coverage"] == 0.9 and out["tier"] == "static"
    assert re.fullmatch("[0-9a-f]{64}", out["digest"])
    assert set(out["nodes"][2]) == {
        "index", "scope", "type", "call", "level", "parent", "primitive", "energy_j", "interval_j", "share",
        "alpha", "tier", "flags",
    }  # fmt: skip
    assert out["nodes"][2]["share"] == 4.0 / 15.0
    assert [node["parent"] for node in out["nodes"]] == [-1, 0, 1, 1, 0]


def test_csv_reads_back_exactly() -> None:
    p = predict()
    rows = list(csv.DictReader(io.StringIO(p.to_csv())))
    assert [float(row["energy_j"]) for row in rows] == [n.energy_j for n in p]
    assert [float(row["high_j"]) for row in rows] == [n.interval_j[1] for n in p]
    assert rows[0]["provenance"] == "measured"


def test_no_name_steers_who_reads_csv_or_openmetrics() -> None:
    """Nor does half a surrogate pair, which no encoding has, end in an error."""
    model_tree = tree(model="m\ud800\x1b[2J")
    model_tree.nodes[4].scope = "a\x1b]0;b\x07\udc00"
    p = predict(model_tree)
    for text in (p.to_csv(), p.to_openmetrics(), p.to_json(), p._repr_html_(), p.table(), p.explain(4)):
        assert "\x1b" not in text and "\x07" not in text and text.encode("utf-8")


def test_a_notebook_shows_the_tree_collapsible() -> None:
    model_tree = tree(model="<b>")
    model_tree.nodes[4].scope = "<i>&"
    html = predict(model_tree)._repr_html_()
    assert html.count("<details") == html.count("</details>") == 2 and html.count(" open>") == 2
    assert "&lt;i&gt;&amp;" in html and "<i>" not in html and "&lt;b&gt;, batch 8" in html


def test_a_frame_has_one_row_a_node() -> None:
    pandas = pytest.importorskip("pandas")
    frame = predict().to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame["energy_j"]) == [15.0, 12.0, 4.0, 8.0, 3.0]
    assert frame.loc[2, "low_j"] == predict()[2].interval_j[0] and frame.loc[2, "scope"] == "block.fc"


def test_without_a_terminal_or_any_stdout_there_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert "15.00 J a run" in predict().table()


def test_csv_starts_no_formula() -> None:
    model_tree = tree()
    model_tree.nodes[4].scope = "=HYPERLINK(1)"
    assert list(csv.DictReader(io.StringIO(predict(model_tree).to_csv())))[4]["scope"] == "'=HYPERLINK(1)"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scope=NAMES, kind=NAMES, model=NAMES)
def test_openmetrics_is_what_the_official_parser_reads(scope: str, kind: str, model: str) -> None:
    model_tree = tree(model=model)
    model_tree.nodes[4].scope, model_tree.nodes[4].type = scope, kind
    p = predict(model_tree)
    families = {f.name: f for f in text_string_to_metric_families(p.to_openmetrics())}
    assert set(families) == {"irene_energy_joules", "irene_energy_low_joules", "irene_energy_high_joules"}
    family = families["irene_energy_joules"]
    assert family.type == "gauge" and family.unit == "joules"
    assert [s.value for s in family.samples] == [n.energy_j for n in p]
    labels = family.samples[4].labels
    seen = [printable(name, "\n") for name in (scope, kind, model)]
    assert [labels["scope"], labels["type"], labels["model"]] == seen
    assert labels["provenance"] == "measured" and labels["boundary"] == "wall"


def test_the_table_fits_and_shows_shares() -> None:
    text = predict().table(width=80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.endswith("  fc:Linear"))
    assert "4.000 J" in row and "26.7%" in row and "10.0 %" in row
    assert "\x1b" not in text


def test_equal_neighbours_are_shown_once_with_their_number() -> None:
    nodes = tree().nodes
    for number in range(3):
        block = len(nodes)
        nodes.append(Node(f"b.{number}", "B", "module", 0, features={"flops": 1.0, "mem_bytes": 1.0}))
        for name in ("x", "y"):
            features = {"flops": 2.0 + (number == 2 and name == "y"), "mem_bytes": 1.0}
            nodes.append(Node(f"b.{number}.{name}", "Linear", "ml", block, "Linear", features=features))
    lines = predict(ModelTree(nodes, tree().header)).table().splitlines()
    names = [line.split()[-1] if " x " not in line else line.split("  ")[-1].strip() for line in lines[5:]]
    assert names == ["Net", "block:Block", "fc:Linear", "softmax", "head:Linear", "b.0:B x 2", "x:Linear x 2",
                     "b.2:B", "x:Linear", "y:Linear"]  # fmt: skip


def test_depth_and_colour_of_the_table() -> None:
    p = predict()
    assert "fc:Linear" not in p.table(depth=1) and "head" in p.table(depth=1)
    assert "\x1b[32m" in p.table(color=True)
    assert re.sub("\x1b\\[[0-9]+m", "", p.table(color=True)) == p.table(color=False)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scope=NAMES, width=st.integers(80, 200))
def test_no_name_steers_the_terminal_or_breaks_the_width(scope: str, width: int) -> None:
    model_tree = tree(model=scope)
    model_tree.nodes[4].scope = scope * 9
    p = predict(model_tree)
    for text in (p.table(width=width), p.explain(4)):
        assert all(c.isprintable() or c == "\n" for c in text)
    assert max(map(len, p.table(width=width).splitlines())) <= width


def test_simulated_energy_is_named_in_every_output() -> None:
    p = predict(provenance="simulated")
    assert p.table().startswith("SIMULATED")
    assert p.explain().startswith("SIMULATED")
    assert p.to_dict()["provenance"] == "simulated" and "simulated" in p.to_dict()["flags"]
    assert all(row["provenance"] == "simulated" for row in csv.DictReader(io.StringIO(p.to_csv())))
    metrics = p.to_openmetrics()
    assert (
        'provenance="simulated"' in metrics
        and "# HELP irene_energy_joules Predicted SIMULATED energy" in metrics
    )


def test_marks_are_explained_below_the_table() -> None:
    model_tree = tree()
    model_tree.nodes[4].features["flops"] = 1e4
    model_tree.nodes[3].primitive = "TopK"
    text = predict(model_tree).table()
    assert "! outside what was calibrated" in text and "? primitive never calibrated" in text
    assert "outside" not in predict().table()


def test_flags_of_nodes_that_are_not_shown_are_counted_all_the_same() -> None:
    model_tree = tree()
    model_tree.nodes[3].primitive = "TopK"
    for depth in (0, 1, 3):
        assert "? primitive never calibrated, fallback used (1 of 5 nodes)" in predict(model_tree).table(
            depth
        )


def test_notes_are_wrapped_not_cut() -> None:
    p = predict()
    p.notes.append("why " * 40 + "the end")
    lines = p.table(width=60).splitlines()
    assert max(map(len, lines)) <= 60 and "the end" in " ".join(" ".join(lines).split())


def test_a_prediction_says_what_it_is() -> None:
    assert repr(predict()) == "<Prediction of net: 15.00 J, tier static>"


def test_co2_stands_in_the_heading_where_a_factor_is_given() -> None:
    assert "0.0015 g CO2" in predict().table(g_per_kwh=360.0)


def test_explain_a_leaf_by_its_terms() -> None:
    text = predict().explain("block.fc")
    for part in ("1.000 J  launch", "2.000 J  flops", "1.000 J  bytes", "= 4.000 J", "terms of Linear"):
        assert part in text
    assert re.search(
        r"4\.000 J x  1\.00000  block\.fc:Linear\n +12\.00 J x  1\.00000  block:Block\n +15\.00 J +Net", text
    )


def test_explain_a_module_by_its_children() -> None:
    text = predict().explain("block")
    assert (
        "1.00000 x      4.000 J  block.fc:Linear" in text and "1.00000 x      8.000 J  block:softmax" in text
    )


def test_explain_names_readings_rescaling_and_fallback() -> None:
    est = Estimator(estimator())
    model_tree = tree()
    model_tree.nodes[4].primitive = "TopK"
    live = est.predict(model_tree, {"latency": 0.02, "gpu_energy": 5.0})
    assert "terms of fallback" in live.explain("head") and "to the power 0.5" in live.explain("head")
    assert "own reading, pooled with weight 1" in live.explain() and "10.00 J  gpu" in live.explain()


def test_explanations_add_up() -> None:
    """What is printed for a leaf is the arithmetic that was done, corrections included."""
    data = estimator()
    data["tiers"]["static"]["leaf"]["Linear"]["correction"] = {
        "columns": [0],
        "mean": [0.0],
        "scale": [1.0],
        "kernel": "poly",
        "degree": 1,
        "weights": [0.1],
        "bias": 0.0,
        "limit": 0.7,
    }
    p = Estimator(data).predict(tree())
    assert f"= {joules(p['block.fc'].energy_j)}" in p.explain("block.fc")
    assert "correction" in p.explain("block.fc")
