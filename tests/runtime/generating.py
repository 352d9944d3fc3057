"""A small model that generates, as a symbolic tree, and estimators with and without a law to predict it by."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from irene_runtime.model import Estimator
from irene_runtime.symbolic import SymbolicTree

_ROOT = Path(__file__).resolve().parents[2]


def llama(**settings: Any) -> Any:
    import transformers

    from irene_build.models.build import instantiate
    from irene_build.models.specs import Spec

    config = {
        "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "pad_token_id": 0, **settings,
    }  # fmt: skip
    kind = transformers.LlamaForCausalLM
    return instantiate(Spec("llama", kind, kind.config_class(**config)), "float32", "sdpa", "meta")


@cache
def tree() -> SymbolicTree:
    from irene_build.trace.symbolic import dumps, trace_symbolic

    return SymbolicTree(json.loads(dumps(trace_symbolic(llama()))))


@cache
def estimator() -> Estimator:
    """The estimator of PC1 that ships."""
    return Estimator(json.loads((_ROOT / "artifacts" / "pc1" / "estimator.json").read_text(encoding="utf-8")))


@cache
def by_datasheet() -> Estimator:
    """An estimator with a law, and nothing measured."""
    from irene_build.hardware.datasheets import datasheet
    from irene_build.train.law.datasheet_estimator import estimator as of_datasheet

    return Estimator(of_datasheet(datasheet("H100 SXM")))
