"""The ONNX graph: it computes FORMAT.md, for one tree or a forest, whatever the input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.errors import EstimatorError, ParityError
from irene_build.export.arrays import encode
from irene_build.export.backends import OnnxRuntime, Reference, trainer
from irene_build.export.builder import OUTPUTS, TIERS
from irene_build.export.graph import build_model
from irene_build.export.parity import Scales, compare, scales
from irene_runtime.tree import ModelTree
from tests.export import examples
from tests.strategies import Forms, Shape, forms, shapes
from tests.strategies import estimator as make_estimator
from tests.strategies import tree as make_tree


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    return examples.estimator()


@pytest.fixture(scope="module")
def model(everything: dict[str, Any]) -> Any:
    return build_model(everything, {"irene.digest": "d"})


@pytest.fixture(scope="module")
def graph(model: Any) -> OnnxRuntime:
    return OnnxRuntime(model.SerializeToString())


def tree_of(data: dict[str, Any], seed: int = 1, nodes: int = 25, resources: str = "all") -> ModelTree:
    return make_tree(data["features"], data["primitives"], Shape(seed, nodes, resources, True, True, 0.3))


def functions(model: Any) -> Iterator[Any]:
    yield from model.functions


@given(forms, shapes)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_onnxruntime_is_the_trainer_on_random_estimators_and_trees(form: Forms, shape: Shape) -> None:
    data = make_estimator(form)
    tree = make_tree(data["features"], data["primitives"], shape)
    arrays = encode(data, [tree])
    graph = OnnxRuntime(build_model(data, {}).SerializeToString())
    for tier in data["tiers"]:
        found = graph.run_arrays(arrays, tier)
        try:
            expected = trainer(data, tree, tier)
        except (
            EstimatorError,
            ParityError,
        ):  # the tree lacks what the tier needs; the graph says NaN or flag 4
            continue
        deviation = compare(found, expected, scales(data, tier, arrays), arrays["parent"])
        assert deviation.agrees, deviation


@given(forms, shapes)
@settings(max_examples=12, deadline=None, derandomize=True)
def test_the_specification_s_own_evaluator_agrees(form: Forms, shape: Shape) -> None:
    data = make_estimator(form)
    model = build_model(data, {})
    graph, reference = OnnxRuntime(model.SerializeToString()), Reference(model)
    arrays = encode(data, [make_tree(data["features"], data["primitives"], shape)])
    for tier in data["tiers"]:
        deviation = compare(
            graph.run_arrays(arrays, tier),
            reference.run_arrays(arrays, tier),
            scales(data, tier, arrays),
            arrays["parent"],
        )
        assert deviation.agrees, deviation


@pytest.mark.parametrize("kernel", ["matern32", "rbf"])
@pytest.mark.parametrize("listed", [True, False])
def test_distances_from_centres_on_few_lines_are_computed_line_by_line(kernel: str, listed: bool) -> None:
    """As calibration makes them: centres are the sizes that were measured. Some nodes lie on a centre."""
    data = examples.estimator()
    tier = data["tiers"]["static"]
    lines = [[-1.5, -0.25, 0.0, 2.75], [-0.125, 0.5, 3.0]]
    rng = np.random.default_rng(3)
    at = [rng.integers(0, len(values), 40).tolist() for values in lines]
    centers: Any = [[values[i] for i in place] for values, place in zip(lines, at, strict=True)]
    columns = [
        i for i, column in enumerate(tier["columns"]) if column.get("feature") in ("flops", "mem_bytes")
    ][:2]
    assert len(columns) == 2
    correction = {
        "columns": columns, "mean": [30.0, 20.0], "scale": [25.0, 30.0], "kernel": kernel, "length": [0.4, 1.2],
        "weights": rng.normal(0.0, 0.2, 40).tolist(), "bias": 0.1, "limit": 0.7,
        "centers": [list(c) for c in zip(*centers, strict=True)],
    }  # fmt: skip
    if listed:
        correction.update(grid=lines, centers=at)
    tier["correction"] = {**(tier.get("correction") or {}), "module": correction}
    model = build_model(data, {})
    assert "GridDistance" in {node.op_type for node in every_node(model.graph)}
    trees = [tree_of(data, seed, nodes=40) for seed in range(4)]
    for tree in trees:
        for node in tree.nodes[:20]:
            node.features.update(flops=30.0 - 0.25 * 25.0, mem_bytes=20.0 + 0.5 * 30.0)
    graph, reference = OnnxRuntime(model.SerializeToString()), Reference(model)
    for tree in trees:
        arrays = encode(data, [tree])
        found = graph.run_arrays(arrays, "static")
        bound = scales(data, "static", arrays)
        for other in (trainer(data, tree, "static"), reference.run_arrays(arrays, "static")):
            deviation = compare(found, other, bound, arrays["parent"])
            assert deviation.agrees, deviation


def test_the_specification_s_evaluator_takes_trees_of_any_size(
    everything: dict[str, Any], model: Any, graph: OnnxRuntime
) -> None:
    arrays = encode(everything, [tree_of(everything, nodes=300)])
    for tier in TIERS:
        one, other = graph.run_arrays(arrays, tier), Reference(model).run_arrays(arrays, tier)
        deviation = compare(one, other, scales(everything, tier, arrays), arrays["parent"])
        assert deviation.agrees, deviation


def function_alone(
    model: Any, name: str, inputs: list[Any], outputs: list[Any]
) -> onnxruntime.InferenceSession:
    """A graph that calls one local function of ours and does nothing else."""
    names = [value.name for value in inputs], [value.name for value in outputs]
    call = onnx.helper.make_node(name, *names, domain="irene")
    graph = onnx.helper.make_graph([call], name, inputs, outputs)
    whole = onnx.helper.make_model(
        graph,
        functions=list(model.functions),
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
    )
    return onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def distinct() -> onnxruntime.InferenceSession:
    data = make_estimator(dataclasses.replace(examples.EVERYTHING, direct=False))
    real, whole, value = onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64, onnx.helper.make_tensor_value_info
    return function_alone(
        build_model(data, {}),
        "Distinct",
        [value("x", real, ["N", 3]), value("kind", whole, ["N"]), value("index", whole, ["N"]),
         value("mix", real, [3, 1]), value("kind_mix", real, [])],
        [value("first", whole, ["M"]), value("of", whole, ["N"])],
    )  # fmt: skip


numbers = st.sampled_from([0.0, 1.0, 2.0, 1e17, 1e17 + 16.0, -np.inf, np.inf, np.nan])
rows = st.lists(st.tuples(numbers, numbers, numbers, st.integers(0, 3)), min_size=1, max_size=40)


@given(
    rows,
    st.sampled_from([(1.0, 2.0, 3.0, 5.0), (0.0, 0.0, 0.0, 0.0), (2.0**0.5, 3.0**0.5, 5.0**0.5, 7.0**0.5)]),
)
@settings(deadline=None, derandomize=True)
def test_no_row_is_taken_for_another(distinct: Any, table: list[Any], mix: tuple[float, ...]) -> None:
    """Also where different rows have the same number, and where a number is lost beside a larger one."""
    x = np.array([row[:3] for row in table])
    kind = np.array([row[3] for row in table])
    inputs = {"x": x, "kind": kind, "index": np.arange(len(x)), "mix": np.array(mix[:3])[:, None]}
    first, of = distinct.run(None, {**inputs, "kind_mix": np.array(mix[3])})
    assert len(of) == len(x)
    np.testing.assert_array_equal(x[first][of], x)
    np.testing.assert_array_equal(kind[first][of], kind)


def test_rows_that_repeat_are_computed_once(distinct: Any) -> None:
    x = np.tile(np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]]), (50, 1))
    kind = np.repeat([0, 1], 50)
    inputs = {"x": x, "kind": kind, "index": np.arange(100), "mix": np.sqrt([[2.0], [3.0], [5.0]])}
    first, _ = distinct.run(None, {**inputs, "kind_mix": np.array(7.0**0.5)})
    assert len(first) == 4


def test_a_forest_gives_every_tree_the_bits_that_it_has_alone(
    everything: dict[str, Any], graph: OnnxRuntime
) -> None:
    trees = [tree_of(everything, seed, nodes) for seed, nodes in ((1, 40), (2, 1), (3, 17), (4, 5))]
    for tier in TIERS:
        together = graph.run_arrays(encode(everything, trees), tier)
        start = 0
        for tree in trees:
            alone = graph.run_arrays(encode(everything, [tree]), tier)
            for name in OUTPUTS:
                part = together[name][start : start + len(tree.nodes)]
                # Bit for bit but for the matrix product of the aggregation, whose kernels depend on the width.
                np.testing.assert_allclose(part, alone[name], rtol=1e-13, atol=0.0, err_msg=f"{tier} {name}")
            start += len(tree.nodes)


def test_an_unknown_primitive_takes_the_fallback_and_a_flag_never_zero(
    everything: dict[str, Any], graph: OnnxRuntime
) -> None:
    tree = tree_of(everything)
    arrays = encode(everything, [tree])
    leaf = next(
        i
        for i, node in enumerate(tree.nodes)
        if node.level == "ml" and node.primitive in everything["tiers"]["static"]["leaf"]
    )
    for number in (-1, len(everything["primitives"]), 10**12, -(10**12)):
        arrays["primitive"][leaf] = number
        found = graph.run_arrays(arrays, "static")
        assert found["flags"][leaf] & 2
        assert found["energy"][leaf] > 0.0


def test_the_primitive_of_an_inner_node_says_nothing(everything: dict[str, Any], graph: OnnxRuntime) -> None:
    tree = tree_of(everything)
    arrays = encode(everything, [tree])
    before = {tier: graph.run_arrays(arrays, tier) for tier in TIERS}
    inner = np.unique(arrays["parent"][arrays["parent"] >= 0])
    arrays["primitive"][inner] = 0
    for tier in TIERS:
        for name, values in graph.run_arrays(arrays, tier).items():
            np.testing.assert_array_equal(values, before[tier][name], err_msg=f"{tier} {name}")


def test_a_leaf_of_another_primitive_takes_its_numbers(
    everything: dict[str, Any], graph: OnnxRuntime
) -> None:
    tree = tree_of(everything)
    arrays = encode(everything, [tree])
    leaf = next(i for i, node in enumerate(tree.nodes) if node.level == "ml")
    for number, name in enumerate(everything["primitives"]):
        arrays["primitive"][leaf] = number
        tree.nodes[leaf].primitive = name
        found = graph.run_arrays(arrays, "static")
        deviation = compare(
            found, trainer(everything, tree, "static"), scales(everything, "static", arrays), arrays["parent"]
        )
        assert deviation.agrees, (name, deviation)


def test_modules_of_no_known_kind_and_roots_of_such_have_wider_intervals() -> None:
    """FORMAT.md, Changes 5: two modules of known kinds and one that is far, which has most of the root's joules."""
    data = examples.estimator(examples.PAPER)
    tier = data["tiers"]["static"]
    tier["columns"] = [{"feature": data["features"][0], "map": "identity"}]
    big = {"terms": [{"name": "size", "columns": [0], "weight": 1.0}]}
    tier.update(leaf=dict.fromkeys(data["primitives"], big), fallback=big, aggregation=None, ranges={})
    levels = {"ml": {"q": 0.1}, "module": {"q": 0.2, "far": 0.4}, "model": {"q": 0.3, "far": 0.5}}
    kinds = {"columns": [0], "points": [[10.0], [20.0]], "reach": 0.5}
    tier["interval"] = {"levels": levels, "kinds": kinds}
    data["tiers"] = {"static": tier}
    arrays = {
        "parent": np.array([-1, 0, 1, 0, 3, 0, 5]), "level": np.array([2, 1, 0, 1, 0, 1, 0]),
        "primitive": np.zeros(7, dtype=np.int64), "features": np.zeros((7, len(data["features"]))),
    }  # fmt: skip
    graph = OnnxRuntime(build_model(data, {}).SerializeToString())
    for joules, root in ((7.0, 0.5), (5.0, 0.3)):
        arrays["features"][:, 0] = [1.0, 10.4, 3.0, 19.6, 3.0, 15.0, joules]
        found = graph.run_arrays(arrays, "static")
        half = np.log(found["high"] / found["energy"])
        np.testing.assert_allclose(half, [root, 0.2, 0.1, 0.2, 0.1, 0.4, 0.1], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("parent", 3, 3),
        ("parent", 3, 9),
        ("parent", 3, 10**15),
        ("parent", 3, -2),
        ("level", 3, 5),
        ("level", 3, -1),
    ],
)
def test_rows_that_make_no_sense_give_nan(
    everything: dict[str, Any], graph: OnnxRuntime, name: str, index: int, value: int
) -> None:
    arrays = encode(everything, [tree_of(everything)])
    arrays[name][index] = value
    try:
        found = graph.run_arrays(arrays, "static")
    except Exception as error:
        assert "out of" in str(error)  # onnxruntime refuses the index: no number is as good as NaN
    else:
        assert np.isnan(found["energy"][index])


