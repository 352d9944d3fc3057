"""The pages in headless Chromium: they open, zoom, search, collapse, switch and print, without an error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from irene_build.report import drawings, grid, html
from tests.report.samples import moe_nodes, prediction

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: no browser tests"
)

_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def _chromium() -> str | None:
    named = os.environ.get("IRENE_CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = _chromium()
    if path is None:
        pytest.skip(
            "no chromium here (apt-get install chromium, or IRENE_CHROMIUM): browser tests are skipped"
        )
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, headless=True, args=_FLAGS)
        yield running
        running.close()


Open = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page (text or file) from disk; fails the test on any console error, exception or request."""
    contexts: list[Any] = []
    troubles: list[str] = []

    def go(page: str | Path, **options: Any) -> Any:
        path = page if isinstance(page, Path) else tmp_path / "page.html"
        if isinstance(page, str):
            path.write_text(page, encoding="utf-8")
        options.setdefault("viewport", {"width": 1280, "height": 900})
        options.setdefault("reduced_motion", "reduce")
        context = browser.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        url = path.resolve().as_uri()

        def console(message: Any) -> None:
            if message.type in ("error", "warning"):
                troubles.append(f"console {message.type}: {message.text}")

        def request(sent: Any) -> None:
            if sent.url != url and not sent.url.startswith("data:"):
                troubles.append(f"request: {sent.url}")

        tab.on("console", console)
        tab.on("pageerror", lambda error: troubles.append(f"exception: {error}"))
        tab.on("request", request)
        tab.goto(url)
        return tab

    yield go
    for context in contexts:
        context.close()
    assert troubles == []


def _boxes(tab: Any) -> list[str]:
    """Texts of the boxes that are drawn."""
    return [t for t in tab.locator(".icicle g.node text").all_text_contents() if t]


def _names(rows: Any) -> list[str]:
    """Accessible names of outline items: type, last part of the scope, energy and share."""
    return rows.evaluate_all(
        "all => all.map(li => [...document.getElementById(li.getAttribute('aria-labelledby')).children]"
        ".filter(part => !part.ariaHidden).map(part => part.textContent).filter(Boolean).join(', '))"
    )


def test_a_prediction_opens_with_its_tree_and_numbers(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()))
    assert any(t.startswith("BertLayer ×12") for t in _boxes(tab))
    assert _names(tab.locator("[role=treeitem]"))[0].startswith("BertModel, 9")
    assert tab.locator("[data-detail] .big").inner_text() == tab.locator(".headline b").first.inner_text()


def test_widths_are_joules(visit: Open) -> None:
    shown = prediction(batch_size=4)
    tab = visit(html.render_prediction(shown))
    tab.locator("[name=fold]").uncheck()
    script = "all => all.map(g => [g.node.ids[0], +g.face.getAttribute('width')])"
    sizes = tab.locator(".icicle g.node").evaluate_all(script)
    whole = dict(map(tuple, sizes))[0]
    assert whole == pytest.approx(tab.locator(".icicle").evaluate("e => e.clientWidth"), abs=1)
    assert len(sizes) > 100
    from irene_build.report.predictions import spans

    where = spans([n["parent"] for n in shown["nodes"]], [n["energy_j"] for n in shown["nodes"]])
    for index, pixels in sizes:
        assert pixels == pytest.approx(whole * where[index][1] / where[0][1], abs=0.75)


def test_zooming_with_the_mouse_the_crumbs_and_the_button(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()))
    attention = tab.locator(".icicle g.node", has_text="BertSelfAttention")
    narrow = attention.evaluate("g => +g.face.getAttribute('width')")
    attention.click()
    wide = attention.evaluate("g => +g.face.getAttribute('width')")
    assert wide > 1.5 * narrow
    assert wide == pytest.approx(tab.locator(".icicle").evaluate("e => e.clientWidth"), abs=1)
    crumbs = tab.locator(".crumbs button").all_inner_texts()
    assert crumbs == ["BertModel", "BertEncoder", "BertLayer ×12", "BertAttention", "BertSelfAttention"]
    assert not any(t.startswith("BertPooler") for t in _boxes(tab))
    tab.locator(".crumbs button").nth(2).click()
    assert len(tab.locator(".crumbs button").all()) == 3
    tab.get_by_role("button", name="Zoom out").click()
    assert tab.locator(".crumbs button").all_inner_texts() == ["BertModel"]
    assert tab.get_by_role("button", name="Zoom out").is_disabled()


def test_the_icicle_by_keyboard(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()))
    tab.locator(".icicle").focus()
    for key in ("ArrowDown", "ArrowRight", "Enter"):
        tab.keyboard.press(key)
    assert tab.locator(".crumbs button").all_inner_texts() == ["BertModel", "BertEncoder"]
    assert tab.locator("[data-live]").inner_text().startswith("BertEncoder, ")
    tab.keyboard.press("Escape")
    assert tab.locator(".crumbs button").all_inner_texts() == ["BertModel"]


