"""The estimator of the runtime: every rule of irene_build/train/FORMAT.md on numbers worked out by hand."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from irene_build.train import arithmetic
from irene_runtime.errors import EstimatorError, InputError, TreeError
from irene_runtime.model import Estimator, _kinds
from irene_runtime.tree import ModelTree, Node
from tests import strategies
from tests.runtime.examples import estimator, reading, term, tree

ROOT = {"latency": 0.02, "gpu_energy": 5.0}  # D = 2 * 5 J + 100 W * 0.02 s = 12 J


def energies(data: dict[str, Any], model_tree: ModelTree, *args: Any, **kwargs: Any) -> list[float]:
    return [node.energy_j for node in Estimator(data).predict(model_tree, *args, **kwargs)]


def one_leaf(leaf: dict[str, Any], columns: list[dict[str, Any]], **features: float) -> float:
    """Joules of a tree of a single Linear leaf."""
    data = estimator()
    static = data["tiers"]["static"]
    static.update(leaf={"Linear": leaf}, fallback=leaf, columns=columns, ranges={})
    data["tiers"] = {"static": static}
    return energies(data, ModelTree([Node("", "Linear", "ml", -1, "Linear", features=features)]))[0]


def test_leaves_are_linear_and_parents_are_sums() -> None:
    # fc: 1 + 0.5*4 + 0.25*4; softmax: 8; head: 1 + 0.5*3 + 0.25*2
    assert energies(estimator(), tree()) == [15.0, 12.0, 4.0, 8.0, 3.0]


def test_a_term_is_a_standardised_product_of_columns() -> None:
    columns = [{"feature": "flops", "map": "identity"}, {"feature": "rows", "map": "identity"}]
    leaf = {"terms": [term("p", [0, 1], 3.0, mean=2.0, scale=4.0)], "floor": None, "correction": None}
    assert one_leaf(leaf, columns, flops=5.0, rows=2.0) == 3.0 * ((10.0 - 2.0) / 4.0)


@pytest.mark.parametrize(
    ("kind", "x", "expected"),
    [
        ("identity", 7.0, 7.0),
        ("log", 7.0, math.log(7.0)),
        ("log", 0.0, math.log(1e-9)),
        ("log1p", 7.0, math.log1p(7.0)),
        ("ceil_div", 257.0, 3.0),
        ("ceil_div", 256.0, 2.0),
        ("inverse", 8.0, 0.125),
        ("inverse", 0.0, 1.0 / 1e-9),
    ],
)
def test_column_maps(kind: str, x: float, expected: float) -> None:
    leaf = {"terms": [term("x", [0], 1.0)], "floor": None, "correction": None}
    assert one_leaf(leaf, [{"feature": "flops", "map": kind, "by": 128}], flops=x) == expected


def test_a_column_can_be_a_product_of_earlier_columns() -> None:
    columns = [
        {"feature": "rows", "map": "ceil_div", "by": 100},
        {"feature": "cols", "map": "ceil_div", "by": 100},
        {"of": [0, 1], "map": "ceil_div", "by": 4},
    ]
    leaf = {"terms": [term("waves", [2], 1.0)], "floor": None, "correction": None}
    assert one_leaf(leaf, columns, rows=250.0, cols=201.0) == math.ceil(3 * 3 / 4)


def test_the_floor_holds_before_the_correction() -> None:
    columns = [{"feature": "flops", "map": "identity"}]
    correction = {
        "columns": [0],
        "mean": [0.0],
        "scale": [1.0],
        "kernel": "poly",
        "degree": 1,
        "weights": [0.5],
        "bias": 0.1,
        "limit": 0.7,
    }
    leaf = {"terms": [term("x", [0], -1.0)], "floor": 2.0, "correction": correction}
    assert one_leaf(leaf, columns, flops=1.0) == 2.0 * math.exp(0.7 * math.tanh(0.6 / 0.7))
    assert one_leaf({**leaf, "floor": None}, columns, flops=1.0) < 0.0


@pytest.mark.parametrize("kernel", ["matern32", "rbf"])
def test_kernel_corrections(kernel: str) -> None:
    columns = [{"feature": "flops", "map": "identity"}, {"feature": "rows", "map": "identity"}]
    correction = {
        "columns": [0, 1],
        "mean": [1.0, 0.0],
        "scale": [2.0, 1.0],
        "kernel": kernel,
        "length": [0.5, 3.0],
        "centers": [[0.0, 1.0], [1.0, -1.0]],
        "weights": [0.3, -0.2],
        "bias": 0.05,
        "limit": 10.0,
    }
    value = 0.05
    for weight, (a, b) in zip([0.3, -0.2], [[0.0, 1.0], [1.0, -1.0]], strict=True):
        d = math.hypot(((4.0 - 1.0) / 2.0 - a) / 0.5, (2.0 - b) / 3.0)
        value += weight * (
            (1 + math.sqrt(3) * d) * math.exp(-math.sqrt(3) * d)
            if kernel == "matern32"
            else math.exp(-d * d / 2)
        )
    leaf = {"terms": [term("one", [], 1.0)], "floor": None, "correction": correction}
    assert one_leaf(leaf, columns, flops=4.0, rows=2.0) == pytest.approx(
        math.exp(10 * math.tanh(value / 10)), rel=1e-14
    )


def test_alpha_is_equation_3_with_all_monomials_in_order() -> None:
    data = estimator()
    weights = [0.1, 0.2, 0.3, 0.4, 0.5]  # a, b, aa, ab, bb
    data["tiers"]["static"]["aggregation"] = {
        "columns": [0, 1],
        "mean": [1.0, 2.0],
        "scale": [10.0, 20.0],
        "degree": 2,
        "weights": weights,
        "bias": 0.05,
        "tau": 2.0,
    }

    def alpha(flops: float, mem_bytes: float) -> float:
        a, b = (flops - 1.0) / 10.0, (mem_bytes - 2.0) / 20.0
        poly = 0.05 + sum(w * m for w, m in zip(weights, [a, b, a * a, a * b, b * b], strict=True))
        return 1.0 + math.tanh(poly) / 2.0

    p = Estimator(data).predict(tree())
    block = alpha(4.0, 4.0) * 4.0 + alpha(0.0, 8.0) * 8.0
    assert p["block"].energy_j == pytest.approx(block, rel=1e-14)
    assert p.energy_j == pytest.approx(alpha(4.0, 12.0) * block + alpha(3.0, 2.0) * 3.0, rel=1e-14)
    assert p["block"].alpha == pytest.approx(alpha(4.0, 12.0), rel=1e-14)
    assert p[0].alpha is None


def test_a_level_can_have_a_correction() -> None:
    data = estimator()
    data["tiers"]["static"]["correction"] = {
        "module": {
            "columns": [0],
            "mean": [0.0],
            "scale": [4.0],
            "kernel": "poly",
            "degree": 1,
            "weights": [0.2],
            "bias": 0.0,
            "limit": 1.0,
        }
    }
    p = Estimator(data).predict(tree())
    assert p["block"].energy_j == pytest.approx(12.0 * math.exp(math.tanh(0.2)), rel=1e-15)
    assert p.energy_j == p["block"].energy_j + 3.0


def test_the_root_reading_replaces_and_rescales_in_the_live_tier() -> None:
    p = Estimator(estimator()).predict(tree(), ROOT)
    s = 12.0 / 15.0
    assert p.tier == "live" and p.energy_j == 12.0
    assert [n.energy_j for n in p.nodes[1:]] == [12.0 * s, 4.0 * s**0.5, 8.0 * s**0.5, 3.0 * s**0.5]


def test_own_readings_are_pooled_geometrically_in_the_profile_tier() -> None:
    model_tree = tree()
    model_tree.nodes[2].features.update(latency=0.01, gpu_energy=4.0)  # D = 9 J
    p = Estimator(estimator()).predict(model_tree)
    assert p.tier == "profile"
    assert p["block.fc"].energy_j == 4.0**0.5 * 9.0**0.5
    assert p.energy_j == pytest.approx(6.0 + 8.0 + 3.0, rel=1e-15)
    assert p["head"].flags == ["fell-back"] and p["head"].tier == "static"
    assert p["block.fc"].flags == [] and p["block.fc"].tier == "profile"


def test_a_reading_stands_alone_where_a_power_cannot_be_taken() -> None:
    data = estimator()
    data["tiers"]["static"]["leaf"]["Linear"] = {
        "terms": [term("x", [], -1.0)],
        "floor": None,
        "correction": None,
    }
    model_tree = tree()
    for node in model_tree.nodes:
        node.features.update(latency=0.01, gpu_energy=4.0)
    assert Estimator(data).predict(model_tree)["block.fc"].energy_j == 9.0


def test_missing_features_take_the_next_lower_tier_and_say_so() -> None:
    est = Estimator(estimator())
    p = est.predict(tree(), {"latency": 0.02})
    assert p.tier == "static" and "fell-back" in p.flags
    assert "needs gpu_energy" in p.notes[0]
    p = est.predict(tree(), ROOT, tier="profile")
    assert p.tier == "live" and "fell-back" in p.flags and "single nodes" in p.notes[0]
    p = est.predict(tree())
    assert p.tier == "static" and p.flags == [] and p.notes == []


def test_leaves_that_need_readings_rule_a_tier_out() -> None:
    data = estimator()
    leaf = {"terms": [term("time", [2], 50.0)], "floor": None, "correction": None}
    data["tiers"]["profile"]["leaf"] = {"Linear": leaf}
    model_tree = tree()
    for node in model_tree.nodes[:4]:
        node.features.update(latency=0.01, gpu_energy=4.0)
    p = Estimator(data).predict(model_tree, tier="profile")
    assert p.tier == "live" and "needs latency of node head:Linear" in p.notes[0]


def test_no_tier_at_all_is_an_error() -> None:
    data = estimator()
    data["tiers"]["profile"] = {**data["tiers"]["static"], "direct": {"model": reading(1.0)}}
    del data["tiers"]["static"], data["tiers"]["live"]
    with pytest.raises(TreeError, match="no tier can predict this tree"):
        Estimator(data).predict(tree())


def test_intervals_are_factors_and_widen_outside_the_ranges() -> None:
    model_tree = tree()
    model_tree.nodes[4].features["flops"] = 10.0 * math.e**2
    p = Estimator(estimator()).predict(model_tree)
    fc, head = p["block.fc"], p["head"]
    assert fc.interval_j == (4.0 * math.exp(-0.1), 4.0 * math.exp(0.1)) and fc.flags == []
    assert head.interval_j[1] / head.energy_j == pytest.approx(math.exp(0.1 * 3.0), rel=1e-12)
    assert head.flags == ["extrapolates"] and "extrapolates" in p.flags


def test_the_interval_is_never_wider_than_its_cap() -> None:
    data = estimator()
    data["tiers"]["static"]["interval"]["levels"]["ml"]["slope"] = 1e6
    model_tree = tree()
    model_tree.nodes[4].features["flops"] = 1e6
    head = Estimator(data).predict(model_tree)["head"]
    assert head.interval_j[1] == head.energy_j * math.exp(16.0)


def test_negative_energies_keep_their_interval_in_order() -> None:
    data = estimator()
    data["tiers"]["static"]["leaf"]["Linear"] = {
        "terms": [term("x", [], -1.0)],
        "floor": None,
        "correction": None,
    }
    head = Estimator(data).predict(tree())["head"]
    assert head.interval_j == (-math.exp(0.1), -math.exp(-0.1))


def test_an_uncalibrated_primitive_is_flagged_never_zero() -> None:
    model_tree = tree()
    model_tree.nodes[3].primitive = "TopK"
    node = Estimator(estimator()).predict(model_tree)[3]
    assert node.energy_j == 0.1 + 0.1 * 8.0
    assert node.flags == ["uncalibrated"]
    assert node.interval_j[1] / node.energy_j == pytest.approx(math.exp(0.7), rel=1e-15)


def test_a_stand_in_lends_its_leaf_and_ranges() -> None:
    data = estimator()
    data["tiers"]["static"]["stand_in"] = {"Conv1D": "Linear"}
    model_tree = tree()
    model_tree.nodes[4].primitive = "Conv1D"
    model_tree.nodes[4].features["flops"] = 20.0
    node = Estimator(data).predict(model_tree)["head"]
    assert node.energy_j == 1.0 + 0.5 * 20.0 + 0.25 * 2.0
    assert node.flags == ["extrapolates", "uncalibrated"]


def test_a_module_without_children_is_never_silently_zero() -> None:
    model_tree = tree()
    model_tree.nodes.append(Node("drop", "Dropout", "module", 0, features={"flops": 0.0, "mem_bytes": 1.0}))
    node = Estimator(estimator()).predict(model_tree)["drop"]
    assert node.energy_j == 0.2 and node.flags == ["uncalibrated"]


def _with_kinds(far: float, reach: float) -> dict[str, Any]:
    """The example's block has flops 4; only modules near flops 40 were calibrated."""
    data = estimator()
    static = data["tiers"]["static"]
    static["interval"]["kinds"] = {"columns": [0], "points": [[40.0], [60.0]], "reach": reach}
    static["interval"]["levels"]["module"]["far"] = static["interval"]["levels"]["model"]["far"] = far
    return data


