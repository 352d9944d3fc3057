"""``irene-build trace`` and ``irene-build models`` as a user meets them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from irene_build import cli
from irene_build.errors import ModelError
from irene_build.trace import trace
from irene_runtime.tree import load

TINY = "bert_uncased_L-2_H-128_A-2"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    text = capsys.readouterr()
    return int(stopped.value.code or 0), text.out, text.err


def test_prints_a_tree_with_equal_layers_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "trace", TINY, "-b", "2", "-s", "8")
    assert code == 0
    assert "2 x layer.0: BertLayer" in out
    assert "layer.1" not in out
    assert "attention.self: Attention" not in out and "Attention" in out


def test_layers_that_alternate_are_a_line_each(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = {
        "model_type": "gemma3_text", "vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 3, "pad_token_id": 0,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, out, _ = run(capsys, "trace", str(tmp_path), "-b", "1", "-s", "8", "--depth", "1", "--phase", "decode")
    layers = [line.split(":")[0].strip() for line in out.splitlines() if "DecoderLayer" in line]
    assert layers == ["3 x layers.0", "3 x layers.1"]
    _, out, _ = run(capsys, "trace", str(tmp_path), "-b", "1", "-s", "8", "--depth", "1", "--all")
    assert sum("DecoderLayer" in line for line in out.splitlines()) == 6


def test_attention_that_a_model_does_not_have_is_not_claimed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = {
        "model_type": "gpt_oss", "vocab_size": 99, "hidden_size": 32, "intermediate_size": 32, "head_dim": 8,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4,
        "num_experts_per_tok": 2, "pad_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, out, err = run(capsys, "trace", str(tmp_path), "-b", "1", "-s", "8", "--depth", "0")
    assert code == 0
    assert "float32, eager," in out and "it has no sdpa" in err


def test_depth_and_sort(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "trace", TINY, "-b", "2", "-s", "8", "--depth", "1", "--sort", "flops")
    names = [line.split()[0] for line in out.splitlines()[2:]]
    assert names == ["BertModel", "encoder:", "pooler:", "embeddings:"]


def test_writes_a_file_that_loads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    code, out, _ = run(capsys, "trace", TINY, "-b", "2", "-s", "8", "-o", str(path), "--json")
    assert code == 0
    tree = load(str(path))
    assert json.loads(out) == json.loads(path.read_text())
    assert (tree.header["batch_size"], tree.header["seq_len"]) == (2, 8)


def test_the_difference_of_eager_and_sdpa(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = []
    for attention in ("sdpa", "eager"):
        files.append(str(tmp_path / f"{attention}.json"))
        run(capsys, "trace", TINY, "-b", "2", "-s", "8", "--attention", attention, "-o", files[-1])
    code, out, _ = run(capsys, "trace", "--diff", *files, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["primitives"]["Attention"]["count"] == [2, 0]
    assert found["primitives"]["MatMul"]["count"] == [0, 4]
    products = [found["primitives"][name]["flops"][side] for name, side in (("Attention", 0), ("MatMul", 1))]
    softmax = found["primitives"]["Softmax"]["flops"][1]
    assert products[0] == pytest.approx(products[1] + softmax)
    _, out, _ = run(capsys, "trace", "--diff", files[0], files[0])
    assert "no difference" in out


def test_a_tree_of_a_newer_version_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    run(capsys, "trace", TINY, "-b", "1", "-s", "4", "-o", str(old))
    new.write_text(json.dumps({**json.loads(old.read_text()), "version": 99}))
    code, out, err = run(capsys, "trace", "--diff", str(old), str(new))
    assert (code, out) == (2, "")
    assert "version 99 is newer" in err and "update irene-build" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "irene-build models"),
        (["bert-base-uncasd"], "did you mean bert-base-uncased"),
        ([], "which model"),
        (["missing.json"], "no such file"),
        ([TINY, "-b", "0"], "batch_size is 0"),
        ([TINY, "--phase", "sideways"], "forward, prefill, decode"),
        ([TINY, "--phase", "decode"], "no cache"),
        ([TINY, "--past", "9"], "phase decode"),
        ([TINY, "--dtype", "float8"], "float32, float16, bfloat16"),
        ([TINY, "--attention", "flash"], "eager, sdpa"),
        ([TINY, "--weights", "int2"], "int8, int8-pure, int4"),
        ([TINY, "--cost-model", "x"], "analytic, irene2021"),
        ([TINY, "--inputs", "input_ids=ax8"], "name=8x3x224x224"),
        ([TINY, "--inputs", "no.such.module:f"], "cannot import"),
        ([TINY, "--sort", "x"], "flops, bytes, params"),
        ([TINY, "--depth", "-1"], "levels from 0 on"),
        ([TINY, "--inputs", "picture=2x3"], "takes no such tensor; it takes input_ids"),
        ([TINY, "--inputs", "input_ids=2x3:floaty"], "no dtype of torch"),
        ([TINY, "--cost-model", "irene2021", "--weights", "int8"], "int8 needs analytic"),
        ([TINY, "--cost-model", "irene2021", "--dtype", "float16"], "float16 needs analytic"),
        (["torch.nn:ModuleList", "--inputs", "x=1x2"], "no forward of its own"),
        (["os.path:join"], "raised TypeError"),
        (["os.path:getcwd"], "no callable"),
        (["os:getcwd"], "expected a torch.nn.Module"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, out, err = run(capsys, "trace", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_an_operation_that_cannot_be_followed_is_named_with_its_module(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stubborn.py").write_text(
        textwrap.dedent("""
        import torch
        class Gate(torch.nn.Module):
            def forward(self, x):
                return x if x.sum().item() > 0 else -x
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.front = torch.nn.Linear(4, 4)
                self.gate = Gate()
            def forward(self, x):
                return self.gate(self.front(x))
    """)
    )
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "trace", "stubborn:Net", "--inputs", "x=2x5")
    assert code == 2
    assert "torch.nn.functional.linear in" in err and "front:Linear" in err
    assert "x=2x5" in err and "--inputs" in err
    # With a shape that fits, the value that steers it is had from a real pass.
    code, out, _ = run(capsys, "trace", "stubborn:Net", "--inputs", "x=2x4", "--json")
    assert code == 0
    assert json.loads(out)["traced_by"]["tensors"] == "cpu"
    _, _, err = run(capsys, "trace", "stubborn:Net", "--inputs", "x=2x4")
    assert "random weights" in err
    # A module that was given stays without values, so there it cannot be followed.
    import stubborn

    with torch.device("meta"):
        net = stubborn.Net()
    with pytest.raises(ModelError, match=r"gate:Gate: .*item\(\)"):
        trace(net, inputs=lambda *_: {"x": torch.zeros(2, 4)})


def test_a_factory_with_inputs_of_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
        import torch
        def net():
            return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU())
        def inputs(module, batch_size):
            return {"input": torch.zeros(batch_size, 6)}
    """)
    )
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "trace", "mine:net", "-b", "3", "--inputs", "mine:inputs", "--json")
    nodes = json.loads(out)["nodes"]
    assert code == 0
    assert [n["primitive"] for n in nodes] == [None, "Linear", "ReLU"]
    assert nodes[1]["features"]["flops"] == (2 * 3 * 6 * 5 + 3 * 5) / 1e6


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        (["gpt2", "--inputs", "input_ids=2x33"], (2, 33, 0)),
        (["gpt2", "--inputs", "input_ids=2x33", "--phase", "decode"], (2, 1, 33)),
        (["vit-base-patch16-224", "--inputs", "pixel_values=3x3x224x224"], (3, 197, 0)),
        (["bart-base", "--inputs", "input_ids=2x30", "--inputs", "decoder_input_ids=2x7"], (2, 30, 0)),
    ],
)
def test_inputs_that_are_given_say_the_size_of_the_run(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sizes: tuple[int, int, int]
) -> None:
    code, out, _ = run(capsys, "trace", *arguments, "--json")
    tree = json.loads(out)
    assert code == 0
    assert (tree["batch_size"], tree["seq_len"], tree["past_len"]) == sizes
    features = tree["nodes"][0]["features"]
    assert (features["batch_size"], features["seq_len"]) == sizes[:2]


