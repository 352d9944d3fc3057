"""What vLLM launches for a traced model: fused products, divided heads, shares that add up."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from irene_build.engines.stack import Layout, Stack, stack_of, trace_for
from irene_runtime.tree import ModelTree

_ONE = Layout()


@cache
def _tree(model: str) -> ModelTree:
    return trace_for(model)


def _stack(model: str, layout: Layout = _ONE) -> Stack:
    return stack_of(_tree(model), layout)


def test_one_product_for_q_k_v_and_one_for_gate_and_up() -> None:
    products = {x.shape: x.count for x in _stack("Llama-3.2-1B").launches if x.kind == "gemm"}
    assert products == {
        (3072.0, 2048.0): 16,  # q, k, v
        (2048.0, 2048.0): 16,  # o
        (16384.0, 2048.0): 16,  # gate, up
        (2048.0, 8192.0): 16,  # down
        (128256.0, 2048.0): 1,  # lm_head
    }


def test_every_share_of_a_launch_adds_up_and_names_a_leaf() -> None:
    stack = _stack("Llama-3.2-1B", Layout(gpus=2))
    for launch in stack.launches:
        assert sum(share for _, share in launch.members) == pytest.approx(launch.count)
        assert all(stack.tree.nodes[node].level == "ml" for node, _ in launch.members)


def test_windows_and_grouped_heads_show() -> None:
    layers = {x.shape: x.count for x in _stack("gemma-3-1b").launches if x.kind == "attention"}
    assert layers == {(4.0, 1.0, 256.0, 512.0): 22, (4.0, 1.0, 256.0, 0.0): 4}


def test_over_gpus_products_and_heads_are_divided_and_all_reduces_come() -> None:
    stack = _stack("Llama-3.2-1B", Layout(gpus=4))
    kinds = Counter()
    for launch in stack.launches:
        kinds[launch.kind] += launch.count
    assert kinds["all_reduce"] == 32, "after o and after down of 16 layers"
    assert {x.shape for x in stack.launches if x.kind == "gemm"} >= {(768.0, 2048.0), (2048.0, 512.0)}
    (attention,) = (x for x in stack.launches if x.kind == "attention")
    assert attention.shape[:2] == (8.0, 2.0)


def test_quantised_weights_leave_the_head_and_the_router_in_16_bit() -> None:
    stack = _stack("gpt-oss-20b", Layout(gpus=2, ep=2, weights="mxfp4"))
    (experts,) = (x for x in stack.launches if x.kind == "experts")
    assert experts.dtype == "mxfp4"
    assert experts.shape[:6] == (2880.0, 2880.0, 4.0, 32.0, 1.0, 2.0)
    assert {x.dtype for x in stack.launches if x.kind == "gemm"} == {"bfloat16"}, (
        "gpt-oss quantises experts alone"
    )


def test_a_step_has_rows_of_all_tokens_and_logits_of_sequences() -> None:
    stack = _stack("Llama-3.2-1B")
    rows = {
        shape[1:]: shape[0] for _, kind, _, shape in stack.at(4, 100, 100, prefill=True) if kind == "gemm"
    }
    assert rows[3072.0, 2048.0] == 400
    assert rows[128256.0, 2048.0] == 4