def test_modules_of_unknown_kinds_have_wider_intervals_and_so_have_roots_that_consist_of_them() -> None:
    p = Estimator(_with_kinds(0.5, reach=10.0)).predict(tree())
    for node in (p["block"], p[0]):  # 12 of 15 J are the block's
        assert node.interval_j[1] == node.energy_j * math.exp(0.5) and node.flags == []
    near = Estimator(_with_kinds(0.5, reach=36.0)).predict(tree())
    for node in (near["block"], near[0]):
        assert node.interval_j[1] == node.energy_j * math.exp(0.1)


def test_a_root_is_not_far_where_known_children_make_up_most_of_it() -> None:
    model_tree = tree()
    model_tree.nodes[4].features.update(flops=10.0, mem_bytes=100.0)  # 31 J
    p = Estimator(_with_kinds(0.5, reach=10.0)).predict(model_tree)
    assert p["block"].interval_j[1] == 12.0 * math.exp(0.5)
    assert p.interval_j[1] == p.energy_j * math.exp(0.1)


@pytest.mark.parametrize("features", [{"mem_bytes": 2.0}, {"flops": 0.0, "mem_bytes": 2.0}])
def test_a_feature_that_was_never_zero_must_be_there(features: dict[str, float]) -> None:
    model_tree = tree()
    model_tree.nodes[4].features = features
    with pytest.raises(TreeError, match=r"node head:Linear lacks the feature flops, .* for Linear"):
        Estimator(estimator()).predict(model_tree)


