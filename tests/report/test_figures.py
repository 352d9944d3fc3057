"""Every figure as PNG, as SVG and inlined."""

from __future__ import annotations

import re
import struct
import warnings
import xml.etree.ElementTree as ET

import pytest

from irene_build.report import drawings, figures, grid
from irene_build.report.figures import Figure
from tests.report.samples import prediction


def every_figure(simulated: bool) -> list[Figure]:
    """One of each kind."""
    provenance = "simulated" if simulated else "measured"
    cells = grid.sweep(
        [prediction(batch_size=b, seq_len=s, provenance=provenance) for b in (1, 2) for s in (128, 512)]
    )
    names = {"a": 70.0, "b": 80.0, "c": 75.0}
    models = [prediction(m, batch_size=k + 1, provenance=provenance) for k, m in enumerate(names)]
    measured, predicted = [0.1, 1.0, 10.0], [0.11, 0.9, 10.5]
    return [
        *drawings.of_sweep(cells),
        *drawings.of_compare(grid.compare(models, names)),
        figures.error_cdf({"static": [1.0, 2.0, 0.5], "live": [0.1, 0.2]}, "model", simulated),
        figures.predicted_against_measured(
            {"ml": (measured, predicted), "model": ([], [])}, "static", simulated
        ),
        figures.coverage({"static": {"ml": 91.0, "model": 88.5}}, 90.0, simulated),
        figures.tree(models[0], simulated),
    ]


@pytest.fixture(scope="module")
def drawn() -> list[Figure]:
    return every_figure(simulated=False)


def test_png_files_are_pictures_of_a_useful_size(drawn: list[Figure]) -> None:
    for figure in drawn:
        data = figure.png()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert width >= 600 and height >= 200, figure.name


def test_svg_files_parse_and_keep_their_text(drawn: list[Figure]) -> None:
    for figure in drawn:
        root = ET.fromstring(figure.svg())
        text = " ".join(root.itertext())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert re.search(r"energy|error|measured|token|share|batch|interval", text), figure.name


def test_inlined_figures_take_the_page_s_colours_and_have_a_name(drawn: list[Figure]) -> None:
    ids: list[str] = []
    for figure in drawn:
        text = figure.inline()
        root = ET.fromstring(text)
        assert not any(colour in text for colour in figures.PALETTE), figure.name
        assert "var(--ink)" in text
        label = root.attrib["aria-labelledby"].split()
        named = {e.attrib.get("id"): e.text for e in root.iter() if e.attrib.get("id") in label}
        assert named[label[0]] == figure.title and named[label[1]] == figure.description
        ids += re.findall(r'\bid="([^"]+)"', text)
        references = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
        assert set(references) <= set(ids)
    assert len(ids) == len(set(ids))


def test_absurd_shares_and_errors_are_drawn_without_complaint() -> None:
    """A tree whose parts are predicted at fifty times the root, and errors over nine decades."""
    rows = [{"module": name, "kind": "module", "share": share} for name, share in (("A", 50.0), ("B", 9.0))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bars = figures.bottleneck_bars({"a": rows, "b": rows}, simulated=False)
        errors = figures.error_cdf({"static": [1e-3, 1.0, 1e6]}, "ml", simulated=False)
        assert bars.png() and errors.png()


def test_points_of_the_trade_off_say_what_they_are(drawn: list[Figure]) -> None:
    text = next(f for f in drawn if f.name == "energy-accuracy").inline()
    assert "<title>a: " in text and "accuracy 70</title>" in text


def test_simulated_is_written_across_each_figure(drawn: list[Figure]) -> None:
    for figure in every_figure(simulated=True):
        assert "SIMULATED" in figure.svg(), figure.name
    assert not any("SIMULATED" in figure.svg() for figure in drawn)


def test_the_same_numbers_give_the_same_bytes(drawn: list[Figure]) -> None:
    again = every_figure(simulated=False)
    assert [f.svg() for f in again] == [f.svg() for f in drawn]
    assert [f.png() for f in again] == [f.png() for f in drawn]


def test_heat_map_marks_cells_that_extrapolate(drawn: list[Figure]) -> None:
    text = next(f for f in drawn if f.name == "energy-per-token").inline()
    assert len(re.findall(r"; extrapolates</title>", text)) == 2
    assert "J*" in re.sub(r"<title>.*?</title>", "", text)


def test_a_heat_map_leaves_sizes_out_that_were_not_predicted() -> None:
    swept = grid.sweep([prediction(batch_size=1, seq_len=64), prediction(batch_size=8, seq_len=128)])
    (per_token, _) = drawings.of_sweep(swept)
    assert len(re.findall(r"<title>batch \d+, \d+ tokens: ", per_token.inline())) == 2
