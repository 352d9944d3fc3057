"""What a pass contains beside its text, and the conventions that its counts follow: what numbers do not show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from irene_runtime.tree import ModelTree

from .arguments import forward_parameters, is_accepted
from .media import FED, placeholder_of
from .request import Pass

#: Words for each convention, as ``traced_by.conventions`` names them.
SAID = {
    ("attention", "full square"): "FLOPs of causal attention count the full square, as FlopCounterMode does; the "
    "feature attended counts the scores that the kernel computes",
    ("cache", "dynamic"): "the cache is copied as it grows, as generate does by default (--cache static: it is written "
    "in place)",
    ("cache", "static"): "the cache has room for all tokens and is written in place",
    ("latent_attention", "unabsorbed"): "latent attention expands the cached latents of all tokens at every step, as "
    "transformers does; servers absorb that product",
    ("logits", "last token"): "a prefill computes the logits of the last token alone, as generate does (--all-logits: "
    "of every one)",
    ("logits", "every token"): "logits are computed of every token",
    ("scan", "reference"): "state-space scans run as the sequential reference; fused kernels launch one a layer",
}  # fmt: skip


def contents(module: Any, inputs: Mapping[str, Any], known: Callable[[Any], Any]) -> dict[str, Any]:
    """``contains``: tokens of text and of each modality in one sequence, of models that take more than text."""
    config = getattr(module, "config", None)
    takes = {name for fed in FED.values() for name in fed} & set(forward_parameters(module))
    ids = inputs.get("input_ids")
    if config is None or not takes or ids is None or not hasattr(config, "model_type"):
        return {}
    values = known(ids)
    found: dict[str, int] = {}
    for modality, names in FED.items():
        token = placeholder_of(config, modality)
        if any(name in inputs for name in names) and token is not None and values is not None:
            found[f"{modality}_tokens"] = int((values[0] == token).sum())
    found["text_tokens"] = int(ids.shape[1]) - sum(found.values())
    return {"contains": found}


def conventions(module: Any, tree: ModelTree, run: Pass) -> dict[str, str]:
    """Where more than one way to count or to run is common: which one it was."""
    found: dict[str, str] = {}
    if any((node.shapes or {}).get("is_causal") for node in tree.nodes):
        found["attention"] = "full square"
    if run.phase != "forward" and is_accepted(module, "past_key_values"):
        found["cache"] = run.cache
    if run.phase == "prefill" and is_accepted(module, "logits_to_keep"):
        found["logits"] = "every token" if run.all_logits else "last token"
    config = getattr(module, "config", None)
    inner = getattr(config, "get_text_config", None)
    text = inner() if callable(inner) else config
    if run.phase == "decode" and _has_latents(text):
        found["latent_attention"] = "unabsorbed"
    if any(node.primitive == "StateSpaceScan" for node in tree.nodes):
        found["scan"] = "reference"
    return found


def _has_latents(config: Any) -> bool:
    """Whether keys and values are cached as latents of a low rank, in any layer."""
    try:
        return bool(getattr(config, "kv_lora_rank", None))
    except Exception:  # Of transformers' own: the rank is a layer's, not the model's.
        return True


def said(tree: ModelTree) -> list[str]:
    """Sentences for people: what the pass contains, and its conventions."""
    by = tree.header.get("traced_by") or {}
    contains = by.get("contains") or {}
    sentences = []
    if contains:
        text = contains.get("text_tokens", 0)
        others = [f"{n} of {k.removesuffix('_tokens')}" for k, n in contains.items() if k != "text_tokens"]
        what = f"{text} tokens of text and {', '.join(others)}" if others else f"{text} tokens of text alone"
        sentences.append(f"each sequence has {what} (--images N and --image-size HxW say more)")
    return sentences + [SAID[item] for item in (by.get("conventions") or {}).items() if item in SAID]
