"""Bottleneck tables (Tables 10 and 12)."""

from __future__ import annotations

import pytest

from irene_build.report.breakdown import bottlenecks, units
from tests.report.samples import bert_nodes, moe_nodes, prediction


@pytest.mark.parametrize("nodes", [bert_nodes(3), moe_nodes(6)], ids=["bert", "moe"])
def test_every_primitive_is_in_exactly_one_unit(nodes: list[dict[str, object]]) -> None:
    whole = prediction(nodes=nodes)
    inside = {index for _, _, index in units(whole)}

    def unit_of(index: int) -> int:
        found = []
        while index >= 0:
            found += [index] if index in inside else []
            index = whole["nodes"][index]["parent"]
        assert len(found) == 1
        return found[0]

    for node in whole["nodes"]:
        if node["level"] == "ml":
            unit_of(node["index"])


def test_units_of_bert_are_those_of_the_paper() -> None:
    rows = bottlenecks([prediction()])
    assert {r["module"] for r in rows if r["kind"] == "module"} == {
        "BertSelfAttention", "BertIntermediate", "BertOutput", "BertSelfOutput", "BertEmbeddings",
        "BertPooler",
    }  # fmt: skip
    assert [r["kind"] for r in rows].count("ml") == 0


def test_primitives_beside_modules_stand_for_themselves() -> None:
    """As LayerNorm and Embedding of GPT2 in Table 10b."""
    rows = {r["module"]: r for r in bottlenecks([prediction(nodes=moe_nodes())])}
    assert rows["RMSNorm"]["kind"] == "ml" and rows["RMSNorm"]["calls"] == 2 * 61 + 1
    assert rows["DeepseekV3Attention"]["calls"] == 61


def test_energies_are_averaged_over_sizes_before_shares_are_taken() -> None:
    small, large = prediction(batch_size=1), prediction(batch_size=31)
    rows = {r["module"]: r for r in bottlenecks([small, large])}
    both = [
        sum(p["nodes"][i]["energy_j"] for name, _, i in units(p) if name == "BertOutput")
        for p in (small, large)
    ]
    assert rows["BertOutput"]["energy_j"] == pytest.approx(sum(both) / 2)
    assert rows["BertOutput"]["share"] == pytest.approx(sum(both) / (small["energy_j"] + large["energy_j"]))
    assert rows["BertOutput"]["calls"] == 12


def test_the_last_row_closes_the_sum() -> None:
    whole = prediction()
    rows = bottlenecks([whole])
    assert rows[-1]["kind"] == "rest"
    assert sum(r["energy_j"] for r in rows) == pytest.approx(whole["energy_j"])
    assert sum(r["share"] for r in rows) == pytest.approx(1.0)
    assert [r["energy_j"] for r in rows[:-1]] == sorted((r["energy_j"] for r in rows[:-1]), reverse=True)


def test_measured_shares_are_there_where_every_label_is() -> None:
    sizes = [prediction(batch_size=b) for b in (1, 3)]
    labels: list[list[float | None]] = [[2.0 * n["energy_j"] for n in p["nodes"]] for p in sizes]
    gone = next(n["index"] for n in sizes[0]["nodes"] if n["type"] == "BertPooler")
    labels[0][gone] = None
    rows = {r["module"]: r for r in bottlenecks(sizes, labels)}
    assert rows["BertOutput"]["measured_share"] == pytest.approx(rows["BertOutput"]["share"])
    assert rows["BertPooler"]["measured_share"] is None
    assert all(r["measured_share"] is None for r in bottlenecks(sizes))
