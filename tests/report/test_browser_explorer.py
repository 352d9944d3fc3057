"""The explorer for people who look closer: links, search in folds, tables, intervals, two models, no script."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from irene_build.report import drawings, grid, html
from tests.report.samples import prediction
from tests.report.test_browser import Open, browser, visit

__all__ = ["browser", "visit"]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


def _found(tab: Any, words: str) -> str:
    tab.locator("[name=search]").fill(words)
    playwright.expect(tab.locator("[data-found]")).not_to_have_text("")
    return str(tab.locator("[data-found]").inner_text())


def test_enter_in_the_outline_keeps_the_focus_and_escape_zooms_out(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()))
    tab.locator("[role=treeitem]").first.focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.getAttribute('role')") == "treeitem"
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate("document.activeElement.node.parent.type") == "BertEmbeddings"
    tab.keyboard.press("Escape")
    assert tab.locator(".crumbs button").all_inner_texts() == ["BertModel"]
    assert tab.evaluate("document.activeElement.getAttribute('role')") == "treeitem"


def test_search_sees_into_folds_and_counts_only_what_matches(visit: Open) -> None:
    shown = prediction()
    tab = visit(html.render_prediction(shown))
    text = _found(tab, "layer.3 softmax")
    hit = next(n for n in shown["nodes"] if n["scope"] == "encoder.layer.3.attention.self.softmax")
    assert text.startswith("1 part matches, ")
    assert f"{100 * hit['share']:.1f} % of the model" in text
    assert text.endswith("(inside folded layers)")


def test_a_number_in_a_search_is_a_whole_number(visit: Open) -> None:
    from tests.report.samples import bert_nodes

    tab = visit(html.render_prediction(prediction(nodes=bert_nodes(40))))
    tab.locator("[name=fold]").uncheck()
    _found(tab, "layer.3")
    scopes = tab.evaluate("[...document.querySelectorAll('[role=treeitem]')].map((li) => li.node.scope)")
    layers = {scope.split(".")[2] for scope in scopes if scope.startswith("encoder.layer.")}
    assert layers == {"3"}


def test_what_a_search_finds_is_brought_into_view(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()))
    tab.locator(".icicle g.node", has_text="BertIntermediate").click()
    _found(tab, "BertSelfAttention")
    assert tab.locator(".crumbs button").all_inner_texts() == ["BertModel"]
    assert tab.locator(".icicle g.active text").text_content().startswith("BertSelfAttention")


def test_a_part_has_an_address_and_back_returns(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()))
    tab.locator(".icicle g.node", has_text="BertSelfAttention").click()
    address = tab.evaluate("location.href")
    assert "BertSelfAttention" in address
    tab.locator(".icicle g.node", has_text="query").click()
    tab.go_back()
    assert tab.locator(".crumbs button").last.inner_text() == "BertSelfAttention"
    tab.goto("about:blank")
    tab.goto(address)
    assert tab.locator(".crumbs button").last.inner_text() == "BertSelfAttention"
    assert tab.locator("[data-detail] h4").inner_text() == "BertSelfAttention"


def test_primitives_are_known_by_their_names(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()))
    texts = tab.locator(".icicle g.node text").all_text_contents()
    for name in ("query", "key", "value"):
        assert any(text.startswith(name) for text in texts), name


def test_the_table_sorts_and_saves_every_part(visit: Open) -> None:
    shown = prediction()
    tab = visit(html.render_prediction(shown))
    tab.locator("[name=fold]").uncheck()
    tab.locator("[data-flat] summary").click()
    shares = tab.locator("[data-flat] tbody tr td:nth-child(6)").all_inner_texts()
    numbers = [float(text.removesuffix(" %")) for text in shares]
    assert numbers == sorted(numbers, reverse=True)
    tab.locator("[data-flat] thead button", has_text="part").click()
    names = tab.locator("[data-flat] tbody tr td:first-child").all_inner_texts()
    assert names == sorted(names)
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save as CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    assert len(rows) == len(shown["nodes"])
    by_part = {row["part"]: float(row["total_j"]) for row in rows}
    assert by_part[":BertModel"] == pytest.approx(shown["energy_j"], rel=1e-4)


def test_why_a_number_is_what_it_is(visit: Open) -> None:
    shown = prediction()
    for node in shown["nodes"]:
        node["features"] = {"flops": 2.0, "mem_bytes": 3.0, "kernels": 1}
    tab = visit(html.render_prediction(shown))
    detail = tab.locator("[data-detail]").inner_text()
    assert "computes\n2.00 MFLOP" in detail
    assert "moves\n3.00 MiB in 1 kernel" in detail
    tab.locator("[name=grams]").fill("400")
    assert "g CO₂" in tab.locator("[data-detail]").inner_text()


@pytest.mark.parametrize(
    ("ends", "says"),
    [((0.9, 1.1), "± 10.0 %"), ((0.9, 1.5), "−10.0 %, +50.0 %"), ((0.2, 4.0), "÷ 5.0 to × 4.0")],
)
def test_skewed_intervals_are_said_as_they_are(visit: Open, ends: tuple[float, float], says: str) -> None:
    shown = prediction()
    energy = shown["energy_j"]
    interval = [ends[0] * energy, ends[1] * energy]
    shown["interval_j"] = shown["nodes"][0]["interval_j"] = interval
    tab = visit(html.render_prediction(shown))
    assert says in tab.locator("[data-detail]").inner_text()
    assert says in tab.locator(".headline").inner_text()


def test_the_worse_of_two_flags_is_shown_also_on_a_phone(visit: Open) -> None:
    shown = prediction()
    shown["nodes"][0]["flags"] = ["extrapolates", "uncalibrated"]
    tab = visit(html.render_prediction(shown), viewport={"width": 400, "height": 800})
    badge = tab.locator("[role=treeitem] .badge").first
    assert badge.inner_text() == "uncalibrated"
    box = badge.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 400


def test_flags_are_told_on_the_first_screen(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction(seq_len=512)))
    note = tab.locator("header .note")
    assert "24 of 213 parts lie outside what was calibrated" in note.inner_text()
    assert note.bounding_box()["y"] < 900


def test_two_models_stand_side_by_side(visit: Open) -> None:
    models = [prediction(name, batch_size=size) for name, size in (("a", 1), ("b", 4))]
    compared = grid.compare(models)
    tab = visit(html.render_compare(compared, models, drawings.of_compare(compared)))
    tab.locator(".second summary").click()
    playwright.expect(tab.locator("[data-explorer]")).to_have_count(2)
    names = tab.locator("[name=model]").evaluate_all(
        "all => all.map((s) => s.selectedOptions[0].textContent)"
    )
    assert sorted(names) == ["a", "b"]


def test_without_javascript_the_tree_is_a_still_picture(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()), java_script_enabled=False)
    assert tab.locator("noscript svg.still").is_visible()
    assert tab.locator("form").first.is_hidden()


def test_axe_finds_nothing(visit: Open) -> None:
    """No violation of axe-core's rules, in light and dark, wide and narrow."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-core is not installed"
    ).Axe()
    models = [prediction(name, batch_size=size) for name, size in (("a", 1), ("b", 4))]
    compared = grid.compare(models, {"a": 1.0, "b": 2.0})
    swept = grid.sweep([prediction(batch_size=b) for b in (1, 2)])
    pages = {
        "prediction": html.render_prediction(prediction(seq_len=512)),
        "compare": html.render_compare(compared, models, drawings.of_compare(compared)),
        "sweep": html.render_sweep(swept, [prediction()], drawings.of_sweep(swept)),
    }
    for name, page in pages.items():
        for scheme, width in (("light", 1280), ("dark", 400)):
            # axe-core is handed to the page by the driver, past the page's policy against scripts of others.
            tab = visit(page, color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
            for summary in tab.locator("[data-flat] summary").all():
                summary.click()
            found = axe.run(tab).response["violations"]
            assert [(one["id"], one["nodes"][0]["target"]) for one in found] == [], (name, scheme)


def test_heat_maps_follow_the_page_into_the_dark(visit: Open) -> None:
    swept = grid.sweep([prediction(batch_size=1), prediction(batch_size=8, seed=1)])
    page = html.render_sweep(swept, [prediction()], drawings.of_sweep(swept))
    script = "getComputedStyle(document.querySelector('figure path[style*=\"--h5\"]')).fill"
    light, dark = (visit(page, color_scheme=scheme).evaluate(script) for scheme in ("light", "dark"))
    assert (light, dark) == ("rgb(106, 37, 6)", "rgb(255, 208, 138)")
