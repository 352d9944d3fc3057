"""Weights in fewer bits: bytes of each scheme with its scales, and what checkpoints say of themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from irene_build.errors import ModelError
from irene_build.models.stored import SCHEMES, Stored, of_config
from irene_build.trace import trace_model

ROWS, COLUMNS = 256, 512
ELEMENTS = ROWS * COLUMNS
#: Scheme -> bytes of a matrix of 256 x 512, worked out by hand.
BYTES = {
    "int8": ELEMENTS + 4 * ROWS, "int8-pure": ELEMENTS + 4 * ROWS, "fp8": ELEMENTS + 4 * ROWS,
    "int4": ELEMENTS / 2 + ROWS * 4 * 2, "nf4": ELEMENTS / 2 + ROWS * 8 * 4,
    "gptq": ELEMENTS / 2 + ROWS * 4 * 2.5 + 4 * COLUMNS, "awq": ELEMENTS / 2 + ROWS * 4 * 2.5,
    "fp8-block": ELEMENTS + 2 * 4 * 4, "nvfp4": ELEMENTS / 2 + ELEMENTS / 16, "mxfp4": ELEMENTS / 2 + ELEMENTS / 32,
}  # fmt: skip


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_matrix_has_its_codes_and_its_scales(scheme: str) -> None:
    assert Stored(scheme).bytes_of((ROWS, COLUMNS)) == BYTES[scheme]
    assert Stored(scheme).bytes_of((3, ROWS, COLUMNS)) == 3 * BYTES[scheme]


@pytest.mark.parametrize(
    ("settings", "scheme", "group", "kept"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4", None, ()),
        ({"load_in_8bit": True, "llm_int8_skip_modules": ["proj"]}, "int8", None, ("proj",)),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, "gptq", 64, ()),
        ({"quant_method": "awq", "group_size": 128, "modules_to_not_convert": ["v"]}, "awq", 128, ("v",)),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block", None, ()),
        ({"quant_method": "fp8"}, "fp8", None, ()),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.router"]}, "mxfp4", None, ("model.router",)),
        ({"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": {"group_0": {
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}}, "fp8", None, ("lm_head",)),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {
            "weights": {"num_bits": 4, "type": "int", "group_size": 32}}}}, "int4", 32, ()),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", None, ()),
        ({"quant_method": "torchao", "quant_type": {"default": "int8_weight_only"}}, "int8", None, ()),
    ],
)  # fmt: skip
def test_what_a_checkpoint_says(settings: Any, scheme: str, group: Any, kept: tuple[str, ...]) -> None:
    found = of_config(settings, "here")
    assert found is not None and (found.scheme, found.group, found.kept) == (scheme, group, kept)


def test_a_format_that_is_not_known_is_refused_with_what_to_pass() -> None:
    with pytest.raises(ModelError, match=r"'aqlm'.*--weights"):
        of_config({"quant_method": "aqlm"}, "here")
    assert of_config(None, "here") is None


_LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 99, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip


def _traced(folder: Path, **settings: Any) -> Any:
    (folder / "config.json").write_text(json.dumps({**_LLAMA, **settings}))
    return trace_model(str(folder), 1, 8)


def test_a_checkpoint_is_traced_in_its_own_dtype_and_storage(tmp_path: Path) -> None:
    plain = _traced(tmp_path)
    half = _traced(tmp_path, torch_dtype="bfloat16")
    assert (plain.header["dtype"], half.header["dtype"]) == ("float32", "bfloat16")
    four = _traced(
        tmp_path, dtype="bfloat16", quantization_config={"quant_method": "awq", "bits": 4, "group_size": 64}
    )
    assert four.header["weights"] == "awq"
    matrices = {n.scope: n.features["weight_bytes"] * 2**20 for n in four.nodes if n.primitive == "Linear"}
    assert matrices["model.layers.0.self_attn.q_proj"] == pytest.approx(64 * 64 / 2 + 64 * 2.5)
    assert matrices["lm_head"] == pytest.approx(99 * 64 * 2)
    assert trace_model(str(tmp_path), 1, 8, weights="full").header["weights"] is None