def test_batch_and_length_come_from_the_header() -> None:
    data = estimator()
    static = data["tiers"]["static"]
    static["columns"] = [{"feature": n, "map": "identity"} for n in ("batch_size", "seq_len", "input_size")]
    static["fallback"] = {"terms": [term(str(i), [i], 10.0**-i) for i in range(3)], "floor": None}
    static["leaf"], static["ranges"] = {}, {}
    data["tiers"] = {"static": static}
    assert Estimator(data).predict(tree())["head"].energy_j == 8.0 + 128.0 * 10.0**-1 + 1024.0 * 10.0**-2


def test_a_dtype_that_was_not_calibrated_is_outside() -> None:
    data = estimator()
    assert not Estimator(data).predict(tree(dtype="bfloat16")).flags, "an estimator that does not say"
    data["trained_on"]["dtypes"] = ["float16", "float32"]
    p = Estimator(data).predict(tree(dtype="bfloat16"))
    assert p.flags == ["extrapolates"] and p.notes == [
        "calibrated in float16, float32 alone, not in bfloat16"
    ]
    assert not Estimator(data).predict(tree(dtype="float32")).flags


def test_a_tree_that_does_not_say_its_sizes_is_predicted_with_a_note() -> None:
    for header in ({"batch_size": None}, {"seq_len": None}):
        assert "no batch_size or seq_len" in Estimator(estimator()).predict(tree(**header)).notes[-1]
    assert not Estimator(estimator()).predict(tree()).notes


