"""Builds the ``nn.Module`` of a named architecture on the meta device: its structure, without weights."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from irene_build.errors import ModelError

DTYPES = ("float32", "float16", "bfloat16")
ATTENTIONS = ("eager", "sdpa")

_MINIATURE = re.compile(r"bert-miniature-(\d+)-(\d+)$|google/bert_uncased_L-(\d+)_H-(\d+)_A-(\d+)$")


@cache
def architectures() -> dict[str, dict[str, Any]]:
    """Name -> entry of architectures.toml, and the 24 BERT miniatures (Turc et al. 2019)."""
    try:
        import tomllib
    except ImportError:
        import tomli as tomllib  # type: ignore[no-redef]

    text = (Path(__file__).parent / "architectures.toml").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = tomllib.loads(text)
    for layers in (2, 4, 6, 8, 10, 12):
        for hidden in (128, 256, 512, 768):
            heads = hidden // 64
            config = {
                "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
                "intermediate_size": 4 * hidden,
            }  # fmt: skip
            entries[f"bert_uncased_L-{layers}_H-{hidden}_A-{heads}"] = {
                "class": "BertModel",
                "config": config,
            }
    return entries


def build(spec: str, dtype: str = "float32", attention: str = "sdpa", device: str = "meta") -> Any:
    """The module of ``spec`` (a named architecture), in evaluation mode.

    On the meta device it has no weights; on a real one (``cpu``, ``cuda``) they are random.

    Raises ModelError where it is not known.
    """
    _check(dtype, attention)
    entry = architectures().get(spec.removeprefix("google/"))
    if entry is None:
        raise ModelError(f"unknown model {spec!r}: `irene-build models` lists the named ones")
    kind = _class_of(entry["class"])
    return instantiate(kind, kind.config_class(**entry.get("config", {})), dtype, attention, device)


def instantiate(kind: Any, config: Any, dtype: str, attention: str, device: str = "meta") -> Any:
    """A transformers model from its configuration, on ``device`` (random weights where that is a real one)."""
    import torch

    with torch.device(device):
        module = kind._from_config(config, attn_implementation=attention, dtype=getattr(torch, dtype))
    return module.eval()


def _class_of(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _check(dtype: str, attention: str) -> None:
    if dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    if attention not in ATTENTIONS:
        raise ModelError(f"attention {attention!r}: expected one of {', '.join(ATTENTIONS)}")
