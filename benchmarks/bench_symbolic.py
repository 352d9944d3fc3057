"""Symbolic trees against traced ones: random sizes over many architectures, every count as a whole number.

    python benchmarks/bench_symbolic.py [--pairs 60] [--seed 15] [--only NAME ...]

Configurations are small (a few layers, narrow), so that a size traces in a fraction of a second; what is compared
(FLOPs, bytes, kernels, M, N, K, rows, columns, elements) does not depend on how large they are. Prints a line an
architecture and exits with 1 where a feature differs. Bytes of expected experts are compared to 1e-12.
"""

from __future__ import annotations

import argparse
import sys
import time
from random import Random
from typing import Any

import transformers

from irene_build.errors import IreneError
from irene_build.models.build import instantiate
from irene_build.models.specs import Spec
from irene_build.trace import trace
from irene_build.trace.symbolic import trace_symbolic
from irene_runtime.symbolic import SymbolicTree
from irene_runtime.tree import ModelTree

_TEXT: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256, "pad_token_id": 0,
}  # fmt: skip
_GQA = {**_TEXT, "num_key_value_heads": 2}
_GPT2 = {"vocab_size": 97, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
_WHISPER = {
    "vocab_size": 97, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_target_positions": 64,
    "max_source_positions": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip
_BART = {
    "vocab_size": 97, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 128,
}  # fmt: skip
_IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 64,
}
#: class -> (configuration, dtype)
ARCHITECTURES: dict[str, tuple[dict[str, Any], str]] = {
    "LlamaForCausalLM": (_GQA, "float32"),
    "Qwen2ForCausalLM": (_GQA, "bfloat16"),
    "Qwen3ForCausalLM": ({**_GQA, "head_dim": 16}, "float32"),
    "MistralForCausalLM": ({**_GQA, "sliding_window": None}, "float16"),
    "Gemma2ForCausalLM": ({**_GQA, "sliding_window": 32, "head_dim": 16}, "float32"),
    "Gemma3ForCausalLM": (
        {**_GQA, "sliding_window": 32, "head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]},
        "float32",
    ),
    "Phi3ForCausalLM": (_GQA, "float32"),
    "MixtralForCausalLM": ({**_GQA, "num_local_experts": 6, "num_experts_per_tok": 2}, "bfloat16"),
    "Qwen3MoeForCausalLM": (
        {**_GQA, "head_dim": 16, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32},
        "bfloat16",
    ),
    "GPT2LMHeadModel": (_GPT2, "float32"),
    "GPTNeoXForCausalLM": (_TEXT, "float32"),
    "OPTForCausalLM": ({**_TEXT, "ffn_dim": 80, "word_embed_proj_dim": 64}, "float32"),
    "FalconForCausalLM": (_TEXT, "float32"),
    "BertModel": (_TEXT, "float32"),
    "RobertaModel": (_TEXT, "float32"),
    "DistilBertModel": ({"vocab_size": 97, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}, "float32"),
    "AlbertModel": ({**_TEXT, "embedding_size": 16}, "float32"),
    "ElectraModel": ({**_TEXT, "embedding_size": 16}, "float32"),
    "ModernBertModel": ({**_TEXT, "local_attention": 16}, "float32"),
    "ViTModel": (_IMAGE, "float32"),
    "WhisperForConditionalGeneration": (_WHISPER, "float32"),
    "BartForConditionalGeneration": (_BART, "float32"),
    "MambaForCausalLM": (
        {"vocab_size": 97, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2}, "float32",
    ),
    "T5ForConditionalGeneration": (
        {"vocab_size": 97, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}, "float32",
    ),
}  # fmt: skip


def small(name: str, attention: str) -> Any:
    settings, dtype = ARCHITECTURES[name]
    kind = getattr(transformers, name)
    return instantiate(Spec(name, kind, kind.config_class(**settings)), dtype, attention, "meta")


def difference(found: ModelTree, traced: ModelTree) -> str:
    """The first node and feature that are not the same; empty where all are."""
    for a, b in zip(found.nodes, traced.nodes, strict=False):
        if (a.scope, a.type, a.level, a.parent, a.primitive, a.call) != (
            b.scope, b.type, b.level, b.parent, b.primitive, b.call,
        ):  # fmt: skip
            return f"{a.name} where {b.name} was traced"
        for name in a.features.keys() | b.features.keys():
            x, y = a.features.get(name, -1.0), b.features.get(name, -1.0)
            close = name in ("weight_bytes", "mem_bytes") and abs(x - y) <= 1e-12 * abs(y)
            if x != y and not close:
                return f"{name} of {a.name}: {x!r}, traced {y!r}"
    return "" if len(found.nodes) == len(traced.nodes) else "another number of nodes"


def sizes(tree: SymbolicTree, rng: Random, count: int) -> list[tuple[str, int, int, int]]:
    """Random sizes over the phases of a tree, small and large, batch 1 among them."""
    out = []
    most: Any = tree.header["positions"] or 256
    while len(out) < count:
        phase = tree.phases[len(out) % len(tree.phases)]
        batch = rng.choice([1, 2, rng.randint(3, 33)])
        tokens = 1 if phase == "decode" else rng.randint(1 if phase != "extend" else 2, most // 2)
        cached = rng.randint(1, most // 2 - 1) if phase in ("decode", "extend") else 0
        out.append((phase, batch, tokens, cached))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    names = options.only or list(ARCHITECTURES)
    rng, wrong, compared, refused = Random(options.seed), 0, 0, 0
    each = -(-options.pairs // len(names))
    for name in names:
        attention = rng.choice(["sdpa", "eager"])
        start = time.perf_counter()
        module = small(name, attention)
        try:
            tree = trace_symbolic(module)
        except IreneError as error:
            print(f"{name:34} REFUSED: {str(error)[:200]}")
            refused += 1
            continue
        spent = time.perf_counter() - start
        faults = []
        for phase, batch, tokens, cached in sizes(tree, rng, max(each, len(tree.phases))):
            only = {section.seq_len for section in tree.sections}
            fixed = only.pop().low if len(only) == 1 and tree.phases == ["forward"] else None
            fixed = fixed if fixed is not None and tree.sections[0].seq_len.high == fixed else None
            try:
                found = tree.at(batch, fixed or tokens, cached, phase)
            except IreneError as error:
                faults.append(f"refused {phase} {batch} x {tokens} + {cached}: {str(error)[:120]}")
                refused += 1
                continue
            traced = trace(module, batch, tokens, phase, cached)
            compared += 1
            if text := difference(found, traced):
                wrong += 1
                faults.append(f"WRONG {phase} {batch} x {tokens} + {cached}: {text}")
        print(
            f"{name:34} {attention:5} {', '.join(tree.phases):26} {spent:6.1f} s  {'; '.join(faults) or 'equal'}"
        )
        sys.stdout.flush()
    print(f"{compared} sizes compared, {wrong} differ, {refused} refused")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