def test_work_that_nobody_counted_is_named() -> None:
    """A tree made by hand: what was not counted is 0 for the estimator, and never silently so."""
    uncounted = tree()
    for node in uncounted.nodes:
        node.features.pop("mem_bytes", None)
    notes = Estimator(estimator()).predict(uncounted).notes
    assert f"{len(uncounted.nodes)} nodes have no mem_bytes" in notes[-1]


def test_simulated_provenance_marks_every_node() -> None:
    p = Estimator(estimator(provenance="simulated")).predict(tree())
    assert all("simulated" in node.flags for node in p) and p.simulated


def test_a_tree_of_another_cost_model_is_refused_with_the_command() -> None:
    with pytest.raises(TreeError, match=r"irene-build trace net -b 8 -s 128 --cost-model analytic"):
        Estimator(estimator()).predict(tree(cost_model="irene2021"))


def test_a_tree_of_another_attention_says_so() -> None:
    p = Estimator(estimator()).predict(tree(attention="sdpa"))
    assert "extrapolates" in p.flags
    assert p.notes == ["calibrated with eager attention alone, not with sdpa"]
    assert Estimator(estimator(attention="mixed")).predict(tree(attention="sdpa")).notes == []


def test_features_without_a_finite_result_are_refused() -> None:
    model_tree = tree()
    model_tree.nodes[4].features["flops"] = 1.7e308
    data = estimator()
    data["tiers"]["static"]["leaf"]["Linear"]["terms"][1]["columns"] = [0, 0]
    with pytest.raises(TreeError, match="no finite energy"):
        Estimator(data).predict(model_tree)


