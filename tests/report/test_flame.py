"""Predictions in speedscope's and Chrome's formats."""

from __future__ import annotations

import json

import pytest

from irene_build.report.flame import chrome_trace, speedscope
from irene_build.report.predictions import spans
from tests.report.samples import moe_nodes, prediction


@pytest.mark.parametrize("nodes", [None, moe_nodes()], ids=["bert", "moe"])
def test_speedscope_events_open_and_close_in_order(nodes: list[dict[str, object]] | None) -> None:
    whole = prediction(nodes=nodes)
    data = json.loads(json.dumps(speedscope(whole), allow_nan=False))
    assert data["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = data["shared"]["frames"]
    for profile in data["profiles"]:
        # What speedscope's importer demands of an evented profile.
        assert profile["type"] == "evented" and profile["unit"] == "none"
        stack, at = [], profile["startValue"]
        for event in profile["events"]:
            assert event["at"] >= at
            at = event["at"]
            assert 0 <= event["frame"] < len(frames)
            if event["type"] == "O":
                stack.append(event["frame"])
            else:
                assert stack.pop() == event["frame"]
        assert not stack
        assert profile["endValue"] >= at
        assert profile["endValue"] == pytest.approx(whole["energy_j"])
        assert len(profile["events"]) == 2 * len(whole["nodes"])


def test_speedscope_merges_layers_in_its_second_profile() -> None:
    data = speedscope(prediction())
    names = [data["shared"]["frames"][e["frame"]]["name"] for e in data["profiles"][1]["events"]]
    assert "encoder.layer.*:BertLayer" in names
    assert not any("layer.0" in name for name in names)


def test_speedscope_widths_are_joules() -> None:
    whole = prediction()
    where = spans([n["parent"] for n in whole["nodes"]], [n["energy_j"] for n in whole["nodes"]])
    profile = speedscope(whole)["profiles"][0]
    opened, widths = [], {}
    order = iter(range(len(whole["nodes"])))
    for event in profile["events"]:
        if event["type"] == "O":
            opened.append((next(order), event["at"]))
        else:
            index, at = opened.pop()
            widths[index] = event["at"] - at
    for index, (_, width) in enumerate(where):
        assert widths[index] == pytest.approx(width, abs=1e-9 * whole["energy_j"])


def test_chrome_trace_has_a_complete_event_a_node_with_its_exact_energy() -> None:
    whole = prediction(provenance="simulated")
    data = json.loads(json.dumps(chrome_trace(whole), allow_nan=False))
    events = [e for e in data["traceEvents"] if e["ph"] == "X"]
    assert [e["args"]["energy_j"] for e in events] == [n["energy_j"] for n in whole["nodes"]]
    assert events[0]["dur"] == pytest.approx(1e6 * whole["energy_j"])
    names = [e["args"]["name"] for e in data["traceEvents"] if e["ph"] == "M"]
    assert names[0].startswith("SIMULATED: bert-base-uncased 8 × 128")
    assert data["otherData"]["provenance"] == "simulated"
    for node, event in zip(whole["nodes"], events, strict=True):
        if node["parent"] >= 0:
            above = events[node["parent"]]
            assert event["ts"] >= above["ts"] - 1e-3
            assert event["ts"] + event["dur"] <= above["ts"] + above["dur"] + 1e-3
