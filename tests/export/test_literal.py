"""Constants as literals: exact to the last bit and type, and tables wherever they are shorter."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from irene_build.export.literal import estimator_literal, pack
from irene_runtime.packed import unpacked

_TEXT = st.one_of(
    st.text(max_size=8), st.sampled_from(["-", "1", "1e5", "1_0", "nan", "inf", ",", "a,b", "a'b", "a\\b"])
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    _TEXT,
)
_DATA = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(_TEXT, inner, max_size=5),
        st.lists(st.dictionaries(st.sampled_from(["name", "columns", "weight", "x"]), inner), max_size=4),
    ),
    max_leaves=30,
)


def _terms(name: str, count: int) -> list[dict[str, Any]]:
    """The terms of one leaf; those of another differ in their numbers alone."""
    terms = [{"name": f"feature_{i}", "columns": [i], "weight": i / 7 + len(name)} for i in range(count)]
    for i, term in enumerate(terms):
        if i != ord(name) % 5:
            term["mean"] = 0.1 * i
    return terms


def exact(data: Any) -> str:
    """Tells 1 from 1.0, 0.0 from -0.0 and a list from a text."""
    return json.dumps(data, sort_keys=True)


@given(_DATA)
@example([0.0, -0.0, 1.0, 1, 5e-324, 1e22, 1e23, -1.5e-7, 123456789012345680.0, 0.1])
@example({"a": {"q": 0.5}, "b": {"q": -0.0, "far": 1}, "-": {}})
@example([{"name": "x", "columns": []}, {"name": "y", "columns": [1.0, 2]}, {"name": "-"}])
@example({"weights": [0.25] * 200, "centers": ["0012", "a1", [1, 2, 3] * 40]})
@example({"\U00012544": 0, "\n": 0})
@example(
    {
        "a": {"w": [0.125] * 20},
        "b": {"w": [0.125] * 20},
        "c": {"w": [0.125] * 19 + [-0.0]},
        "d e": [0.125] * 20,
    }
)
@example(
    {
        name: {"terms": _terms(name, count)}
        for name, count in (("a", 9), ("b", 9), ("c", 8), ("d", 3), ("e", 9))
    }
)
@example({"points": [[13.25, 0.5], [13.25, -0.25], [13.25], [], [13.25, 2.0, 3.0], [14.0, 1.0], 13.25] * 3})
@settings(max_examples=300, deadline=None)
def test_what_is_packed_comes_back_to_the_last_bit_and_type(data: Any) -> None:
    assert exact(unpacked(pack(data))) == exact(data)
    assert exact(unpacked(ast.literal_eval(estimator_literal({"data": data})))) == exact({"data": data})


@pytest.mark.parametrize(
    ("data", "packed"),
    [
        ([0.5, -0.25, 3.0, 1e-07, 7, 0.125, [1], 0.0], ("list", ".5 -.25 3. 1e-7 7 .125 1, 0.")),
        ({"Tanh": "GELU", "SiLU": "GELU", "ReLU": "GELU"}, ("pairs", "Tanh GELU SiLU GELU ReLU GELU")),
        (
            [
                {"columns": [0], "name": "launch", "weight": 0.5},
                {"columns": [], "name": "bias", "weight": 1.0},
            ],
            ("rows", "name columns weight\nlaunch 0, .5\nbias , 1."),
        ),
        (
            {"ml": {"q": 0.01, "slope": 3.0}, "module": {"far": 0.5, "q": 0.02, "slope": 4.0}},
            ("table", "key q slope far\nml .01 3. -\nmodule .02 4. .5"),
        ),
    ],
)
def test_tables_say_every_key_once(data: Any, packed: Any) -> None:
    assert pack(data) == packed


@pytest.mark.parametrize("data", [["a b"] * 9, ["it's"] * 9, ["-0x"] * 9, ["1"] * 9, [True] * 9, [None] * 9])
def test_what_a_table_would_not_give_back_stays_a_literal(data: list[Any]) -> None:
    assert isinstance(pack(data), list) or exact(unpacked(pack(data))) == exact(data)


@pytest.mark.parametrize(
    "damaged",
    [
        ("cows", "1"),
        ("rows",),
        (1, 2),
        ("rows", 3),
        ("table", "key q\n\nml 1"),
        ("same", "nowhere"),
        ("same", "data"),
        ("like", "data\nq\n1"),
    ],
)
def test_a_table_of_no_known_kind_is_an_error(damaged: Any) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError, LookupError)):
        unpacked({"data": [damaged]})


def test_what_was_said_before_is_pointed_to() -> None:
    terms = {name: {"terms": _terms(name, 9 if name != "c" else 5)} for name in "abc"}
    packed = pack({**terms, "x": [0.125] * 20, "y": [0.125] * 20})
    assert packed["a"]["terms"][0] == "rows"
    assert [packed[name]["terms"][1].split("\n")[:2] for name in "bc"] == [["a terms", "mean"]] * 2
    assert packed["y"] == ("same", "x")
    assert exact(unpacked(packed)) == exact({**terms, "x": [0.125] * 20, "y": [0.125] * 20})


def test_a_long_word_is_said_once_where_lines_repeat_it() -> None:
    data = {name: {"batch_size": [7.99999, 32.0001], "q": 0.5} for name in ("Linear", "MatMul", "Softmax")}
    data["Tanh"] = {"batch_size": [7.99999, 64.0], "q": 0.5}
    kind, text = pack(data)
    assert kind == "table"
    assert text.split("\n")[1:] == [
        "Linear .5 7.99999,32.0001",
        'MatMul .5 "',
        'Softmax .5 "',
        "Tanh .5 7.99999,64.",
    ]