@pytest.mark.parametrize(
    ("live", "message"),
    [
        ({"flops": 1.0}, "'flops' is no resource feature"),
        ({"latency": -1.0}, "latency is -1.0"),
        ({"latency": math.nan}, "latency is nan"),
        ({"latency": "0.1"}, "latency is '0.1'"),
        ({"latency": math.inf}, "latency is inf"),
    ],
)
def test_wrong_live_features(live: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Estimator(estimator()).predict(tree(), live)


def test_a_tree_may_come_as_dict_or_as_json_text() -> None:
    est, text = Estimator(estimator()), tree().dumps()
    for form in (text, text.encode(), json.loads(text), "\n " + text):
        assert est.predict(form).to_dict() == est.predict(tree()).to_dict()


def test_it_says_what_it_is() -> None:
    est = Estimator(estimator(hardware="<pc>"))
    assert repr(est).startswith("<Estimator of <pc>: wall, measured, tiers profile, live, static, digest ")
    assert "<td>&lt;pc&gt;</td>" in est._repr_html_() and "1.50 %" in est._repr_html_()
    assert est.to_dict() == est.data and est.to_dict() is not est.data
    assert list(est.to_pandas()["mape"]) == [1.5]


def test_estimators_and_predictions_can_be_pickled() -> None:
    """To another process, say; what comes out says and explains the same."""
    est = pickle.loads(pickle.dumps(Estimator(estimator())))
    p = est.predict(tree(), {"latency": 0.02, "gpu_energy": 5.0})
    q = pickle.loads(pickle.dumps(p))
    assert q.to_json() == p.to_json() and q.explain("block") == p.explain("block")


def test_a_share_that_is_no_number_is_left_out() -> None:
    """A root of next to nothing: what its parts have of it fits no float64."""
    data = estimator()
    data["tiers"]["live"]["rescale"] = {"module": 1.0}
    p = Estimator(data).predict(tree(), {"latency": 5e-324, "gpu_energy": 5e-324})
    shares = [node["share"] for node in json.loads(p.to_json())["nodes"]]
    assert shares[0] == 1.0 and None in shares and "Net" in p.table()


def test_wrong_arguments() -> None:
    wrong: list[Any] = ["tree.json", None, 5, b"\xff", "{", {"nodes": []}]
    says = "'tree.json', a text|not NoneType|not int|not UTF-8|not a model tree: Exp|expected an object"
    for no_tree, part in zip(wrong, says.split("|"), strict=True):
        with pytest.raises(InputError, match=part):
            Estimator(estimator()).predict(no_tree)
    with pytest.raises(InputError, match="live is int"):
        Estimator(estimator()).predict(tree(), 5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tier 'best'"):
        Estimator(estimator()).predict(tree(), tier="best")
    with pytest.raises(InputError, match="backend 'torch'"):
        Estimator(estimator(), backend="torch")
    with (
        pytest.warns(DeprecationWarning, match="backend") as said,
        pytest.raises(InputError, match="backend 'torch'"),
    ):
        Estimator(estimator(), engine="torch")
    assert len(said) == 1
    with pytest.raises(EstimatorError, match="no estimator data"):
        Estimator()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "not an estimator"),
        ({"version": 2}, "version 2"),
        ({"tiers": {}}, "no tier"),
        ({"tiers": {"static": {}}}, "KeyError"),
        ({"tiers": {"static": {"base": "live"}}}, "KeyError"),
        ({"tiers": None}, "TypeError"),
    ],
)
def test_wrong_estimators(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EstimatorError, match=message):
        Estimator(estimator(**change))