def test_a_cycle_ends(everything: dict[str, Any], graph: OnnxRuntime) -> None:
    arrays = encode(everything, [tree_of(everything)])
    arrays["parent"][1:] = np.roll(np.arange(1, len(arrays["parent"])), -1)
    assert np.isnan(graph.run_arrays(arrays, "static")["energy"]).any()


def test_absent_resource_features_spread_as_nan(everything: dict[str, Any]) -> None:
    data = examples.estimator(examples.PAPER)
    graph = OnnxRuntime(build_model(data, {}).SerializeToString())
    tree = tree_of(data)
    arrays = encode(data, [tree])
    leaf = max(i for i, node in enumerate(tree.nodes) if node.level == "ml")
    arrays["features"][leaf] = np.nan
    found = graph.run_arrays(arrays, "profile")
    on_path = leaf
    while on_path >= 0:
        assert np.isnan(found["energy"][on_path])
        on_path = tree.nodes[on_path].parent
    assert np.isfinite(found["energy"]).sum() > 0


@pytest.mark.parametrize("tier", ["live", "profile"])
def test_a_tier_that_is_not_there_gives_nan_everywhere(tier: str) -> None:
    data = examples.estimator()
    del data["tiers"][tier]
    found = OnnxRuntime(build_model(data, {}).SerializeToString()).run_arrays(
        encode(data, [tree_of(data)]), tier
    )
    assert np.isnan(found["energy"]).all()
    assert np.isnan(found["low"]).all()


