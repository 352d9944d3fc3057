from __future__ import annotations

import pytest

from irene_build.engines.launched import launched
from irene_build.errors import InputError
from irene_build.trace import trace_model
from irene_runtime.tree import ModelTree, loads


@pytest.fixture(scope="module")
def tree() -> ModelTree:
    return trace_model("Llama-3.2-1B", 4, 1, phase="decode", past_len=99, dtype="bfloat16", attention="sdpa")


def test_the_same_nodes_with_fewer_kernels_and_the_same_products(tree: ModelTree) -> None:
    run = launched(tree, "vllm")
    assert [n.name for n in run.nodes] == [n.name for n in tree.nodes]
    root, before = run.nodes[0].features, tree.nodes[0].features
    assert root["kernels"] == 16 * 9 + 4, "and embedding, angles, the last norm, the head"
    assert before["kernels"] > 3 * root["kernels"]
    assert root["flops"] == pytest.approx(before["matmul_flops"], rel=0.01)
    leaves = [n for n in run.nodes if n.level == "ml"]
    assert sum(n.features["flops"] for n in leaves) == pytest.approx(root["flops"])


def test_two_gpus_halve_the_products_and_add_all_reduces(tree: ModelTree) -> None:
    one, two = launched(tree, "vllm"), launched(tree, "vllm", tp=2)
    extra = two.nodes[len(one.nodes) :]
    assert [n.primitive for n in extra] == ["AllReduce"]
    assert extra[0].features["kernels"] == 32
    assert two.nodes[0].features["flops"] == pytest.approx(one.nodes[0].features["flops"] / 2, rel=0.01)
    assert len(loads(two.dumps()).nodes) == len(two.nodes)


def test_quantised_weights_are_fewer_bytes(tree: ModelTree) -> None:
    full, quarter = launched(tree, "vllm"), launched(tree, "vllm", weights="int4_wo")
    ratio = quarter.nodes[0].features["mem_bytes"] / full.nodes[0].features["mem_bytes"]
    assert 0.3 < ratio < 0.7, "the head and the embedding stay in 16 bit"


def test_an_engine_that_nobody_knows(tree: ModelTree) -> None:
    with pytest.raises(InputError, match="expected one of transformers, vllm"):
        launched(tree, "tgi")
