"""The paper's tables: the printed numbers stand beside ours, and only on the PC that they are of."""

from __future__ import annotations

from irene_build.evaluate import published, tables
from irene_build.evaluate.text import tables_text
from tests import synthetic


def test_the_printed_numbers_are_consistent_with_themselves() -> None:
    """Averages over nodes: 28 (27) trees of 75, 20, 75, 36, 18, 36 modules."""
    nodes = (28 * 75, 28 * 20, 28 * 75, 27 * 36, 28 * 18, 27 * 36)
    *models, average = published.TABLE_6["pc1"]
    assert round(sum(n * e for n, e in zip(nodes, models, strict=True)) / sum(nodes), 2) == average
    assert published.TABLE_8["IrEne"][1:] == published.TABLE_9["IrEne (End2End)"][1:]
    assert published.TABLE_7["pc1"][-1] == published.TABLE_8["IrEne"][0]


def test_another_pc_has_no_printed_numbers() -> None:
    result = tables.compute(synthetic.dataset(["tiny-bert", "tiny-gpt"]))
    for number in (5, 6, 7, 8, 9):
        for cells in result[f"table_{number}"].values():
            assert all(paper is None for _, paper in cells)
    assert result["notes"] == [] and result["figure_3_paper"] == []
    text = tables_text(result)
    assert "Table 9" in text and "Why numbers differ" not in text


def test_pc1_has_the_printed_numbers_and_an_explanation_of_each_difference() -> None:
    dataset = synthetic.dataset(["tiny-bert", "tiny-gpt"])
    dataset.hardware = "pc1"
    result = tables.compute(dataset)
    assert [paper for _, paper in result["table_8"]["w/o model features"]] == [0.63, 8.87, 7.32]
    assert [paper for _, paper in result["table_5"]["IrEne"]][-1] == 5.5
    text = tables_text(result)
    assert "(16.4)" in text and "Why numbers differ" in text and "99 % under 16" in text


def test_the_cdf_ends_at_all_predictions() -> None:
    result = tables.compute(synthetic.dataset(["tiny-bert", "tiny-gpt"]))
    curve = result["figure_3"]
    assert curve["share_percent"][-1] == 100.0 and curve["error_percent"] == sorted(curve["error_percent"])
