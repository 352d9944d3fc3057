"""The explorer's data block."""

from __future__ import annotations

import pytest

from irene_build.report.payload import five_digits, forest
from tests.report.samples import bert_nodes, prediction


def test_five_significant_digits() -> None:
    assert five_digits(1.23456789e-7) == 1.2346e-7
    assert five_digits(None) is None
    assert five_digits(float("nan")) is None


def test_trees_of_one_model_share_their_shape_and_keep_their_numbers() -> None:
    given = [prediction(batch_size=b, tier=t) for b in (16, 8) for t in ("static", "live")]
    model = forest(given)["models"][0]
    assert len(model["shapes"]) == 1
    assert [s["label"] for s in model["sizes"]] == ["8 × 128", "16 × 128", "mean of 2 sizes"]
    assert list(model["tiers"]) == ["live", "static"]
    for size, batch in enumerate((8, 16)):
        view = model["tiers"]["static"][size]
        source = next(p for p in given if p["batch_size"] == batch and p["tier"] == "static")
        assert view["e"] == [pytest.approx(n["energy_j"], rel=5e-5) for n in source["nodes"]]
        assert view["lo"] == [pytest.approx(n["interval_j"][0], rel=5e-5) for n in source["nodes"]]
        assert view["hi"] == [pytest.approx(n["interval_j"][1], rel=5e-5) for n in source["nodes"]]
    mean = model["tiers"]["live"][2]["e"][0]
    assert mean == pytest.approx(sum(p["energy_j"] for p in given if p["tier"] == "live") / 2, rel=1e-4)


def test_shapes_that_differ_are_kept_apart_and_not_averaged() -> None:
    given = [prediction("m", bert_nodes(2), batch_size=1), prediction("m", bert_nodes(3), batch_size=2)]
    model = forest(given)["models"][0]
    assert len(model["shapes"]) == 2
    assert [s.get("mean_of") for s in model["sizes"]] == [None, None]


def test_unknown_labels_are_null_never_zero() -> None:
    one, two = prediction(), prediction(batch_size=16)
    labels = [[n["energy_j"] for n in p["nodes"]] for p in (one, two)]
    labels[0][5] = None  # type: ignore[call-overload]
    model = forest([one, two], labels)["models"][0]
    measured = model["tiers"]["measured"]
    assert measured[0]["e"][5] is None and measured[1]["e"][5] is not None
    assert measured[2]["e"][5] is None
    assert measured[0]["lo"] is None


def test_flags_are_kept_except_the_one_that_the_whole_page_says() -> None:
    simulated = prediction(seq_len=512, provenance="simulated")
    for node in simulated["nodes"]:
        node["flags"] = [*node["flags"], "simulated"]
    flags = forest([simulated])["models"][0]["tiers"]["static"][0]["flags"]
    flagged = [str(n["index"]) for n in simulated["nodes"] if n["primitive"] in ("Softmax", "MatMul")]
    assert flags == {index: ["extrapolates"] for index in flagged}
