"""A step over requests of different lengths: what it is, and what each request has of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_runtime.errors import InputError, TreeError
from irene_runtime.ragged import Step
from tests.runtime.generating import estimator, tree

_REQUEST = st.one_of(
    st.tuples(st.integers(1, 300), st.just(0)),
    st.tuples(st.just(1), st.integers(1, 600)),
    st.tuples(st.integers(2, 200), st.integers(1, 400)),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(_REQUEST, min_size=1, max_size=9))
def test_shares_add_up_to_the_step(requests: list[tuple[int, int]]) -> None:
    p = estimator().predict(tree(), requests=requests)
    assert len(p.shares_j) == len(requests)
    assert all(share > 0.0 for share in p.shares_j)
    assert sum(p.shares_j) == pytest.approx(p.energy_j, rel=1e-12)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(_REQUEST, st.integers(1, 9))
def test_equal_requests_are_the_rectangular_tree(request_: tuple[int, int], count: int) -> None:
    tokens, cached = request_
    step = Step(tree(), [request_] * count).tree
    phase = "prefill" if not cached else "decode" if tokens == 1 else "extend"
    rectangle = tree().at(count, tokens, cached, phase)
    assert [(n.scope, n.type, n.call, n.features) for n in step.nodes] == [
        (n.scope, n.type, n.call, n.features) for n in rectangle.nodes
    ]
    p = estimator().predict(tree(), requests=[request_] * count)
    assert p.shares_j == pytest.approx([p.energy_j / count] * count, rel=1e-12)


def test_what_requests_add_is_summed_and_weights_count_once() -> None:
    requests = [(40, 0), (7, 0), (1, 100), (1, 33), (16, 64)]
    step = Step(tree(), requests).tree.nodes[0].features
    alone = [Step(tree(), [r]).tree.nodes[0].features for r in requests]
    heads = 97 * 64 * 2 / 1e6  # of the last token of each
    assert step["matmul_flops"] == pytest.approx(sum(f["matmul_flops"] for f in alone), rel=1e-12)
    assert step["matmul_flops"] > 5 * heads
    assert step["weight_bytes"] < 1.2 * max(f["weight_bytes"] for f in alone)


def test_products_have_a_row_a_token_and_attention_the_mean_of_its_keys() -> None:
    nodes = Step(tree(), [(3, 10), (5, 20)]).tree.nodes
    linear = next(n for n in nodes if n.scope.endswith("q_proj"))
    attention = next(n for n in nodes if n.primitive == "Attention")
    assert linear.features["gemm_m"] == 8.0
    assert attention.features["gemm_batch"] == 2 * 4
    assert attention.features["gemm_m"] == 4.0
    assert attention.features["gemm_n"] == pytest.approx((3 * 13 + 5 * 25) / 8)


def test_more_work_has_a_larger_share() -> None:
    p = estimator().predict(tree(), requests=[(1, 10), (1, 3000), (50, 0)])
    assert p.shares_j[0] < p.shares_j[1] < p.shares_j[2]
    assert p.tree.header["phase"] == "prefill+decode"


@pytest.mark.parametrize(
    ("requests", "error", "message"),
    [
        ([], InputError, "expected a list"),
        ([(0, 3)], InputError, "request 0 is"),
        ([(1, 3), (2, -1)], InputError, "request 1 is"),
        ([(1.0, 3)], InputError, "request 0 is"),
        ([(4000, 200)], TreeError, "4096 positions: 4000 tokens behind 200 cached ones do not fit"),
    ],
)
def test_wrong_requests(requests: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        estimator().predict(tree(), requests=requests)


def test_requests_have_their_own_sizes() -> None:
    with pytest.raises(InputError, match="their own sizes"):
        estimator().predict(tree(), requests=[(1, 3)], batch_size=2)
    with pytest.raises(InputError, match="for symbolic trees"):
        estimator().predict(tree().at(2, 8), requests=[(1, 3)])