def test_more_tokens_than_positions_are_said_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "trace", TINY, "-b", "1", "-s", "600")
    assert (code, out) == (2, "") and "has 512 positions: 600 tokens do not fit" in err
    # Nobody asked for the 128 tokens that are the default.
    code, out, err = run(capsys, "trace", "clip-vit-base-patch32", "-b", "1", "--depth", "0")
    assert code == 0 and "77 tokens, as many as it has positions for, not 128" in err
    assert trace(TINY, 1, 600).header["seq_len"] == 512
    code, out, err = run(capsys, "trace", "distilgpt2", "--phase", "decode", "--past", "1024")
    assert (code, out) == (2, "") and "at most 1023" in err


def test_parts_that_run_in_the_prefill_only_are_not_missing_inputs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, _, err = run(capsys, "trace", "t5-small", "-b", "1", "-s", "8", "--phase", "decode", "--depth", "0")
    assert "run in the prefill only: encoder.block" in err
    assert "decoder.block.0-5.layer.1.EncDecAttention.k" in err
    assert "inputs not given" not in err


def test_a_failure_names_the_inputs_that_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "trace", "clip-vit-base-patch32", "--inputs", "input_ids=2x16")
    assert code == 2
    assert "vision_model.embeddings:CLIPVisionEmbeddings" in err
    assert "Inputs given: input_ids=2x16:int64; it takes pixel_values as well" in err


LLAVA: dict[str, Any] = {
    "model_type": "llava", "image_token_id": 90, "vision_feature_layer": -1,
    "text_config": {
        "model_type": "llama", "vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4,
    },
    "vision_config": {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
    },
}  # fmt: skip