def test_the_outline_by_keyboard_opens_folds_and_zooms(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()))
    rows = tab.locator("[role=treeitem]")
    before = rows.count()
    assert tab.locator('[role=treeitem][tabindex="0"]').count() == 1
    rows.first.focus()
    tab.keyboard.press("ArrowLeft")
    assert rows.count() == 1 and rows.first.get_attribute("aria-expanded") == "false"
    tab.keyboard.press("ArrowRight")
    assert rows.count() == before
    tab.keyboard.press("ArrowDown")
    assert _names(tab.locator("[role=treeitem]:focus"))[0].startswith("BertEmbeddings")
    tab.keyboard.press("Enter")
    assert tab.locator(".crumbs button").all_inner_texts() == ["BertModel", "BertEmbeddings"]
    assert _names(tab.locator("[aria-selected=true]"))[0].startswith("BertEmbeddings")


def test_expanding_and_collapsing_all(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction()))
    tab.locator("[name=fold]").uncheck()
    tab.get_by_role("button", name="Expand all").click()
    assert tab.locator("[role=treeitem]").count() == len(prediction()["nodes"])
    tab.get_by_role("button", name="Collapse").click()
    assert tab.locator("[role=treeitem]").count() == 4
    assert tab.locator("[role=treeitem] [role=treeitem]").count() == 3


def test_search_finds_dims_the_rest_and_adds_up(visit: Open) -> None:
    shown = prediction()
    tab = visit(html.render_prediction(shown))
    tab.locator("[name=fold]").uncheck()
    tab.keyboard.press("/")
    tab.keyboard.type("softmax layer.3")
    playwright.expect(tab.locator("[data-found]")).to_contain_text("of the model")
    hit = next(n for n in shown["nodes"] if n["scope"] == "encoder.layer.3.attention.self.softmax")
    expected = f"{100 * hit['share']:.1f} % of the model"
    assert tab.locator("[data-found]").inner_text().startswith("1 part matches, ")
    assert tab.locator("[data-found]").inner_text().endswith(expected)
    assert tab.locator("[data-detail] h4").inner_text().startswith("Softmax")
    assert tab.locator(".icicle g.node:not(.miss)").count() == 1
    assert [name.split()[0].strip(",") for name in _names(tab.locator("[role=treeitem]"))] == [
        "BertModel", "BertEncoder", "BertLayer", "BertAttention", "BertSelfAttention", "Softmax",
    ]  # fmt: skip
    tab.locator("[name=search]").fill("nothing like it")
    playwright.expect(tab.locator("[data-found]")).to_have_text("No part matches")
    assert tab.locator(".icicle g.miss").count() == 0


def test_selectors_switch_model_size_tier_and_colour(visit: Open, report: tuple[Path, str, str]) -> None:
    import json

    data = json.loads((report[0] / "trees.json").read_text())
    tab = visit(report[0] / "index.html")
    big = tab.locator("[data-detail] .big")

    def shows(joules: float) -> None:
        text = big.inner_text()
        value, unit = text.split()
        assert float(value) * {"J": 1.0, "mJ": 1e-3, "µJ": 1e-6}[unit] == pytest.approx(joules, rel=6e-3)

    for k, model in enumerate(data["models"]):
        tab.locator("[name=model]").select_option(str(k))
        for j, _ in enumerate(model["sizes"]):
            tab.locator("[name=size]").select_option(str(j))
            for tier, views in model["tiers"].items():
                tab.locator("[name=tier]").select_option(tier)
                shows(views[j]["e"][0])
    tab.locator("[name=tier]").select_option("static")
    fills = {}
    for colour in ("share", "energy", "uncertainty", "error"):
        tab.locator("[name=colour]").select_option(colour)
        shown = tab.locator(".icicle rect.face").evaluate_all("all => all.map(r => r.getAttribute('fill'))")
        fills[colour] = tuple(shown)
        assert tab.locator(".legend").inner_text().strip()
    assert len(set(fills.values())) == 4
    assert "measured" in tab.locator("[data-detail]").inner_text()


def test_nodes_without_a_label_show_a_dash(visit: Open, report: tuple[Path, str, str]) -> None:
    tab = visit(report[0] / "index.html")
    tab.locator("[name=tier]").select_option("measured")
    tab.get_by_role("button", name="Expand all").click()
    assert sum(name.endswith("– · –") for name in _names(tab.locator("[role=treeitem]"))) == 1