def test_a_wrong_constant_is_beyond_the_bound(everything: dict[str, Any], graph: OnnxRuntime) -> None:
    tree = tree_of(everything)
    arrays = encode(everything, [tree])
    bound = scales(everything, "static", arrays)
    wrong = examples.estimator()
    used = next(n.primitive for n in tree.nodes if n.primitive in wrong["tiers"]["static"]["leaf"])
    for term in wrong["tiers"]["static"]["leaf"][used]["terms"]:
        term["weight"] *= 1.0 + 1e-12
    expected = trainer(wrong, tree, "static")
    assert not compare(graph.run_arrays(arrays, "static"), expected, bound, arrays["parent"]).agrees


def test_the_graph_is_readable_and_loads_where_opset_18_does(model: Any) -> None:
    assert model.ir_version == 8
    assert {(o.domain, o.version) for o in model.opset_import} == {("", 18), ("irene", 1)}
    onnx.checker.check_model(model, full_check=True)
    names = [function.name for function in functions(model)]
    assert len(names) == len(set(names)) >= 20
    for function in functions(model):
        assert function.doc_string
        for node in function.node:
            for attribute in node.attribute:
                assert not attribute.g.initializer
    assert all(value.doc_string for value in [*model.graph.input, *model.graph.output])
    calls = {node.op_type for node in every_node(model.graph) if node.domain == "irene"}
    assert {"Distinct", "AggregatePooled", "SquareDistance", "Weigh", "Far", "Ends"} <= calls <= set(names)


