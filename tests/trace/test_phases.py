"""Prefill and decode with a cache, weight sizes, mixtures of experts, shared weights, wrapped modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from irene_build.errors import ModelError
from irene_build.models.build import instantiate
from irene_build.models.specs import Spec
from irene_build.trace import trace
from irene_runtime.tree import ModelTree

WIDTH, HEADS, LAYERS, VOCABULARY, HIDDEN = 32, 4, 2, 99, 64
_SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": 2,
}  # fmt: skip


def llama(dtype: str = "float32", **settings: Any) -> Any:
    kind = transformers.LlamaForCausalLM
    return instantiate(
        Spec("llama", kind, kind.config_class(**{**_SMALL, **settings})), dtype, "sdpa", "meta"
    )


def _on_meta(kind: Any, config: Any) -> Any:
    return instantiate(Spec(kind.__name__, kind, config), "float32", "sdpa", "meta")


def matrices() -> int:
    """Parameters of the matrices that each token passes: projections of every layer, and the head."""
    narrow = WIDTH // HEADS * 2
    return LAYERS * (2 * WIDTH * WIDTH + 2 * WIDTH * narrow + 3 * WIDTH * HIDDEN) + WIDTH * VOCABULARY


@pytest.mark.parametrize("past", [5, 40])
def test_decode_runs_one_token_against_the_whole_cache(past: int) -> None:
    tree = trace(llama(), 3, phase="decode", past_len=past)
    assert (tree.header["seq_len"], tree.header["past_len"], tree.header["phase"]) == (1, past, "decode")
    attention = 2 * 2 * (past + 1) * WIDTH * LAYERS
    assert round(tree.nodes[0].features["matmul_flops"] * 1e6) == 3 * (2 * matrices() + attention)


def test_prefill_is_forward_and_filling_the_cache() -> None:
    forward, prefill = trace(llama(), 2, 16), trace(llama(), 2, 16, "prefill", all_logits=True)
    assert prefill.nodes[0].features["matmul_flops"] == forward.nodes[0].features["matmul_flops"]
    cached = 2 * LAYERS * 2 * 16 * (WIDTH // HEADS * 2) * 4
    assert _copied(prefill) - _copied(forward) == pytest.approx(cached)


def _copied(tree: ModelTree) -> float:
    """Bytes that the attention modules write into copies."""
    leaves = [n for n in tree.nodes if n.primitive == "Copy" and n.scope.endswith("self_attn")]
    return sum(n.features["write_bytes"] for n in leaves) * 2**20


def test_encoder_decoders_decode_without_their_encoder() -> None:
    kind = transformers.T5ForConditionalGeneration
    config = kind.config_class(vocab_size=99, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4)
    tree = trace(instantiate(Spec("t5", kind, config), "float32", "sdpa", "meta"), 1, 8, phase="decode")
    assert not any(node.scope.startswith("encoder") for node in tree.nodes)
    assert any(node.scope.startswith("decoder") for node in tree.nodes)


def test_a_cache_that_is_asked_for_among_keyword_arguments() -> None:
    kind = transformers.GraniteMoeForCausalLM
    config = kind.config_class(**_SMALL, num_local_experts=4, num_experts_per_tok=2)
    module = instantiate(Spec("granitemoe", kind, config), "float32", "sdpa", "meta")
    forward, prefill = (trace(module, 1, 8, phase=phase) for phase in ("forward", "prefill"))
    assert _copied(prefill) - _copied(forward) == pytest.approx(2 * LAYERS * 8 * (WIDTH // HEADS * 2) * 4)
    (keys, *_) = [
        n.shapes["in"][1] for n in trace(module, 1, 8, phase="decode").nodes if n.primitive == "Attention"
    ]
    assert keys.startswith(("1x2x9x8:", "1x4x9x8:"))


def test_models_of_sound_are_not_told_about_caches() -> None:
    kind = transformers.MimiEncoderModel
    config = kind.config_class(
        hidden_size=16, num_filters=4, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        intermediate_size=16, upsampling_ratios=[4, 2], codebook_dim=8, vector_quantization_hidden_dimension=8,
    )  # fmt: skip
    from irene_build.trace.inputs import caches

    assert not caches(_on_meta(kind, config))
    assert caches(llama())


@pytest.mark.parametrize("model", ["bert_uncased_L-2_H-128_A-2", "vit-base-patch16-224"])
def test_models_without_a_cache_have_no_decode(model: str) -> None:
    with pytest.raises(ModelError, match="cache"):
        trace(model, 1, 8, phase="decode")


def _weights(tree: ModelTree) -> float:
    return tree.nodes[0].features["weight_bytes"] * 2**20


def test_bytes_follow_the_dtype() -> None:
    full, half = trace(llama(), 1, 8), trace(llama("bfloat16"), 1, 8)
    assert _weights(half) == pytest.approx(_weights(full) / 2, abs=1e-6)
    assert full.header["dtype"] == "float32" and half.header["dtype"] == "bfloat16"


def test_quantised_weights_count_their_values_and_scales() -> None:
    full = trace(llama("bfloat16"), 1, 8)
    linear = sum(n.features["weight_bytes"] for n in full.nodes if n.primitive == "Linear") * 2**20
    rest = _weights(full) - linear
    rows = LAYERS * (2 * WIDTH + 2 * 16 + 2 * HIDDEN + WIDTH)
    head = VOCABULARY * WIDTH
    stored = matrices() - head

    def read(weights: str, **more: Any) -> float:
        return _weights(trace(llama("bfloat16"), 1, 8, weights=weights, **more)) - rest

    # The head stays as it is, unless it is asked for; rows are shorter than a group.
    assert read("int8") == pytest.approx(stored + 4 * rows + 2 * head)
    assert read("int8", quantise_head=True) == pytest.approx(matrices() + 4 * (rows + VOCABULARY))
    assert read("int4") == pytest.approx(stored / 2 + 2 * rows + 2 * head)
    assert read("nf4") == pytest.approx(stored / 2 + 4 * rows + 2 * head)


def test_experts_that_are_products_of_batches_are_quantised_too() -> None:
    kind = transformers.Llama4ForCausalLM
    config = kind.config_class(
        **_SMALL,
        intermediate_size_mlp=HIDDEN,
        num_local_experts=4,
        moe_layers=[0, 1],
        head_dim=8,
        pad_token_id=0,
    )
    spec = Spec("llama4", kind, config)
    experts = []
    for weights in (None, "int8"):
        tree = trace(instantiate(spec, "bfloat16", "sdpa", "meta"), 1, 4, weights=weights)
        products = [n for n in tree.nodes if n.primitive == "MatMul" and n.scope.endswith("experts")]
        experts.append(sum(n.features["weight_bytes"] for n in products) * 2**20)
    values, rows = LAYERS * 4 * 3 * WIDTH * HIDDEN, LAYERS * 4 * (WIDTH + HIDDEN)
    assert experts == [2 * values, values + 4 * rows]


@pytest.mark.parametrize("tokens", [1, 3, 64])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_mixture_reads_the_experts_that_are_expected_to_be_chosen(tokens: int, dtype: str) -> None:
    kind = transformers.MixtralForCausalLM
    config = kind.config_class(**_SMALL, num_local_experts=8, num_experts_per_tok=2)
    tree = trace(instantiate(Spec("mixtral", kind, config), dtype, "sdpa", "meta"), 1, tokens)
    assert tree.header["traced_by"]["tensors"] == "meta"
    experts = [n for n in tree.nodes if n.primitive == "GroupedExperts"]
    assert len(experts) == LAYERS
    size = 4 if dtype == "float32" else 2
    one = 3 * WIDTH * HIDDEN * size
    distinct = 8 * (1 - (1 - 2 / 8) ** tokens)
    for node in experts:
        assert node.features["weight_bytes"] * 2**20 == pytest.approx(one * distinct)
        assert node.features["matmul_flops"] * 1e6 == pytest.approx(2 * tokens * 2 * 3 * WIDTH * HIDDEN)


def test_a_layer_called_several_times_is_several_nodes_and_one_set_of_parameters() -> None:
    kind = transformers.AlbertModel
    config = kind.config_class(
        vocab_size=99, embedding_size=16, hidden_size=32, num_attention_heads=4, intermediate_size=64,
        num_hidden_layers=3,
    )  # fmt: skip
    module = instantiate(Spec("albert", kind, config), "float32", "sdpa", "meta")
    tree = trace(module, 1, 8)
    layers = [n for n in tree.nodes if n.type == "AlbertLayer"]
    assert [n.call for n in layers] == [0, 1, 2]
    assert len({n.scope for n in layers}) == 1
    assert tree.nodes[0].features["num_parameters"] == sum(p.numel() for p in module.parameters())


class _Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(10, 4)
        self.head = torch.nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(input_ids))


def test_tied_weights_count_once() -> None:
    tree = trace(_Tied(), 1, 3)
    assert tree.nodes[0].features["num_parameters"] == 40
    assert [n.features["num_parameters"] for n in tree.nodes[1:]] == [40, 40]
    assert tree.header["traced_by"]["executed_parameters"] == 1.0


def test_a_users_module_keeps_its_weights_mode_and_hooks() -> None:
    module = _Tied().train()
    before = module.embed.weight.clone()
    trace(module, 1, 3)
    assert module.training and module.embed.weight.device.type == "cpu"
    assert torch.equal(module.embed.weight, before)
    assert not module.embed._forward_hooks and not module.embed._forward_pre_hooks


def test_compiled_modules_are_unwrapped_and_scripted_ones_refused() -> None:
    plain = trace(_Tied(), 1, 3)
    compiled = trace(torch.compile(_Tied()), 1, 3)
    assert [n.to_json() for n in compiled.nodes] == [n.to_json() for n in plain.nodes]
    with pytest.warns(DeprecationWarning):
        scripted = torch.jit.script(_Tied())
    with pytest.raises(ModelError, match=r"TorchScript.*pass the nn.Module"):
        trace(scripted, 1, 3)


def test_exported_programs_are_refused_with_what_to_pass_instead() -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    with pytest.raises(
        ModelError,
        match=r"ExportedProgram.* expected a torch.nn.Module.*pass the nn.Module that it was exported from",
    ):
        trace(program, 1, 3)


class _TwoTowers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text = torch.nn.Linear(4, 4)
        self.vision = torch.nn.Sequential(torch.nn.Linear(9, 9), torch.nn.Linear(9, 4))

    def forward(self, x: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
        y = self.text(x)
        return y if image is None else y + self.vision(image)


def test_what_a_run_left_out_is_said_and_which_input_would_reach_it() -> None:
    by = trace(_TwoTowers(), 1, 1, inputs=lambda *_: {"x": torch.zeros(1, 4)}).header["traced_by"]
    assert by["executed_parameters"] == round(20 / 150, 6)
    assert (by["left_out"], by["inputs_not_given"]) == (["vision"], ["image"])
    both = {"x": torch.zeros(1, 4), "image": torch.zeros(1, 9)}
    by = trace(_TwoTowers(), 1, 1, inputs=lambda *_: both).header["traced_by"]
    assert by["executed_parameters"] == 1.0 and "left_out" not in by


def test_unknown_operations_become_custom_leaves_with_bytes() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.cholesky_ex(x)[0]

    tree = trace(Odd(), 1, 1, inputs=lambda *_: {"x": torch.zeros(6, 6)})
    leaf = tree.nodes[1]
    assert (leaf.primitive, leaf.features["kernels"]) == ("Custom", 1)
    assert leaf.features["read_bytes"] * 2**20 == 6 * 6 * 4
