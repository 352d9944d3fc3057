"""Estimator files: equal inputs give equal bytes, and what is not one is refused with the key."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.errors import EstimatorError, InputError
from irene_build.train import api, estimator_file
from irene_runtime.equations import coordinates
from tests import synthetic


@pytest.fixture(scope="module")
def estimator() -> dict[str, Any]:
    return api.fit(synthetic.dataset(["tiny-bert", "tiny-gpt"]), "paper", tiers=("static",))


def test_files_come_back_as_they_were(estimator: dict[str, Any], tmp_path: Path) -> None:
    estimator_file.save(estimator, tmp_path / "deep" / "estimator.json")
    assert estimator_file.load(tmp_path / "deep" / "estimator.json") == estimator
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["estimator.json"]


def test_the_same_inputs_give_the_same_bytes(estimator: dict[str, Any]) -> None:
    again = api.fit(synthetic.dataset(["tiny-bert", "tiny-gpt"]), "paper", tiers=("static",))
    assert estimator_file.dumps(again) == estimator_file.dumps(estimator)
    assert estimator_file.dumps(dict(reversed(estimator.items()))) == estimator_file.dumps(estimator)


def test_the_header_says_where_it_comes_from(estimator: dict[str, Any]) -> None:
    dataset = synthetic.dataset(["tiny-bert", "tiny-gpt"])
    nodes = sum(len(t.energy_j) for t in dataset.trees)
    assert estimator["trained_on"] == {
        "models": ["tiny-bert", "tiny-gpt"], "trees": 6, "nodes": nodes, "distinct": nodes,
        "dtypes": ["float32"],
    }  # fmt: skip
    assert (estimator["hardware"], estimator["label_source"], estimator["attention"]) == (
        "lab",
        "emonpi",
        "eager",
    )
    simulated = api.fit(synthetic.dataset(["tiny-bert"], provenance="simulated"), "paper", tiers=("static",))
    assert simulated["provenance"] == "simulated"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: e.update(format="irene-tree"), "not an estimator"),
        (lambda e: e.update(version=99), "newer than 1"),
        (lambda e: e.update(version=True), "version is True"),
        (lambda e: e.pop("hardware"), "hardware is None"),
        (lambda e: e.update(provenance="guessed"), "provenance is 'guessed'"),
        (lambda e: e.update(features=["watts"]), "features must be a list of known names"),
        (lambda e: e.update(primitives=["Linear", "Linear"]), "primitives names one twice"),
        (lambda e: e.update(tiers={}), "tiers must be"),
        (lambda e: e["tiers"].update(best={}), "tiers must be"),
        (lambda e: e["tiers"]["static"].pop("leaf"), "leaf"),
        (
            lambda e: e["tiers"]["static"]["columns"][0].update(feature="watts"),
            "columns.0.: no feature 'watts'",
        ),
        (lambda e: e["tiers"]["static"]["aggregation"].update(tau=float("nan")), "aggregation.tau is nan"),
        (lambda e: e["tiers"]["static"]["aggregation"]["weights"].pop(), "weights"),
    ],
)
def test_what_is_not_an_estimator_is_refused(estimator: dict[str, Any], change: Any, says: str) -> None:
    broken = copy.deepcopy(estimator)
    change(broken)
    with pytest.raises(EstimatorError, match=says):
        estimator_file.validate(broken, "file")


def test_unreadable_files_are_named(tmp_path: Path, estimator: dict[str, Any]) -> None:
    path = tmp_path / "estimator.json"
    with pytest.raises(EstimatorError, match=r"cannot read .*estimator.json"):
        estimator_file.load(path)
    path.write_text(estimator_file.dumps(estimator)[:-100])
    with pytest.raises(EstimatorError, match=r"estimator.json is not an estimator file"):
        estimator_file.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EstimatorError, match="not an estimator file"):
        estimator_file.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, estimator: dict[str, Any]) -> None:
    path = tmp_path / "estimator.json"
    estimator_file.save(estimator, path)
    broken = copy.deepcopy(estimator)
    broken["tiers"]["static"]["aggregation"]["bias"] = float("inf")
    with pytest.raises(EstimatorError, match="bias"):
        estimator_file.save(broken, path)
    assert estimator_file.load(path) == estimator


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"method": "gut feeling"}, "unknown method"),
        ({"tiers": ("dream",)}, "tier dream"),
        ({"tiers": ()}, "tier"),
        ({"method": "best", "recipe": "authors"}, "belongs to --method paper"),
        ({"method": "paper", "recipe": "sgd"}, "recipe 'sgd'"),
    ],
)
def test_unknown_names_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        api.fit(synthetic.dataset(["tiny-bert"]), **arguments)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=8), s, max_size=3), max_leaves=6,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_damage_gives_anything_but_an_error_or_an_estimator(
    estimator: dict[str, Any], data: st.DataObject
) -> None:
    broken = copy.deepcopy(estimator)
    here: Any = broken
    while True:
        places = list(here) if isinstance(here, dict) else list(range(len(here)))
        place = data.draw(st.sampled_from(places))
        if not isinstance(here[place], (dict, list)) or not here[place] or data.draw(st.booleans()):
            here[place] = data.draw(_JSON)
            break
        here = here[place]
    try:
        estimator_file.validate(broken, "file")
    except EstimatorError:
        return
    json.dumps(broken)


def test_what_ships_is_short_and_without_defaults() -> None:
    term = {"name": "x", "columns": [0], "weight": 0.123456789012, "mean": 0.0, "scale": 1.0}
    leaf = {"terms": [term, {**term, "mean": 2.0 / 3.0}], "floor": None, "correction": None}
    tier = {
        "leaf": {"Linear": leaf},
        "aggregation": None,
        "ranges": {"Linear": {"flops": [1.0 / 3.0, 2.0 / 3.0]}},
    }
    found = estimator_file.compact({"evaluation": {}, "tiers": {"static": tier}})["tiers"]["static"]
    assert found["leaf"]["Linear"] == {
        "terms": [
            {"name": "x", "columns": [0], "weight": 0.12345679},
            {"name": "x", "columns": [0], "weight": 0.12345679, "mean": 0.66666667},
        ]
    }
    assert found["aggregation"] is None
    assert found["ranges"] == {"Linear": {"flops": [0.333333, 0.666667]}}


def test_what_ships_is_what_is_read_again() -> None:
    estimator = api.fit(synthetic.dataset(["tiny-bert", "tiny-gpt"]), "paper", tiers=("static",))
    assert estimator_file.compact(estimator) == estimator == json.loads(estimator_file.dumps(estimator))


def test_centers_are_looked_up_on_a_grid() -> None:
    """The same coordinates, in fewer bytes; columns of more than 36 values have lists in place of digits."""
    centers = [[float(i % 3), 0.5 * i] for i in range(40)]
    correction = {"columns": [0, 1], "kernel": "rbf", "centers": centers, "weights": [0.1] * 40}
    correction.update(bias=0.0, scale=[1.0, 1.0])
    found = estimator_file.compact({"tiers": {"static": {"correction": {"module": correction}}}})["tiers"][
        "static"
    ]
    short = found["correction"]["module"]
    assert short["grid"] == [[0.0, 1.0, 2.0], [0.5 * i for i in range(40)]]
    assert short["centers"] == ["012" * 13 + "0", list(range(40))]
    assert "scale" not in short and "bias" not in short
    assert coordinates(short) == coordinates(correction) == [list(row) for row in zip(*centers, strict=True)]
    assert estimator_file.compact({"tiers": {"static": found}})["tiers"]["static"] == found