def every_node(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from every_node(attribute.g)


def test_names_in_the_graph_are_unique(model: Any) -> None:
    outputs = [name for node in every_node(model.graph) for name in node.output]
    tables = [tensor.name for tensor in model.graph.initializer]
    assert len(outputs + tables) == len(set(outputs + tables))


def test_nothing_in_the_graph_is_unused(model: Any) -> None:
    """Every table and every constant of a function is read by some node (runtimes warn about the others)."""
    read = {name for node in every_node(model.graph) for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read
    for function in functions(model):
        used = {name for node in every_node(function) for name in node.input} | set(function.output)
        made = {node.output[0] for node in function.node if node.op_type == "Constant"}
        assert made <= used, (function.name, made - used)


def test_the_graph_does_not_grow_with_the_tree(everything: dict[str, Any], graph: OnnxRuntime) -> None:
    """One graph, any depth: a chain of 200 modules has 200 rounds of one loop."""
    tree = tree_of(everything, nodes=2)
    arrays = encode(everything, [tree])
    deep = {name: np.repeat(values[:1], 202, axis=0) for name, values in arrays.items()}
    deep["parent"] = np.arange(-1, 201)
    deep["level"] = np.array([2] + [1] * 200 + [0])
    deep["primitive"][-1] = 0
    found = graph.run_arrays(deep, "static")
    assert np.isfinite(found["energy"]).all()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: t["columns"][0].update(map="cube"), "unknown map 'cube'"),
        (lambda t: t["aggregation"]["weights"].pop(), "weights, not"),
        (
            lambda t: next(x for x in t["leaf"].values() if x["correction"])["correction"].update(
                kernel="cosine"
            ),
            "unknown kernel",
        ),
    ],
)
def test_forms_that_the_format_does_not_know_are_refused(spoil: Any, says: str) -> None:
    data = examples.estimator()
    spoil(data["tiers"]["static"])
    with pytest.raises(EstimatorError, match=says):
        build_model(data, {})


def test_scales_belong_to_the_terms() -> None:
    """Two terms that cancel: the sum is small, its scale is not."""
    data = examples.estimator(examples.PAPER)
    leaf = {
        "terms": [
            {"name": "up", "columns": [], "weight": 1e6, "mean": 0.0, "scale": 1.0},
            {"name": "down", "columns": [], "weight": -1e6 + 1.0, "mean": 0.0, "scale": 1.0},
        ],
        "floor": None, "correction": None,
    }  # fmt: skip
    tier = data["tiers"]["static"]
    tier["leaf"] = dict.fromkeys(tier["leaf"], leaf)
    tree = tree_of(data, nodes=4)
    found: Scales = scales(data, "static", encode(data, [tree]))
    leaves = [i for i, node in enumerate(tree.nodes) if node.primitive in tier["leaf"]]
    assert leaves and all(found.energy[i] == pytest.approx(2e6) for i in leaves)