def test_polynomials_check_their_weights() -> None:
    data = estimator()
    data["tiers"]["static"]["aggregation"] = {
        "columns": [0, 1],
        "mean": [0.0, 0.0],
        "scale": [1.0, 1.0],
        "degree": 2,
        "weights": [1.0],
        "bias": 0.0,
        "tau": 2.0,
    }
    with pytest.raises(EstimatorError, match="2 columns wants 5 weights, not 1"):
        Estimator(data)


def test_equal_nodes_are_computed_once_and_give_equal_numbers() -> None:
    nodes = [Node("", "Net", "model", -1, features={"flops": 1.0, "mem_bytes": 1.0})]
    nodes += [
        Node(f"l{i}", "Linear", "ml", 0, "Linear", features={"flops": 2.0, "mem_bytes": 1.0})
        for i in range(50)
    ]
    p = Estimator(estimator()).predict(ModelTree(nodes))
    assert len({n.energy_j for n in p.nodes[1:]}) == 1
    total = 0.0
    for n in p.nodes[1:]:
        total += n.energy_j
    assert p.energy_j == total


@settings(max_examples=150, deadline=None, derandomize=True)
@given(forms=strategies.forms, shape=strategies.shapes)
def test_the_trainer_computes_the_same(forms: strategies.Forms, shape: strategies.Shape) -> None:
    """Its arithmetic is vectorised numpy and shares no code with the runtime."""
    data = strategies.estimator(forms)
    model_tree = strategies.tree(
        data["features"], data["primitives"], replace(shape, childless_modules=False)
    )
    est = Estimator(data)
    for tier in data["tiers"]:
        if est._lacks(
            tier, model_tree.nodes, _kinds(model_tree.nodes, model_tree.children), est.features(model_tree)
        ):
            continue
        try:
            with np.errstate(all="ignore"):  # what is no number there is a TreeError here
                theirs = arithmetic.predict(data, [model_tree], tier)[0]
        except EstimatorError:
            with pytest.raises(TreeError):
                est.predict(model_tree, tier=tier)
            continue
        energy, high = theirs.energy_j, theirs.high_j
        try:
            p = est.predict(model_tree, tier=tier)
        except TreeError:
            # There a number that is none, or the tier below.
            assert theirs.tier != tier or not np.isfinite(np.concatenate([energy, high])).all()
            continue
        assert theirs.tier == p.tier
        mine = np.array([n.energy_j for n in p])
        # Cancellation among terms is bounded strictly in tests/export; here a slip of the formulas must show.
        scale = np.maximum(np.abs(mine), np.abs(mine).max() * 1e-3) + 1e-300
        np.testing.assert_allclose(mine / scale, energy / scale, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose([n.interval_j[1] for n in p] / scale, high / scale, rtol=1e-8, atol=1e-8)
