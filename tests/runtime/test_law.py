"""The physical law of a device: it never falls with work, its parts add up, and numpy says the same."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.hardware.datasheets import datasheet
from irene_build.train.law.evaluate import runs, spent
from irene_build.train.law.fit import from_datasheet
from irene_runtime.law import Law
from irene_runtime.tree import ModelTree, Node

DEVICES = ("A10", "A100", "RTX 4090", "M1 Pro", "B200")
_SIZE = st.floats(1.0, 1e5)
_AMOUNT = st.floats(0.0, 1e6)


@st.composite
def leaves(draw):
    """A leaf's features: a product (FLOPs by its shape), or bytes and operations alone."""
    features = {
        "read_bytes": draw(_AMOUNT), "write_bytes": draw(_AMOUNT), "weight_bytes": draw(_AMOUNT),
        "elementwise_flops": draw(_AMOUNT), "matmul_flops": 0.0, "kernels": float(draw(st.integers(1, 9))),
    }  # fmt: skip
    if draw(st.booleans()):
        shape = {f"gemm_{axis}": draw(_SIZE) for axis in ("batch", "m", "n", "k")}
        features.update(shape, matmul_flops=2e-6 * math.prod(shape.values()))
    return features


def tree_of(*features, dtype="float16", **header):
    nodes = [Node("", "Net", "model", -1)]
    nodes += [Node(f"n{i}", "Linear", "ml", 0, "Linear", 0, dict(f)) for i, f in enumerate(features)]
    return ModelTree(nodes, {"dtype": dtype, "batch_size": 1, "seq_len": 1, **header})


def law_of(device):
    return Law(from_datasheet(datasheet(device)))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(leaves(), st.sampled_from(DEVICES), st.sampled_from(["float32", "bfloat16"]), st.integers(0, 9))
def test_more_of_anything_never_takes_less_time_or_energy(features, device, dtype, which):
    law = law_of(device)
    under = law.conditions({"dtype": dtype})
    name = sorted(set(features) - {"kernels"})[which % (len(features) - 1)]
    more = {**features, name: 1.7 * features[name] + 1.0}
    if "gemm_m" in more:
        more["matmul_flops"] = max(
            more["matmul_flops"], 2e-6 * math.prod(more[f"gemm_{a}"] for a in ("batch", "m", "n", "k"))
        )
    less, grown = law.leaf("Linear", features, under), law.leaf("Linear", more, under)
    assert grown.time_s >= less.time_s * (1.0 - 1e-12)
    assert grown.energy_j >= less.energy_j * (1.0 - 1e-12)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(leaves(), st.sampled_from(DEVICES), st.sampled_from(["float32", "bfloat16"]))
def test_half_of_every_feature_never_costs_more(features, device, dtype):
    law = law_of(device)
    whole, half = (
        tree_of(features, dtype=dtype),
        tree_of({k: v / 2.0 for k, v in features.items()}, dtype=dtype),
    )
    a, b = (law.nodes(Law.with_host(tree))[0] for tree in (whole, half))
    assert b.energy_j <= a.energy_j * (1.0 + 1e-12)
    assert b.time_s <= a.time_s * (1.0 + 1e-12)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(leaves(), min_size=1, max_size=5), st.sampled_from(DEVICES))
def test_parts_add_up_and_the_twin_in_numpy_agrees(features, device):
    data = from_datasheet(datasheet(device))
    tree = Law.with_host(tree_of(*features))
    nodes = Law(data).nodes(tree)
    assert nodes[0].energy_j == pytest.approx(sum(node.energy_j for node in nodes[1:]), rel=1e-12)
    twin = spent(data, runs([tree]))
    assert twin.pass_j[0] == pytest.approx(nodes[0].energy_j, rel=1e-9)
    assert twin.pass_s[0] == pytest.approx(nodes[0].time_s, rel=1e-9)


def test_a_board_never_draws_more_than_its_limit():
    gemm = {"matmul_flops": 2e-6 * 8192.0**3, "kernels": 1.0, "gemm_batch": 1.0} | {
        f"gemm_{a}": 8192.0 for a in "mnk"
    }
    for device in DEVICES:
        law = law_of(device)
        for limit in (0.5 * law.limit_w, law.limit_w):
            spent_ = law.leaf("Linear", gemm, law.conditions({"dtype": "float16", "power_limit_w": limit}))
            assert spent_.energy_j / spent_.time_s <= limit * 1.001


def test_a_lower_clock_takes_longer_and_a_lower_limit_too():
    law = law_of("A100")
    gemm = {"matmul_flops": 2e-6 * 4096.0**3, "kernels": 1.0, "gemm_batch": 1.0} | {
        f"gemm_{a}": 4096.0 for a in "mnk"
    }

    def run(**header):
        return law.leaf("Linear", gemm, law.conditions({"dtype": "float16", **header}))

    assert run(clock_mhz=700).time_s > 1.5 * run(clock_mhz=1400).time_s
    assert run(clock_mhz=700).energy_j < run(clock_mhz=1400).energy_j
    assert run(power_limit_w=150).time_s > run().time_s


def test_small_launches_wait_for_the_host():
    tree = Law.with_host(tree_of(*[{"read_bytes": 0.01, "kernels": 1.0}] * 200))
    nodes = law_of("A100").nodes(tree)
    host = nodes[-1]
    assert tree.nodes[-1].primitive == "Host"
    assert host.time_s > 0.5 * nodes[0].time_s
    assert np.isclose(nodes[0].time_s, sum(node.time_s for node in nodes[1:]))
