"""What a pass contains beside its text: images as they were asked for, said in the tree, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from irene_build.errors import ModelError
from irene_build.trace import contents, trace_model

_TEXT = {
    "vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 4,
}  # fmt: skip
#: Four by four patches of 14 pixels, and no more.
_LLAVA = {
    "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "image_token_index": 199,
    "text_config": {"model_type": "llama", **_TEXT},
    "vision_config": {
        "model_type": "clip_vision_model", "image_size": 56, "patch_size": 14, "hidden_size": 32,
        "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4,
    },
}  # fmt: skip
#: Images of any size, four patches a token.
_QWEN = {
    "model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"], "image_token_id": 199,
    "vision_start_token_id": 197, "video_token_id": 198,
    "text_config": {**_TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
    "vision_config": {
        "depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [0],
    },
}  # fmt: skip


def traced(folder: Path, settings: dict[str, Any], **asked: Any) -> Any:
    (folder / "config.json").write_text(json.dumps(settings))
    return trace_model(str(folder), 2, 8, **asked)


@pytest.mark.parametrize(("asked", "tokens"), [({}, 16), ({"images": 1}, 16), ({"images": 3}, 48)])
def test_each_sequence_has_the_images_that_were_asked_for(
    tmp_path: Path, asked: dict[str, int], tokens: int
) -> None:
    tree = traced(tmp_path, _LLAVA, **asked)
    assert tree.header["traced_by"]["contains"] == {"image_tokens": tokens, "text_tokens": 8}
    assert f"8 tokens of text and {tokens} of image" in contents.said(tree)[0]
    assert tree.header["seq_len"] == 8


def test_text_alone_is_said(tmp_path: Path) -> None:
    tree = traced(tmp_path, _LLAVA, images=0)
    assert tree.header["traced_by"]["contains"] == {"text_tokens": 8}
    assert "8 tokens of text alone" in contents.said(tree)[0]


def test_images_have_a_size_where_the_model_takes_any(tmp_path: Path) -> None:
    tree = traced(tmp_path, _QWEN, image_size=(56, 112))
    # Tokens of 28 x 28 pixels.
    assert tree.header["traced_by"]["contains"] == {"image_tokens": 2 * 4, "text_tokens": 8}
    with pytest.raises(ModelError, match="takes images of 56x56 only"):
        traced(tmp_path, _LLAVA, image_size=(56, 112))


def test_a_model_of_text_takes_no_images() -> None:
    with pytest.raises(ModelError, match="takes no images"):
        trace_model("distilgpt2", 1, 8, images=1)
    assert "contains" not in trace_model("distilgpt2", 1, 8).header["traced_by"]
