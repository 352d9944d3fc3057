"""The written schema of the tree file and the loader accept and refuse the same files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import irene_build
from irene_build.trace import trace
from irene_runtime import tree as format_
from irene_runtime.errors import TreeError
from irene_runtime.features import PRIMITIVES

_SCHEMA = json.loads(
    (Path(irene_build.__file__).parent / "schemas" / "tree.schema.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def traced() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(trace("bert_uncased_L-2_H-128_A-2", 2, 8).dumps())
    return data


def _schema_takes(data: Any) -> bool:
    return not list(jsonschema.Draft202012Validator(_SCHEMA).iter_errors(data))


def _loader_takes(data: Any) -> bool:
    try:
        format_.from_json(data)
    except TreeError:
        return False
    return True


def test_the_schema_is_a_schema_and_knows_every_primitive() -> None:
    jsonschema.Draft202012Validator.check_schema(_SCHEMA)
    assert _SCHEMA["$defs"]["primitive"]["enum"] == list(PRIMITIVES)
    assert set(_SCHEMA["properties"]) == {"format", "version", "nodes", *format_.HEADER}
    assert set(_SCHEMA["$defs"]["node"]["properties"]) == set(format_.Node.__slots__)


@pytest.mark.parametrize("model", ["bert_uncased_L-2_H-128_A-2", "t5-small", "vit-base-patch16-224"])
def test_what_trace_writes_follows_both(model: str, tmp_path: Path) -> None:
    tree = trace(model, 1, 8)
    path = tmp_path / "tree.json"
    tree.save(str(path))
    assert _schema_takes(json.loads(path.read_text(encoding="utf-8")))
    assert format_.load(str(path)).dumps() == tree.dumps()


@pytest.mark.parametrize("field", ["scope", "type", "level", "parent", "features"])
def test_both_miss_a_required_field(traced: dict[str, Any], field: str) -> None:
    broken = copy.deepcopy(traced)
    del broken["nodes"][3][field]
    assert not _schema_takes(broken)
    with pytest.raises(TreeError, match=field):
        format_.from_json(broken)


_JSON = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 3), st.text(max_size=3), st.lists(st.integers(), max_size=1)
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    node=st.integers(1, 40),
    field=st.sampled_from(
        ["scope", "type", "level", "primitive", "call", "features", "provenance", "energy_j"]
    ),
    value=_JSON,
)
def test_a_field_of_another_kind_is_judged_alike(
    traced: dict[str, Any], node: int, field: str, value: Any
) -> None:
    broken = {**traced, "nodes": list(traced["nodes"])}
    broken["nodes"][node] = {**broken["nodes"][node], field: value}
    assert _schema_takes(broken) == _loader_takes(broken)


def test_a_newer_version_says_so(traced: dict[str, Any]) -> None:
    newer = {**traced, "version": 3}
    assert not _schema_takes(newer)
    with pytest.raises(TreeError, match=r"newer than 2.*update irene-build"):
        format_.from_json(newer)
