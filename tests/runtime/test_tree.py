"""Tree files: round trips, and hostile ones, which cost bounded time and memory and a typed error."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_runtime import tree as tree_module
from irene_runtime.errors import IreneError, TreeError
from irene_runtime.model import Estimator
from irene_runtime.tree import from_json, load, loads
from tests import strategies
from tests.runtime.examples import estimator, tree


def text(**changes: Any) -> str:
    return json.dumps({**tree().to_json(), **changes})


def with_node(index: int, **changes: Any) -> str:
    data = tree().to_json()
    data["nodes"][index].update(changes)
    return json.dumps(data)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shape=strategies.shapes)
def test_a_tree_reads_back_as_written(shape: strategies.Shape) -> None:
    drawn = strategies.tree(list(strategies.RANGES), list(strategies.PRIMITIVES), shape)
    again = loads(drawn.dumps())
    assert again.dumps() == drawn.dumps()
    assert [n.to_json() for n in again.nodes] == [n.to_json() for n in drawn.nodes]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "not a model tree"),
        ("[]", "expected an object"),
        ('{"format": "irene-tree"', "not a model tree"),
        (text(format="irene-estimator"), "expected an object with"),
        (text(version=2), "a symbolic tree .version 2."),
        (text(version=3), "newer than 2.*update irene-build"),
        (text(version=0), "tree version 0 is not known"),
        (text(version="1"), "version is '1'"),
        (text(version=True), "version is True"),
        (text(nodes=[]), "not empty"),
        (text(nodes={}), "not empty"),
        (text(batch_size="8"), "batch_size is '8', expected a count"),
        (text(batch_size=-8), "batch_size is -8"),
        (text(seq_len=1.5), "seq_len is 1.5"),
        (text(past_len=None), "past_len is None"),
        (text(model=7), "model is 7"),
        (text(cost_model=["x"]), "cost_model is"),
        (with_node(2, features={"flops": math.nan}), "NaN is not JSON"),
        (with_node(2, features={"flops": -math.inf}), "-Infinity is not JSON"),
        (with_node(2).replace("4.0", "1e999"), "finite"),
        (with_node(2, features={"flops": 10**350}), "does not fit a float64"),
        (with_node(2).replace("4.0", "9" * 401, 1), "a number of 402 digits"),
        (with_node(2, features={"flops": "4"}), "feature flops is str"),
        (with_node(2, features={"flops": True}), "feature flops is bool"),
        (with_node(2, features={"flops": None}), "feature flops is NoneType"),
        (with_node(2, features={"mem_bytes": -1}), "mem_bytes is negative"),
        (with_node(2, features=[]), "features must be an object"),
        (with_node(2, primitive="Frobnicate"), "unknown primitive 'Frobnicate'"),
        (with_node(2, primitive=None), "unknown primitive None"),
        (with_node(1, primitive="Linear"), "only leaves"),
        (with_node(2, level="leaf"), "level is 'leaf'"),
        (with_node(2, parent=2), "not an earlier node"),
        (with_node(1, parent=3), "without cycles"),
        (with_node(2, parent=-1), "under one root"),
        (with_node(2, parent=1.0), "expected an index"),
        (with_node(0, parent=0), "its parent must be -1"),
        (with_node(3, parent=2), "a leaf has children"),
        (with_node(1, level="model"), "a model below the root"),
        (with_node(2, call=-1), "call is -1"),
        (with_node(2, scope=5), "must be strings"),
        (with_node(2, shapes=3), "shapes must be an object"),
        (with_node(2, provenance=3), "provenance must be a string"),
        (with_node(2, energy_j="1"), "energy_j is str"),
        ('{"format": "irene-tree", "format": "x"}', "the key 'format' stands twice"),
    ],
)
def test_wrong_files_say_what_and_where(file: str, message: str) -> None:
    with pytest.raises(TreeError, match=message) as caught:
        loads(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_nodes_must_stand_in_pre_order() -> None:
    data = tree().to_json()
    data["nodes"][3], data["nodes"][4] = data["nodes"][4], data["nodes"][3]
    with pytest.raises(TreeError, match=r"node 4 \(block:softmax\): nodes are not in pre-order"):
        from_json(data)


def test_a_missing_field_is_named() -> None:
    data = tree().to_json()
    del data["nodes"][2]["features"]
    with pytest.raises(TreeError, match="node 2: lacks 'features'"):
        from_json(data)


def test_unknown_fields_are_ignored_and_not_kept() -> None:
    data = tree().to_json()
    data["later"] = {"x": 1}
    data["nodes"][2]["later"] = [1, 2]
    assert from_json(data).dumps() == tree().dumps()


def test_two_nodes_may_bear_one_name() -> None:
    data = tree().to_json()
    data["nodes"][4] = {**data["nodes"][2], "parent": 0}
    assert [n.name for n in from_json(data).nodes].count("block.fc:Linear") == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match=r"cannot read .*missing\.json: No such file"):
        load(str(tmp_path / "missing.json"))
    with pytest.raises(TreeError, match="cannot read"):
        load(str(tmp_path))
    (tmp_path / "latin.json").write_bytes(b'{"format": "\xe9"}')
    with pytest.raises(TreeError, match="not UTF-8 text"):
        load(str(tmp_path / "latin.json"))
    (tmp_path / "half.json").write_text(text()[:200])
    with pytest.raises(TreeError, match=r"half\.json: not a model tree"):
        load(str(tmp_path / "half.json"))
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + text().encode())
    with pytest.raises(TreeError, match="not a model tree"):
        load(str(tmp_path / "bom.json"))


def chain(depth: int) -> dict[str, Any]:
    """A tree that is one path of modules down to a leaf."""
    features = {"flops": 1.0, "mem_bytes": 1.0}
    nodes = [
        {
            "scope": f"s{i}",
            "type": "M",
            "level": "module" if i else "model",
            "parent": i - 1,
            "features": features,
        }
        for i in range(depth)
    ]
    nodes.append({**nodes[0], "level": "ml", "primitive": "Linear", "parent": depth - 1})
    return {"format": "irene-tree", "version": 1, "nodes": nodes}


def test_depth_is_bounded_and_what_is_allowed_works() -> None:
    with pytest.raises(TreeError, match="deeper than 1000 levels"):
        from_json(chain(100_000))
    deep = from_json(chain(1000))
    assert Estimator(estimator()).predict(deep).energy_j == 1.75


_LIMITS = """
import resource, sys
from irene_runtime.errors import TreeError
from irene_runtime.tree import load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load(sys.argv[1])
except TreeError as error:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("%d %.2f %s" % ((used.ru_maxrss - before) // 1024, used.ru_utime + used.ru_stime, error))
"""


def _hostile(name: str, path: Path) -> None:
    with path.open("w") as file:
        if name == "100 MB of nodes":
            node = json.dumps(tree().nodes[2].to_json()) + ","
            file.write('{"format": "irene-tree", "version": 1, "nodes": [')
            for _ in range(100 * 10**6 // len(node)):
                file.write(node)
            file.write("{}]}")
        elif name == "15 MB of empty objects":
            file.write('{"format": "irene-tree", "version": 1, "nodes": [' + "{}," * 5_000_000 + "{}]}")
        elif name == "15 MB of strings":
            file.write('{"format": "irene-tree", "version": 1, "nodes": [' + '"ab",' * 3_000_000 + "{}]}")
        elif name == "15 MB of numbers":
            file.write('{"format": "irene-tree", "version": 1, "nodes": [' + "1e9," * 3_700_000 + "{}]}")
        elif name == "nested lists":
            file.write("[" * 900_000)
        elif name == "nested objects":
            file.write('{"a":' * 900_000)
        elif name == "one number":
            file.write('{"format": "irene-tree", "version": ' + "9" * 15_000_000 + "}")
        elif name == "one exponent":
            file.write('{"format": "irene-tree", "version": 1, "nodes": 1e' + "9" * 15_000_000 + "}")
        elif name == "one string":
            file.write('{"format": "' + "x" * 15_000_000 + '"}')
        elif name == "duplicate keys":
            file.write('{"format": "irene-tree", ' + '"nodes": [],' * 1_000_000 + '"version": 1}')


@pytest.mark.parametrize(
    "name",
    [
        "100 MB of nodes",
        "15 MB of empty objects",
        "15 MB of strings",
        "15 MB of numbers",
        "nested lists",
        "nested objects",
        "one number",
        "one exponent",
        "one string",
        "duplicate keys",
    ],
)
def test_hostile_files_cost_bounded_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    _hostile(name, path)
    env = {**os.environ, "PYTHONPATH": str(Path(tree_module.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", _LIMITS, str(path)], capture_output=True, text=True, env=env, timeout=60
    )
    assert done.returncode == 0, done.stderr[-500:]
    megabytes, _, message = done.stdout.split(" ", 2)
    assert int(megabytes) < 500
    assert len(message) < 400


def test_a_pipe_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def feed() -> None:
        try:
            with pipe.open("wb") as file:
                while True:
                    file.write(b" " * 2**20)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=feed)
    thread.start()
    with pytest.raises(TreeError, match="larger than 16 MiB"):
        load(str(pipe))
    thread.join(10)
    assert not thread.is_alive()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**320), max_value=10**320)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["ml", "module", "model", "Linear", "irene-tree", "x" * 3000, "\x1b[31m"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


def _used(data: Any) -> None:
    """What loads is predicted and printed as well; nothing but an IreneError may come out."""
    try:
        p = Estimator(estimator()).predict(from_json(data))
        p.table(), p.to_csv(), p.to_openmetrics(), p.explain()
        p.to_json()
    except IreneError as error:
        assert str(error)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), value=json_values, key=st.text(max_size=5))
def test_any_change_to_a_tree_gives_a_typed_error_or_a_prediction(seed: int, value: Any, key: str) -> None:
    rng = random.Random(seed)
    data = json.loads(tree().dumps())
    at: Any = data
    while True:
        inner = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not inner:
            return
        name = rng.choice([*inner, key] if isinstance(at, dict) else inner)
        child = at[name] if not isinstance(at, dict) or name in at else None
        if isinstance(child, (dict, list)) and child and rng.random() < 0.8:
            at = child
            continue
        if rng.random() < 0.2 and child is not None:
            del at[name]
        else:
            at[name] = value
        break
    _used(data)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(value=json_values)
def test_any_json_gives_a_typed_error(value: Any) -> None:
    _used(value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.integers(0, 2000))
def test_any_bytes_in_a_file_give_a_typed_error(noise: bytes, at: int) -> None:
    raw = bytearray(tree().dumps().encode())
    raw[at : at + len(noise)] = noise
    try:
        loads(raw.decode("utf-8", "replace"))
    except IreneError as error:
        assert len(str(error)) < 1000