def test_two_thousand_nodes_draw_only_what_can_be_seen(visit: Open) -> None:
    nodes = moe_nodes(75)
    assert len(nodes) >= 2000
    tab = visit(html.render_prediction(prediction("deepseek-v3", nodes)))
    tab.locator("[name=fold]").uncheck()
    assert tab.locator(".icicle g.node").count() < 1300
    tab.locator(".icicle g.node").nth(3).click()
    assert tab.locator(".icicle g.node").count() < 60
    tab.get_by_role("button", name="Expand all").click()
    assert tab.locator("[role=treeitem]").count() == len(nodes)


def test_flagged_parts_are_hatched_and_named(visit: Open) -> None:
    tab = visit(html.render_prediction(prediction(seq_len=512)))
    assert tab.locator('.icicle rect[fill="url(#hatch)"]').count() >= 1
    assert "outside what was calibrated" in tab.locator(".legend").inner_text()


def test_dark_and_light_differ_and_text_stands_out(visit: Open) -> None:
    contrast = """() => {
      const lum = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(Number)
        .map((x) => ((x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const hex = (h) => h.startsWith('#') ? [1, 3, 5].map((i) => parseInt(h.slice(i, i + 2), 16)).join() : h;
      const out = [...document.querySelectorAll('.icicle g.node')].filter((g) => g.text.textContent)
        .map((g) => ratio(lum(g.face.getAttribute('fill')), lum(hex(g.text.getAttribute('fill')))));
      const style = getComputedStyle(document.documentElement);
      const named = (name) => lum(hex(style.getPropertyValue(name).trim()));
      const pairs = [["--ink", "--bg"], ["--muted", "--panel"], ["--c1", "--bg"], ["--warn-ink", "--warn-bg"]
      ];
      for (const [ink, paper] of pairs) out.push(ratio(named(ink), named(paper)));
      return out;
    }"""
    page = html.render_prediction(prediction())
    backgrounds = set()
    for scheme in ("light", "dark"):
        tab = visit(page, color_scheme=scheme)
        backgrounds.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        for colour in ("share", "energy", "uncertainty"):
            tab.locator("[name=colour]").select_option(colour)
            assert min(tab.evaluate(contrast)) >= 4.5, (scheme, colour)
    assert len(backgrounds) == 2


def test_a_phone_shows_all_without_scrolling_sideways(visit: Open, report: tuple[Path, str, str]) -> None:
    models = [prediction(f"bert_uncased_L-{k}_H-128_A-2", batch_size=k) for k in (2, 4, 6)]
    compared = grid.compare(models, {m["model"]: float(k) for k, m in enumerate(models)})
    swept = grid.sweep([prediction(batch_size=b) for b in (1, 2)])
    for page in (
        report[0] / "index.html",
        html.render_prediction(prediction(provenance="simulated")),
        html.render_compare(compared, models, drawings.of_compare(compared)),
        html.render_sweep(swept, [prediction()], drawings.of_sweep(swept)),
    ):
        tab = visit(page, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        row = tab.locator(".icicle g.node rect.face").first.bounding_box()
        assert row["height"] >= 30


def test_printing_gives_pages_in_light_colours(visit: Open, report: tuple[Path, str, str]) -> None:
    tab = visit(report[0] / "index.html", color_scheme="dark")
    pdf = tab.pdf(format="A4", print_background=True)
    assert pdf[:5] == b"%PDF-" and len(pdf) > 20_000
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.locator(".controls").first.is_hidden()
    assert tab.locator("table").first.is_visible()


def test_choosing_a_model_in_the_comparison(visit: Open) -> None:
    models = [prediction(name, batch_size=size) for name, size in (("a", 1), ("b", 4), ("c", 16))]
    compared = grid.compare(models, {"a": 70.0, "b": 80.0, "c": 90.0})
    energy = {row["model"]: row["energy_j"] for row in compared["totals"]}
    tab = visit(html.render_compare(compared, models, drawings.of_compare(compared)))
    answer = tab.locator("[data-choice-answer]")
    tab.locator("[name=budget]").fill(str(energy["b"] * 1.01))
    assert ": b, " in answer.inner_text()
    assert tab.locator("tr.best").get_attribute("data-model") == "b"
    assert tab.locator("tr.over").count() == 1
    tab.locator("[name=accuracy]").fill("85")
    assert [line.split(": ")[1][0] for line in answer.inner_text().splitlines()] == ["b", "c"]
    tab.locator("[name=budget]").fill("")
    tab.locator("[name=accuracy]").fill("99")
    assert answer.inner_text().endswith("or more: none")


def test_without_javascript_the_tables_are_there(visit: Open, report: tuple[Path, str, str]) -> None:
    tab = visit(report[0] / "index.html", java_script_enabled=False)
    assert tab.locator("table.bottlenecks").first.is_visible()
    assert tab.locator("noscript svg").first.is_visible()
