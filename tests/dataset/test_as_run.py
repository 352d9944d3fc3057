"""Modules' own kernels as transformers 4.2.2 ran them, byte for byte from its source; everything else as traced."""

from __future__ import annotations

from typing import Any

import pytest

from irene_build.dataset.as_run import as_run
from irene_build.errors import DatasetError
from irene_build.trace import trace
from irene_runtime.tree import ModelTree, Node

BATCH, LENGTH, HEADS, WIDTH = 2, 8, 2, 16
IDS, STATES = BATCH * LENGTH, BATCH * LENGTH * WIDTH
SCORES, SQUARE = BATCH * HEADS * LENGTH * LENGTH, LENGTH * LENGTH
SUMMED = ("flops", "elementwise_flops", "matmul_flops", "mem_bytes", "read_bytes", "write_bytes", "kernels")


def traced(family: str, attention: str = "eager") -> ModelTree:
    import transformers

    bert = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "intermediate_size": 32,
    }
    gpt = {"n_embd": WIDTH, "n_layer": 1, "n_head": HEADS, "n_positions": 16}
    distilbert = {"dim": WIDTH, "n_layers": 1, "n_heads": HEADS, "hidden_dim": 32}
    small: dict[str, dict[str, Any]] = {
        "Bert": bert, "Roberta": bert, "DistilBert": distilbert, "GPT2": gpt, "OpenAIGPT": gpt,
    }  # fmt: skip
    config = getattr(transformers, f"{family}Config")(
        vocab_size=50, attn_implementation=attention, **small[family]
    )
    return trace(getattr(transformers, f"{family}Model")(config), BATCH, LENGTH, attention=attention)


def own(tree: ModelTree, kind: str) -> dict[str, tuple[float, float, float, float]]:
    """Primitive -> (kernels, elements, bytes read, bytes written) of a module's own leaves."""
    index = next(i for i, node in enumerate(tree.nodes) if node.type == kind)
    return {
        str(node.primitive): (
            node.features["kernels"], node.features["elements"],
            node.features["read_bytes"] * 2**20, node.features["write_bytes"] * 2**20,
        )
        for node in tree.nodes
        if node.parent == index and node.primitive in ("Elementwise", "Copy", "Reduction")
    }  # fmt: skip


HEAD_COPIES = (4, 4 * STATES, 16 * STATES, 16 * STATES)
RAN = [
    ("Bert", "BertSelfAttention", {
        "Elementwise": (2, 2 * SCORES, 8 * SCORES + 4 * IDS, 8 * SCORES), "Copy": HEAD_COPIES,
    }),
    ("Roberta", "RobertaSelfAttention", {
        "Elementwise": (2, 2 * SCORES, 8 * SCORES + 4 * IDS, 8 * SCORES), "Copy": HEAD_COPIES,
    }),
    ("Bert", "BertModel", {
        "Elementwise": (2, 2 * IDS, 8 * IDS, 8 * IDS), "Copy": (1, IDS, 0, 4 * IDS),
    }),
    ("DistilBert", "DistilBertSelfAttention", {
        "Elementwise": (3, STATES + IDS + SCORES, 4 * STATES + 5 * IDS + 4 * SCORES, 4 * STATES + IDS + 4 * SCORES),
        "Copy": HEAD_COPIES,
    }),
    ("GPT2", "GPT2Attention", {
        "Elementwise": (2, 2 * SCORES, 8 * SCORES + SQUARE, 8 * SCORES),
        "Copy": (7, SQUARE + 6 * STATES, SQUARE + 24 * STATES, SQUARE + 24 * STATES),
    }),
    ("GPT2", "GPT2Model", {
        "Elementwise": (1, STATES, 4 * STATES + 4 * LENGTH * WIDTH, 4 * STATES), "Copy": (1, LENGTH, 0, 8 * LENGTH),
    }),
    ("OpenAIGPT", "Attention", {
        "Elementwise": (
            5, 3 * SCORES + 2 * SQUARE, 12 * SCORES + 16 * SQUARE, 12 * SCORES + 8 * SQUARE,
        ),
        "Copy": HEAD_COPIES,
    }),
]  # fmt: skip


@pytest.mark.parametrize(("family", "kind", "expected"), RAN, ids=[kind for _, kind, _ in RAN])
def test_a_module_ran_what_its_source_said(family: str, kind: str, expected: dict[str, Any]) -> None:
    found = own(as_run(traced(family)), kind)
    assert found.keys() == expected.keys()
    for primitive, numbers in expected.items():
        assert found[primitive] == pytest.approx(numbers)


@pytest.mark.parametrize("family", ["Bert", "DistilBert", "GPT2", "OpenAIGPT"])
def test_the_published_nodes_stay_and_sums_add_up(family: str) -> None:
    before = traced(family)
    after = as_run(before)
    rows = [
        [
            (n.scope, n.type, n.level, n.call)
            for n in tree.nodes
            if n.primitive not in ("Elementwise", "Copy", "Reduction")
        ]
        for tree in (before, after)
    ]
    assert rows[0] == rows[1]
    assert after.nodes[0].features["matmul_flops"] == before.nodes[0].features["matmul_flops"]
    for index, node in enumerate(after.nodes):
        children = [child for child in after.nodes if child.parent == index]
        for name in SUMMED if children else ():
            assert node.features[name] == pytest.approx(sum(child.features[name] for child in children))


def test_the_traced_tree_stays_as_it_was() -> None:
    before = traced("GPT2")
    text = before.dumps()
    as_run(before)
    assert before.dumps() == text


def test_products_are_of_contiguous_matrices_alone() -> None:
    products = [node for node in as_run(traced("Bert")).nodes if node.primitive == "MatMul"]
    for node in products:
        f = node.features
        m, n, k = (f[name] for name in ("gemm_m", "gemm_n", "gemm_k"))
        assert f["kernels"] == 1.0
        assert f["mem_bytes"] * 2**20 == pytest.approx(4 * f["gemm_batch"] * (m * k + k * n + m * n))


def test_fused_attention_is_refused() -> None:
    with pytest.raises(DatasetError, match="eager attention"):
        as_run(traced("Bert", "sdpa"))


def test_an_architecture_that_is_not_among_them_stays_as_it_is() -> None:
    tree = ModelTree(
        [Node("", "Other", "model", -1, None, 0, {"flops": 1.0})], {"batch_size": 1, "seq_len": 1}
    )
    assert as_run(tree).dumps() == tree.dumps()
