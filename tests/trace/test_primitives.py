"""Leaves that are no module of their own: rotary embedding, scans, gated activations, causal attention."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from irene_build.models.build import instantiate
from irene_build.models.specs import Spec
from irene_build.trace import trace
from irene_build.trace.keys import work_keys
from irene_build.trace.primitives import of_plain_function
from irene_runtime.tree import ModelTree, Node

WIDTH, LAYERS, GATED = 32, 2, 48
SMALL = {
    "vocab_size": 99, "hidden_size": WIDTH, "intermediate_size": GATED, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
}  # fmt: skip
STATES = {"vocab_size": 99, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 4}


def tiny(kind: str, device: str = "meta", attention: str = "sdpa", **settings: Any) -> Any:
    cls = getattr(transformers, kind)
    return instantiate(Spec(kind, cls, cls.config_class(**settings)), "float32", attention, device)


def leaves(tree: ModelTree, primitive: str) -> list[Node]:
    return [node for node in tree.nodes if node.level == "ml" and node.primitive == primitive]


def test_applying_rotary_embedding_is_a_leaf_of_the_attention() -> None:
    tree = trace(tiny("LlamaModel", **SMALL, num_key_value_heads=2), 3, 8)
    applied = [node for node in leaves(tree, "RotaryEmbedding") if node.type == "RotaryEmbedding"]
    assert [node.scope for node in applied] == [f"layers.{n}.self_attn" for n in range(LAYERS)]
    queries, keys = 3 * 8 * WIDTH, 3 * 8 * WIDTH // 2
    # x cos + rotate(x) sin: two products, a sum, and the sign of a half, for each value.
    assert {node.features["flops"] * 1e6 for node in applied} == {3.5 * (queries + keys)}
    assert all(node.features["matmul_flops"] == 0 for node in applied)


def test_the_functions_of_a_model_are_put_back() -> None:
    from transformers.models.llama import modeling_llama

    before = modeling_llama.apply_rotary_pos_emb
    trace(tiny("LlamaModel", **SMALL), 1, 8)
    assert modeling_llama.apply_rotary_pos_emb is before


def test_they_are_put_back_after_a_failure_too() -> None:
    module = sys.modules[__name__]
    before = apply_rotary_to_nothing
    from irene_build.errors import ModelError

    with pytest.raises(ModelError, match="RotaryEmbedding"):
        trace(Broken(), 2, 4)
    assert module.apply_rotary_to_nothing is before  # type: ignore[attr-defined]


def apply_rotary_to_nothing(x: Any) -> Any:
    return x @ x


class Broken(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return apply_rotary_to_nothing(x)

    def example_inputs(self, batch_size: int, seq_len: int) -> dict[str, Any]:
        return {"x": torch.zeros(batch_size, seq_len)}


def test_the_product_with_an_activated_gate_is_a_gated_activation() -> None:
    tree = trace(tiny("LlamaModel", **SMALL), 3, 8)
    gated = leaves(tree, "GatedActivation")
    assert [node.scope for node in gated] == [f"layers.{n}.mlp" for n in range(LAYERS)]
    assert {node.features["elements"] for node in gated} == {3.0 * 8 * GATED}
    assert {node.features["flops"] * 1e6 for node in gated} == {3.0 * 8 * GATED}
    assert len(leaves(tree, "SiLU")) == LAYERS


def test_other_products_stay_elementwise() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = torch.nn.SiLU()

        def forward(self, x: torch.Tensor) -> Any:
            y = self.act(x)
            return (y * 2.0) + (x * x) + (y * y)

        def example_inputs(self, batch_size: int, seq_len: int) -> dict[str, Any]:
            return {"x": torch.zeros(batch_size, seq_len)}

    tree = trace(Scaled(), 2, 4)
    assert not leaves(tree, "GatedActivation")
    assert len(leaves(tree, "Elementwise")) == 1


@pytest.mark.parametrize("kind", ["MambaModel", "Mamba2Model"])
def test_a_selective_scan_is_one_leaf_with_exact_products(kind: str) -> None:
    settings: dict[str, Any] = dict(STATES)
    if kind == "Mamba2Model":
        settings |= {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 4}
    model = tiny(kind, "cpu", **settings)
    tree = trace(model, 2, 8)
    scans = leaves(tree, "StateSpaceScan")
    assert [node.scope for node in scans] == [f"layers.{n}.mixer" for n in range(LAYERS)]
    assert all(node.features["kernels"] > 8 and node.features["flops"] > 0 for node in scans)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.full((2, 8), 5), use_cache=False)
    assert round(tree.nodes[0].features["matmul_flops"] * 1e6) == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("name", "primitive"),
    [
        ("apply_rotary_pos_emb", "RotaryEmbedding"), ("apply_rotary_pos_emb_vision", "RotaryEmbedding"),
        ("_apply_rotary_emb", "RotaryEmbedding"), ("apply_multidimensional_rope", "RotaryEmbedding"),
        ("mamba_selective_scan", "StateSpaceScan"), ("mamba2_chunk_scan", "StateSpaceScan"),
        ("torch_chunk_gated_delta_rule", "StateSpaceScan"), ("mamba_selective_state_update", "StateSpaceScan"),
        ("rotate_half", None), ("eager_attention_forward", None), ("mamba2_split_conv1d_scan_combined", None),
    ],
)  # fmt: skip
def test_plain_functions_are_told_by_their_names(name: str, primitive: str | None) -> None:
    found = of_plain_function(name)
    assert (found.name if found else None) == primitive


def test_causal_attention_says_so_and_is_other_work() -> None:
    model = tiny("LlamaModel", **SMALL)
    causal = trace(model, 2, 8)
    (leaf, *_) = leaves(causal, "Attention")
    assert (leaf.shapes or {})["is_causal"] is True
    both = trace(tiny("BertModel", **SMALL), 2, 8)
    assert all("is_causal" not in (node.shapes or {}) for node in leaves(both, "Attention"))
    index = causal.nodes.index(leaf)
    before = work_keys(causal)[index]
    del leaf.shapes["is_causal"]  # type: ignore[index]
    assert work_keys(causal)[index] != before


@pytest.mark.parametrize("name", ["bert-base-uncased", "distilbert-base-uncased", "gpt2", "openai-gpt"])
def test_models_of_the_paper_have_none_of_these(name: str) -> None:
    found = {node.primitive for node in trace(name, 2, 8).nodes if node.level == "ml"}
    assert not found & {"RotaryEmbedding", "StateSpaceScan", "GatedActivation", "Custom"}
