"""The pages as text: self-contained, safe, small, accessible in their markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from irene_build.errors import InputError
from irene_build.report import drawings, grid, html
from irene_build.report.payload import forest
from tests.report.samples import moe_nodes, prediction

#: Bytes that a page may have beside its data block.
LIMIT = 2_000_000


class Outline(HTMLParser):
    """Elements with their attributes, and the text of headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def pages() -> dict[str, str]:
    """One page of each kind that needs no calibrated PC."""
    models = [prediction(name, batch_size=k + 1) for k, name in enumerate(("a", "b", "c"))]
    compared = grid.compare(models, {"a": 1.0, "b": 2.0, "c": 1.5})
    cells = [prediction(batch_size=b, seq_len=s) for b in (1, 2) for s in (128, 512)]
    swept = grid.sweep(cells)
    return {
        "prediction": html.render_prediction(prediction(seq_len=512)),
        "simulated": html.render_prediction(prediction(provenance="simulated")),
        "large": html.render_prediction(prediction("deepseek", moe_nodes())),
        "compare": html.render_compare(compared, models, drawings.of_compare(compared)),
        "sweep": html.render_sweep(swept, cells, drawings.of_sweep(swept)),
    }


@pytest.fixture(scope="module")
def made(report: tuple[Path, str, str]) -> dict[str, str]:
    return {**pages(), "report": (report[0] / "index.html").read_text(encoding="utf-8")}


def _without_data(page: str) -> str:
    return re.sub(r'(<script type="application/json"[^>]*>).*?</script>', r"\1</script>", page, flags=re.S)


def test_nothing_is_loaded_from_anywhere(made: dict[str, str]) -> None:
    for name, page in made.items():
        outline = Outline(page)
        for tag, attributes in outline.elements:
            for key in ("src", "href", "xlink:href", "data", "action", "poster"):
                target = attributes.get(key) or ""
                assert target == "" or target.startswith(("#", "data:")), (
                    f"{name}: <{tag} {key}={target[:60]!r}>"
                )
        assert not re.search(
            r"url\((?!#|&quot;#|'#|\"#)|@import|fetch\(|XMLHttpRequest|import\(", _without_data(page)
        ), name
        policies = [
            a["content"] for a in outline.of("meta") if a.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policies and "default-src 'none'" in (policies[0] or "")


def test_pages_are_small(made: dict[str, str]) -> None:
    for name, page in made.items():
        assert len(_without_data(page).encode()) < LIMIT, name


def test_names_from_a_model_cannot_leave_their_place() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    nodes = moe_nodes(4)
    nodes[3].update(type=evil, scope=evil)
    bad = prediction(evil, nodes, hardware=evil, notes=[evil])
    compared = grid.compare([bad, prediction("b")], {evil: 1.0, "b": 2.0})
    for page in (
        html.render_prediction(bad),
        html.render_compare(compared, [bad], drawings.of_compare(compared)),
    ):
        outline = Outline(page)
        assert not outline.of("img")
        assert all("onerror" not in attributes for _, attributes in outline.elements)
        assert len(outline.of("script")) == 2
        block = re.search(r'<script type="application/json" id="irene-trees">(.*?)</script>', page, re.S)
        assert block is not None
        types = json.loads(block[1])["models"][0]["shapes"][0]["type"]
        assert types[3] == evil


def test_landmarks_headings_and_labels(made: dict[str, str]) -> None:
    for name, page in made.items():
        outline = Outline(page)
        assert outline.of("html")[0]["lang"] == "en"
        assert len(outline.of("h1")) == 1 and len(outline.of("main")) == 1, name
        levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch(r"h[1-6]", tag)]
        assert all(b - a <= 1 for a, b in pairwise(levels)), (name, levels)
        for section in outline.of("section"):
            assert any(a.get("id") == section["aria-labelledby"] for _, a in outline.elements)
        for table in re.findall(r"<table.*?</table>", page, re.S):
            assert "<caption>" in table and 'scope="col"' in table
        for chart in outline.of("svg"):
            assert chart.get("aria-label") or chart.get("aria-labelledby"), name
        ids = [a["id"] for _, a in outline.elements if a.get("id")]
        assert len(ids) == len(set(ids)), name


def test_simulated_is_written_across_the_page_and_only_then(made: dict[str, str]) -> None:
    for name, page in made.items():
        banner = 'class="sim-across"' in page and 'class="sim-banner"' in page and "<title>SIMULATED" in page
        assert banner == (name == "simulated")


def test_each_page_says_which_command_prints_its_numbers(made: dict[str, str]) -> None:
    for name, command in (
        (
            "prediction",
            "irene-build predict OUT bert-base-uncased --batch 8 --seq 512 --dtype float32 "
            "--attention eager --tier static --json",
        ),
        ("compare", "irene-build compare OUT MODEL ... --json"),
        ("sweep", "irene-build sweep OUT bert-base-uncased --json"),
        ("report", "irene-build report --hardware bench --json"),
        ("report", "irene-build evaluate --hardware bench --json"),
    ):
        assert f"<code>{command}</code>" in made[name]


def test_the_data_block_is_the_payload(made: dict[str, str]) -> None:
    block = re.search(r'id="irene-trees">(.*?)</script>', made["prediction"], re.S)
    assert block is not None
    assert json.loads(block[1]) == forest([prediction(seq_len=512)])


def test_only_predictions_are_drawn() -> None:
    with pytest.raises(InputError, match="not a prediction"):
        html.render_prediction({"format": "irene-tree"})


@pytest.mark.parametrize(
    ("value", "text"),
    [(12.34, "12.3 J"), (0.8123, "812 mJ"), (1234.0, "1.23 kJ"), (5e-7, "0.500 µJ"), (0.0, "0.00 µJ"),
     (None, "–"), (123.0, "123 J")],
)  # fmt: skip
def test_joules_have_three_digits_and_a_unit(value: float | None, text: str) -> None:
    assert html.joules(value) == text