def test_images_beside_text_take_their_place_among_the_tokens(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAVA))
    start = ["trace", str(tmp_path), "-b", "2", "-s", "5", "--json"]
    _, out, _ = run(capsys, *start)
    by = json.loads(out)["traced_by"]
    # 16 patches, and the text behind them.
    assert by["inputs"][0] == "input_ids=2x21:int64"
    assert by["executed_parameters"] >= 0.99
    _, out, _ = run(capsys, *start, "--phase", "decode", "--past", "5")
    assert json.loads(out)["past_len"] == 21
    shapes = ["--inputs", "pixel_values=3x3x32x32", "--inputs"]
    code, out, _ = run(capsys, *start, *shapes, "input_ids=3x18")
    tree = json.loads(out)
    assert (code, tree["batch_size"], tree["seq_len"]) == (0, 3, 18)
    assert any(node["type"] == "CLIPVisionModel" for node in tree["nodes"])
    code, _, err = run(capsys, *start, *shapes, "input_ids=3x9")
    assert code == 2 and "16 tokens stand for the image" in err and "real tensors" not in err


def test_fuller_inputs_that_a_model_refuses_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # A projector that pools patches of images which are too small for it.
    config = {
        **LLAVA, "model_type": "gemma3", "mm_tokens_per_image": 64,
        "text_config": {**LLAVA["text_config"], "model_type": "gemma3_text", "pad_token_id": 0},
        "vision_config": {**LLAVA["vision_config"], "model_type": "siglip_vision_model"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, _, err = run(capsys, "trace", str(tmp_path), "-b", "1", "-s", "4", "--depth", "0")
    assert code == 0
    assert "left out: vision_tower" in err and "inputs not given: pixel_values" in err
    assert "tried with more inputs first" in err and "Gemma3MultiModalProjector" in err


def test_a_config_file_and_its_folder_mean_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config: dict[str, Any] = {
        "model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    trees = []
    for spec in (tmp_path, tmp_path / "config.json"):
        code, out, _ = run(capsys, "trace", str(spec), "-b", "1", "-s", "4", "--json")
        assert code == 0
        trees.append(json.loads(out)["nodes"])
    assert trees[0] == trees[1]
    assert trees[0][0]["type"] == "BertForMaskedLM"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a transformers configuration"),
        ("[]", "model_type"),
        ('{"model_type": "no_such"}', "no model type"),
        ('{"model_type": "bert", "hidden_size": "big"}', "refuses it"),
    ],
)
def test_a_broken_config_file_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    code, _, err = run(capsys, "trace", str(tmp_path))
    assert code == 2
    assert words in err


def test_models_lists_the_papers_six_and_the_24_miniatures(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models", "--json")
    names = [entry["name"] for entry in json.loads(out)]
    assert code == 0
    assert names[:6] == [
        "bert-base-uncased", "roberta-base", "distilbert-base-uncased", "gpt2", "distilgpt2", "openai-gpt",
    ]  # fmt: skip
    assert sum(name.startswith("bert_uncased_L-") for name in names) == 24
    code, out, _ = run(capsys, "models", "llama")
    assert code == 0 and "Llama-3-70B" in out and "gpt2" not in out
    assert run(capsys, "models", "zzz")[0] == 2


def test_what_cannot_work_is_found_before_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, _, err = run(capsys, "trace", "gpt2", "-b", "1000000000")
    assert code == 2 and "128,000,000,000 in one pass, at most 33,554,432" in err
    # No model is asked for: the place is looked at first.
    for place in (tmp_path / "no" / "tree.json", Path("/proc/tree.json")):
        code, _, err = run(capsys, "trace", "no-such-model", "-o", str(place))
        assert code in (1, 2) and "cannot write" in err


def test_weights_graphs_and_programs_are_told_what_to_pass(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, head, words in (
        ("m.gguf", b"GGUF", "config.json, with --weights int4"), ("m.onnx", b"\x08", "nn.Module that it was exported"),
        ("m.safetensors", b"", "the config.json beside it"), ("m.bin", b"PK", "the config.json beside it"),
        ("renamed", b"GGUF", "a GGUF file"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(head + b"1234")
        code, _, err = run(capsys, "trace", str(tmp_path / name))
        assert code == 2 and words in err and len(err.strip().splitlines()) == 1


def test_the_conventions_of_a_count_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = run(capsys, "trace", "distilgpt2", "-b", "1", "--past", "16", "--phase", "decode", "--json")
    assert json.loads(out)["traced_by"]["conventions"] == {"cache": "dynamic"}
    _, _, err = run(capsys, "trace", "distilgpt2", "-b", "1", "-s", "16", "--depth", "0")
    assert "full square" in err and "attended" in err
    static = trace("distilgpt2", 1, 16, "decode", cache="static").nodes[0].features
    assert static["mem_bytes"] < trace("distilgpt2", 1, 16, "decode").nodes[0].features["mem_bytes"]
