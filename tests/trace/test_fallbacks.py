"""Meta, fake and real CPU tensors give the same tree, node for node: every scope, type, shape, layout and feature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import transformers

from irene_build.errors import ModelError
from irene_build.models.build import instantiate
from irene_build.models.specs import Spec
from irene_build.trace import fallbacks, trace, tracer
from irene_build.trace.request import Pass

_TEXT = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
_GROUPED = {**_TEXT, "num_key_value_heads": 2}
_IMAGE = {**{k: v for k, v in _TEXT.items() if k != "vocab_size"}, "image_size": 32, "patch_size": 8}
_SMALL_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_AUDIO = {
    "vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_mel_bins": 8,
    "max_source_positions": 20, "decoder_start_token_id": 3, **_SMALL_IDS,
}  # fmt: skip
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertModel", _TEXT),
    "deberta": ("DebertaModel", {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "modernbert": ("ModernBertModel", {
        **_TEXT, **_SMALL_IDS, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 4,
    }),
    "longformer": ("LongformerModel", {**_TEXT, "attention_window": [4, 4], "max_position_embeddings": 70}),
    "vit": ("ViTModel", _IMAGE),
    "clip": ("CLIPModel", {
        "text_config": {**_TEXT, **_SMALL_IDS}, "vision_config": _IMAGE, "projection_dim": 16,
    }),
    "videomae": ("VideoMAEModel", {**_IMAGE, "num_frames": 4}),
    "vit_mae": ("ViTMAEModel", _IMAGE),
    "encodec": ("EncodecModel", {"num_filters": 4, "hidden_size": 8, "codebook_dim": 8, "num_lstm_layers": 1}),
}  # fmt: skip
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "llama": ("LlamaForCausalLM", _GROUPED),
    "mixtral": ("MixtralForCausalLM", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma3": ("Gemma3ForCausalLM", {
        **_GROUPED, **_SMALL_IDS, "head_dim": 8, "sliding_window": 4, "sliding_window_pattern": 2,
    }),
    "mamba": ("MambaForCausalLM", {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "t5": ("T5ForConditionalGeneration", {
        "vocab_size": 99, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4,
    }),
    "whisper": ("WhisperForConditionalGeneration", _AUDIO),
}  # fmt: skip


def spec_of(name: str) -> Spec:
    kind, settings = {**ENCODERS, **DECODERS}[name]
    cls = getattr(transformers, kind)
    return Spec(name, cls, cls.config_class(**settings))


def nodes(tree: Any) -> list[Any]:
    return [node.to_json() for node in tree.nodes]


def on_meta(spec: Spec, run: Pass) -> Any:
    try:
        return tracer.record(instantiate(spec, run.dtype, run.attention, "meta"), spec.name, run)[0]
    except ModelError:
        return fallbacks.with_buffers(spec, spec.name, run)


def assert_one_tree(name: str, run: Pass) -> None:
    spec = spec_of(name)
    variant = _first_that_runs(spec, run)
    run = replace(run, variant=variant)
    meta = nodes(on_meta(spec, run))
    assert meta == nodes(fallbacks.on_fake(spec, name, run))
    real = instantiate(spec, run.dtype, run.attention, "cpu")
    assert meta == nodes(tracer.record(real, name, replace(run, tensors="cpu"))[0])


def _first_that_runs(spec: Spec, run: Pass) -> int:
    for variant in range(tracer.variants(instantiate(spec, run.dtype, run.attention, "meta"), run)):
        try:
            on_meta(spec, replace(run, variant=variant))
        except ModelError:
            continue
        return variant
    raise AssertionError(f"{spec.name}: no variant of inputs runs")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_forward_pass(name: str, attention: str) -> None:
    assert_one_tree(name, Pass(2, 8, attention=attention).checked())


@pytest.mark.parametrize("phase", ["forward", "prefill", "decode"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_step_of_generation(name: str, attention: str, phase: str) -> None:
    assert_one_tree(name, Pass(2, 8, phase, attention=attention).checked())


def test_bfloat16() -> None:
    assert_one_tree("llama", Pass(2, 8, dtype="bfloat16").checked())


def test_what_a_model_keeps_between_calls_is_computed_in_every_pass() -> None:
    cls = transformers.DINOv3ViTModel
    spec = Spec("dinov3", cls, cls.config_class(**_IMAGE))
    run = Pass(1, 8)
    module = instantiate(spec, "float32", "sdpa", "meta")
    first, _ = tracer.record(module, "dinov3", run)
    again, _ = tracer.record(module, "dinov3", run)
    real, _ = tracer.record(
        instantiate(spec, "float32", "sdpa", "cpu"), "dinov3", replace(run, tensors="cpu")
    )
    assert nodes(first) == nodes(again) == nodes(real)


def test_transformers_answers_as_before_after_a_trace() -> None:
    from transformers import pytorch_utils
    from transformers.utils import import_utils

    before = import_utils.is_fake_tensor, pytorch_utils.is_torchdynamo_compiling
    fallbacks.on_fake(spec_of("bert"), "bert", Pass(1, 4))
    assert before == (import_utils.is_fake_tensor, pytorch_utils.is_torchdynamo_compiling)


def test_a_real_pass_has_a_time_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "endless.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.weight = torch.nn.Parameter(torch.ones(4))\n"
        "    def forward(self, x):\n"
        "        while (x + self.weight).sum().item() >= 0:\n"
        "            x = x + 1\n"
        "        return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def inputs(*_: Any) -> dict[str, Any]:
        import torch

        return {"x": torch.ones(2, 4)}

    with pytest.raises(
        ModelError, match=r"item\(\).*With real tensors it took longer than 0.3 s.*--cpu-limit"
    ):
        trace("endless:Net", inputs=inputs, cpu_limit_s=0.3)
    with pytest.raises(ModelError, match="cpu_limit_s is 0"):
        trace("endless:Net", inputs=inputs, cpu_limit_s=0)


def test_time_that_is_over_while_a_model_is_built_is_not_the_models_fault() -> None:
    def build() -> Any:
        try:
            raise fallbacks.TooLongError("longer than 1 s")
        except ModelError as error:
            raise ModelError("cannot be built") from error

    with pytest.raises(fallbacks.TooLongError):
        fallbacks._in_time(build)
