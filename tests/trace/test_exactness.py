"""Counts against code that shares nothing with the tracer: FlopCounterMode, and an operator log of our own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from irene_build.models import build
from irene_build.models.build import instantiate
from irene_build.models.specs import Spec
from irene_build.trace import conditions, tracer
from irene_build.trace.assemble import Assembler
from irene_build.trace.inputs import prepare
from irene_build.trace.recorder import Recorder
from irene_build.trace.shadow import Shadows
from irene_build.trace.unwrap import as_if_on_cpu

EAGER = [
    "bert_uncased_L-2_H-128_A-2", "distilgpt2", "distilbert-base-uncased", "openai-gpt", "t5-small", "bart-base",
    "whisper-tiny", "vit-base-patch16-224", "clip-vit-base-patch32", "convnext-tiny-224", "wav2vec2-base",
    "SmolLM2-135M", "albert-base-v2",
]  # fmt: skip


@pytest.mark.parametrize("name", EAGER)
def test_matrix_flops_equal_those_of_flop_counter_mode(name: str) -> None:
    module = build(name, attention="eager")
    run = tracer.Pass(2, 16, attention="eager")
    tree, _ = tracer.record(module, name, run)
    shadows = Shadows()
    with torch.no_grad(), shadows.following():
        inputs = prepare(module, run, "meta", shadows)
        with FlopCounterMode(display=False) as counter:
            module(**inputs)
    assert round(tree.nodes[0].features["matmul_flops"] * 1e6) == counter.get_total_flops() > 0


class OperatorLog(TorchDispatchMode):
    """(operator, innermost module) of everything that fills new memory, by hooks and a mode of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []
        self._open: list[str] = []
        for scope, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, scope=scope: self._open.append(scope))
            module.register_forward_hook(lambda *_: self._open.pop() and None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        flat = [a for part in args for a in (part if isinstance(part, (list, tuple)) else [part])]
        held = {a.untyped_storage().data_ptr() for a in flat if isinstance(a, torch.Tensor)}
        made = [t for t in (result if isinstance(result, (tuple, list)) else [result]) if torch.is_tensor(t)]
        view = (
            made
            and all(t.untyped_storage().data_ptr() in held for t in made)
            and not func._schema.name.endswith("_")
        )
        if (
            self._open
            and not view
            and not func._schema.name.startswith(("aten::empty", "aten::new_empty", "prim::"))
        ):
            self.seen.append((func._schema.name.partition("::")[2], self._open[-1]))
        return result


def _tiny(kind: str, **settings: Any) -> Any:
    cls = getattr(transformers, kind)
    return instantiate(Spec(kind, cls, cls.config_class(**settings)), "float32", "sdpa", "cpu")


_SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
MODELS = {
    "bert": ("BertModel", _SMALL),
    "llama": ("LlamaForCausalLM", {**_SMALL, "num_key_value_heads": 2}),
    "gpt2": ("GPT2Model", {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "t5": ("T5Model", {"vocab_size": 99, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4}),
    "albert": ("AlbertModel", {**_SMALL, "embedding_size": 16}),
    "vit": ("ViTModel", {**_SMALL, "image_size": 32, "patch_size": 8}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {
        **_SMALL, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "head_dim": 8,
    }),
    "mamba": ("MambaModel", {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "convnext": ("ConvNextModel", {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "image_size": 64}),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_operation_lies_in_exactly_one_leaf_of_the_module_that_ran_it(name: str) -> None:
    model = _tiny(*MODELS[name][:1], **MODELS[name][1])
    run = tracer.Pass(2, 8, rung="real")
    with torch.no_grad():
        inputs = prepare(model, run, "cpu", None)
        log = OperatorLog(model)
        recorder = Recorder(model, audit=True)
        with ExitStack() as stack:
            stack.enter_context(log)
            stack.enter_context(recorder)
            model(**inputs)
    assembler = Assembler({"batch_size": 2, "seq_len": 8}, recorder.sizes)
    assert recorder.root is not None
    tree = assembler.tree(recorder.root)
    assert [op for op, _, _ in recorder.owners] == [op for op, _ in log.seen]
    assert len(log.seen) > 10
    for (_, sequence, own), (_, scope) in zip(recorder.owners, log.seen, strict=True):
        leaf = tree.nodes[assembler.positions[sequence, own]]
        assert leaf.level == "ml"
        assert leaf.scope == scope or scope.startswith(f"{leaf.scope}.")


def _comparable(tree: Any) -> list[Any]:
    return [node.to_json() for node in tree.nodes]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "t5", "albert", "vit", "mamba", "convnext"])
def test_meta_and_a_real_cpu_give_identical_trees(name: str, attention: str) -> None:
    kind, settings = MODELS[name]
    cls = getattr(transformers, kind)
    spec = Spec(name, cls, cls.config_class(**settings))
    run = tracer.Pass(2, 8, attention=attention)
    meta, _ = tracer.record(instantiate(spec, "float32", attention, "meta"), name, run)
    real, _ = tracer.record(instantiate(spec, "float32", attention, "cpu"), name, replace(run, rung="real"))
    assert _comparable(meta) == _comparable(real)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "t5", "albert", "vit"])
def test_fake_tensors_give_the_same_tree(name: str, attention: str) -> None:
    # Not llama, gpt2 and mamba: transformers takes fake tensors for an export, and hands SDPA a mask there
    # instead of is_causal.
    kind, settings = MODELS[name]
    cls = getattr(transformers, kind)
    spec = Spec(name, cls, cls.config_class(**settings))
    run = tracer.Pass(2, 8, attention=attention)
    meta, _ = tracer.record(instantiate(spec, "float32", attention, "meta"), name, run)
    empty = instantiate(spec, "float32", attention, "meta")
    with conditions.fake_mode():
        fake, _ = tracer.record(as_if_on_cpu(empty), name, replace(run, rung="fake"))
    assert _comparable(meta) == _comparable(fake)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_inference_mode_inside_a_model_changes_nothing(device: str) -> None:
    kind, settings = MODELS["bert"]
    cls = getattr(transformers, kind)
    model = instantiate(Spec(kind, cls, cls.config_class(**settings)), "float32", "eager", device)
    run = tracer.Pass(2, 8, attention="eager", rung="meta" if device == "meta" else "real")
    before, _ = tracer.record(model, "bert", run)
    # Operations that autograd takes apart reach a dispatch mode whole there.
    model.forward = torch.inference_mode()(model.forward)
    after, _ = tracer.record(model, "bert", run)
    assert before.nodes[0].features["matmul_flops"] > 0
    assert _comparable(before) == _comparable(after)
