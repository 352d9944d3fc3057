"""Hand-made predictions of realistic shape and size, in the format of irene_build/export/FORMAT.md."""

from __future__ import annotations

import random
from typing import Any


class _Tree:
    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []

    def add(self, parent: int, scope: str, kind: str, primitive: str | None = None) -> int:
        level = "ml" if primitive else ("module" if parent >= 0 else "model")
        node = {
            "scope": scope,
            "type": kind,
            "call": 0,
            "level": level,
            "parent": parent,
            "primitive": primitive,
        }
        self.nodes.append({"index": len(self.nodes), **node})
        return len(self.nodes) - 1

    def leaves(self, parent: int, scope: str, *primitives: str) -> None:
        for name in primitives:
            self.add(parent, f"{scope}.{name.lower()}", name, name)


def bert_nodes(layers: int = 12) -> list[dict[str, Any]]:
    """The shape of a BERT tree: 4 module levels, about 19 nodes a layer."""
    tree = _Tree()
    root = tree.add(-1, "", "BertModel")
    tree.leaves(
        tree.add(root, "embeddings", "BertEmbeddings"), "embeddings", "Embedding", "LayerNorm", "Elementwise"
    )
    encoder = tree.add(root, "encoder", "BertEncoder")
    for k in range(layers):
        scope = f"encoder.layer.{k}"
        layer = tree.add(encoder, scope, "BertLayer")
        attention = tree.add(layer, f"{scope}.attention", "BertAttention")
        inner = tree.add(attention, f"{scope}.attention.self", "BertSelfAttention")
        for name in ("query", "key", "value"):
            tree.add(inner, f"{scope}.attention.self.{name}", "Linear", "Linear")
        tree.leaves(inner, f"{scope}.attention.self", "MatMul", "Softmax")
        output = tree.add(attention, f"{scope}.attention.output", "BertSelfOutput")
        tree.leaves(output, f"{scope}.attention.output", "Linear", "LayerNorm")
        tree.leaves(
            tree.add(layer, f"{scope}.intermediate", "BertIntermediate"),
            f"{scope}.intermediate",
            "Linear",
            "GELU",
        )
        tree.leaves(
            tree.add(layer, f"{scope}.output", "BertOutput"), f"{scope}.output", "Linear", "LayerNorm"
        )
    tree.leaves(tree.add(root, "pooler", "BertPooler"), "pooler", "Linear", "Tanh")
    return tree.nodes


def moe_nodes(layers: int = 61) -> list[dict[str, Any]]:
    """The shape of a DeepSeek-V3 tree: 3 dense layers, then layers with experts; about 2,000 nodes."""
    tree = _Tree()
    root = tree.add(-1, "", "DeepseekV3Model")
    tree.leaves(root, "embed_tokens", "Embedding")
    for k in range(layers):
        scope = f"layers.{k}"
        layer = tree.add(root, scope, "DeepseekV3DecoderLayer")
        tree.leaves(layer, f"{scope}.input_layernorm", "RMSNorm")
        attention = tree.add(layer, f"{scope}.self_attn", "DeepseekV3Attention")
        tree.leaves(attention, f"{scope}.self_attn", "Linear", "RMSNorm", "Linear", "Linear",
                    "RotaryEmbedding", "Copy", "MatMul", "Softmax", "MatMul", "Copy", "Linear")  # fmt: skip
        tree.leaves(layer, f"{scope}.post_attention_layernorm", "RMSNorm", "Elementwise")
        mlp = tree.add(layer, f"{scope}.mlp", "DeepseekV3MLP" if k < 3 else "DeepseekV3MoE")
        if k >= 3:
            tree.leaves(
                tree.add(mlp, f"{scope}.mlp.gate", "DeepseekV3TopkRouter"),
                f"{scope}.mlp.gate",
                "Linear",
                "TopK",
            )
            tree.leaves(mlp, f"{scope}.mlp.experts", "GroupedExperts")
            mlp = tree.add(mlp, f"{scope}.mlp.shared_experts", "DeepseekV3MLP")
        for name in ("gate_proj", "up_proj", "down_proj"):
            tree.add(mlp, f"{scope}.mlp.{name}", "Linear", "Linear")
        tree.leaves(mlp, f"{scope}.mlp", "SiLU", "Elementwise")
    tree.leaves(root, "norm", "RMSNorm")
    return tree.nodes


def prediction(
    model: str = "bert-base-uncased",
    nodes: list[dict[str, Any]] | None = None,
    batch_size: int = 8,
    seq_len: int = 128,
    tier: str = "static",
    provenance: str = "measured",
    seed: int = 0,
    **changes: Any,
) -> dict[str, Any]:
    """A prediction whose parents hold 0.97 to 1.08 times their children, with intervals and some flags."""
    weight = {
        "Linear": 1.0,
        "GroupedExperts": 6.0,
        "MatMul": 0.4,
        "Softmax": 0.25,
        "GELU": 0.2,
        "Embedding": 0.1,
    }
    draw = random.Random(f"{model} {seed}")
    out = [dict(node) for node in (bert_nodes() if nodes is None else nodes)]
    scale = batch_size * seq_len / 1024.0
    energy = [0.0] * len(out)
    for node in reversed(out):
        index, below = node["index"], energy[node["index"]]
        own = weight.get(node["primitive"] or "", 0.08) * draw.uniform(0.8, 1.2) * scale
        energy[index] = below * draw.uniform(0.97, 1.08) if below else own
        if node["parent"] >= 0:
            energy[node["parent"]] += energy[index]
    for node in out:
        value, half = energy[node["index"]], draw.uniform(0.01, 0.08)
        flags = ["extrapolates"] if node["primitive"] in ("Softmax", "MatMul") and seq_len > 256 else []
        node.update(energy_j=value, interval_j=[value * (1 - half), value * (1 + half)],
                    share=value / energy[0], alpha=1.0, tier=tier, flags=flags)  # fmt: skip
    flags = sorted(
        {name for node in out for name in node["flags"]}
        | ({"simulated"} if provenance == "simulated" else set())
    )
    head = {
        "format": "irene-prediction", "version": 1, "model": model, "batch_size": batch_size,
        "seq_len": seq_len, "phase": "forward", "past_len": 0, "dtype": "float32", "attention": "eager",
        "hardware": "pc1",
        "boundary": "wall", "provenance": provenance, "digest": "0" * 64, "tier": tier,
        "energy_j": out[0]["energy_j"],
        "interval_j": out[0]["interval_j"], "coverage": 0.9, "flags": flags, "notes": [],
    }  # fmt: skip
    return {**head, **changes, "nodes": out}
