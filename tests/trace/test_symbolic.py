"""A symbolic tree gives, feature for feature, what tracing a size gives."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pytest
import transformers
from typer.testing import CliRunner

import irene_build
from irene_build.errors import ModelError
from irene_build.models.build import instantiate
from irene_build.models.specs import Spec
from irene_build.trace import trace
from irene_build.trace.symbolic import dumps, trace_symbolic
from irene_runtime.errors import TreeError
from irene_runtime.symbolic import SymbolicTree, any_tree
from irene_runtime.tree import ModelTree

_TEXT = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 96, "pad_token_id": 0,
}  # fmt: skip
#: class -> what its configuration changes.
SMALL: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {},
    "Gemma3ForCausalLM": {
        "sliding_window": 16, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"],
    },
    "MixtralForCausalLM": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "BertModel": {},
}  # fmt: skip


def small(name: str, attention: str = "sdpa") -> Any:
    kind = getattr(transformers, name)
    config = kind.config_class(**{**_TEXT, **SMALL[name]})
    return instantiate(
        Spec(name, kind, config), "bfloat16" if "Mixtral" in name else "float32", attention, "meta"
    )


def symbolic(name: str, attention: str = "sdpa") -> SymbolicTree:
    """As it is after it was written and read."""
    return _traced(name, attention)


@cache
def _traced(name: str, attention: str) -> SymbolicTree:
    phases = ["prefill", "decode"] if name.startswith("Gemma") else []
    return SymbolicTree(json.loads(dumps(trace_symbolic(small(name, attention), phases))))


def assert_same(found: ModelTree, traced: ModelTree) -> None:
    assert [(n.scope, n.type, n.level, n.parent, n.primitive, n.call) for n in found.nodes] == [
        (n.scope, n.type, n.level, n.parent, n.primitive, n.call) for n in traced.nodes
    ]
    for a, b in zip(found.nodes, traced.nodes, strict=True):
        exact = {k: v for k, v in a.features.items() if k not in ("weight_bytes", "mem_bytes")}
        assert exact == {k: v for k, v in b.features.items() if k not in ("weight_bytes", "mem_bytes")}, (
            a.name
        )
        assert a.features == pytest.approx(b.features, rel=1e-12)
    for key in ("batch_size", "seq_len", "past_len", "phase", "dtype", "attention", "cost_model", "weights"):
        assert found.header[key] == traced.header[key], key


@pytest.mark.parametrize(
    ("name", "attention"), [*((name, "sdpa") for name in SMALL), ("LlamaForCausalLM", "eager")]
)
def test_it_equals_what_is_traced(name: str, attention: str) -> None:
    tree, rng = symbolic(name, attention), Random(name + attention)
    module = small(name, attention)
    for phase in tree.phases:
        tried = 0
        while tried < 2:
            batch, tokens, past = (
                rng.choice([1, 2, 7]),
                rng.choice([1, 2, 13, 40]),
                rng.choice([1, 9, 20, 50]),
            )
            if phase in ("forward", "prefill"):
                past = 0
            if phase == "decode":
                tokens = 1
            try:
                found = tree.at(batch, tokens, past, phase)
            except TreeError:
                assert phase == "extend"
                tried += 1
                continue
            assert_same(found, trace(module, batch, tokens, phase, past))
            tried += 1


def test_phases_are_those_that_the_model_has() -> None:
    assert symbolic("LlamaForCausalLM").phases == ["prefill", "decode", "extend"]
    assert symbolic("BertModel").phases == ["forward"]


def test_the_window_of_sliding_attention_divides_a_phase() -> None:
    starts = {str(s.seq_len) for s in symbolic("Gemma3ForCausalLM").sections if s.phase == "prefill"}
    assert len(starts) > 1


def test_expected_experts_are_a_form_of_their_own() -> None:
    forms = [
        e
        for e in symbolic("MixtralForCausalLM").data["expressions"]
        if isinstance(e, dict) and "experts" in e
    ]
    assert forms
    assert all(e["experts"] == [2, 6] for e in forms)


def test_equal_layers_stand_once() -> None:
    text = dumps(trace_symbolic("bert-base-uncased"))
    assert len(text.encode()) < 40_000
    assert text.count("BertSelfAttention") == 1


def test_what_it_writes_follows_the_schema() -> None:
    folder = Path(irene_build.__file__).parent / "schemas"
    schema = json.loads((folder / "symbolic-tree.schema.json").read_text(encoding="utf-8"))
    for name in SMALL:
        jsonschema.validate(symbolic(name).data, schema)


def test_named_models_generate_with_their_head() -> None:
    tree = trace_symbolic("distilgpt2", ["decode"])
    assert {s.kind for s in tree.sections} == {"GPT2LMHeadModel"}
    assert any(n.scope == "lm_head" for n in tree.at(1, past_len=5).nodes)
    assert trace("distilgpt2", 1, 8).nodes[0].type == "GPT2Model"


def test_a_prefill_computes_the_last_logits_unless_all_are_asked_for() -> None:
    last, every = (trace(small("LlamaForCausalLM"), 1, 9, "prefill", all_logits=a) for a in (False, True))
    head = [next(n for n in t.nodes if n.scope == "lm_head").features["gemm_m"] for t in (last, every)]
    assert head == [1.0, 9.0]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"batch_size": 2}, "give batch_size and seq_len"),
        ({"batch_size": 2, "seq_len": 97}, "has 96 positions: 97 tokens do not fit"),
        ({"batch_size": 2, "past_len": 96}, "1 tokens behind 96 cached ones do not fit"),
        ({"batch_size": 0, "seq_len": 4}, "batch_size is 0"),
        ({"batch_size": 2, "seq_len": -4}, "seq_len is -4"),
        ({"batch_size": 2, "seq_len": True}, "seq_len is True"),
        ({"batch_size": 2, "seq_len": 4, "phase": "forward"}, "holds prefill, decode, extend, not forward"),
    ],
)
def test_sizes_that_it_does_not_hold_for(size: dict[str, Any], message: str) -> None:
    with pytest.raises(TreeError, match=message):
        symbolic("LlamaForCausalLM").at(**size)


def _damaged(change: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(symbolic("LlamaForCausalLM").data))
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["blocks"][0]["children"].append(["x", 0]), "is no later block"),
        (lambda d: d["blocks"][0]["children"].append(["x{}", 1, 0, 10**9]), "repeats too often"),
        (lambda d: d["expressions"].append({"bbs": 1}), "none of the monomials"),
        (lambda d: d["expressions"].append(-1), "expected a number >= 0"),
        (lambda d: d["sections"][0].update(root=10**6), "is no block"),
        (lambda d: d["sections"].clear(), "sections must be a list that is not empty"),
        (lambda d: d["expressions"].__setitem__(slice(None), [{"1": -5}] * len(d["expressions"])), "is negative"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(change: Any, message: str) -> None:
    with pytest.raises(TreeError, match=message):
        any_tree(_damaged(change)).at(2, 8)


def test_a_model_that_follows_no_expression_is_refused() -> None:
    with pytest.raises(ModelError, match=r"phase 'sideways'"):
        trace_symbolic("gpt2", ["sideways"])
    with pytest.raises(ModelError):
        trace_symbolic(small("BertModel"), ["decode"])


def test_the_command_writes_a_file(tmp_path: Path) -> None:
    from irene_build.cli import app

    file = tmp_path / "tree.json"
    done = CliRunner().invoke(app, ["trace", "bert_uncased_L-2_H-128_A-2", "--symbolic", "-o", str(file)])
    assert done.exit_code == 0, done.output
    assert "1 to 512" in done.output
    assert any_tree(json.loads(file.read_text(encoding="utf-8"))).at(3, 137).header["seq_len"] == 137
