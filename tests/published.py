"""Files in the form of the published dataset, from an invented law: no measurement of anybody."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from irene_runtime.tree import ModelTree, Node

CSV_COLUMNS = (
    "batch_size", "seq_len", "flops", "mem_bytes", "cpu", "mem", "gpu", "gpu_mem", "gpu_clk", "gpu_mem_clk",
    "times_mean", "gpu_energy_mean", "energy_mean", "level_name", "model_name",
)  # fmt: skip
FILES = {"model": "model_level_features", "module": "module_level_features", "ml": "ml1_level_features"}
FUNCTIONAL = ("MatMul", "Softmax")


def small_tree(model: str = "distilgpt2", batch_size: int = 2, seq_len: int = 8) -> ModelTree:
    """Two blocks that look like the published rows of a GPT-2, without tracing anything."""
    nodes = [Node("", model, "model", -1, None, 0, {"flops": 100.0, "mem_bytes": 50.0})]

    def add(scope: str, kind: str, level: str, parent: int, call: int = 0) -> int:
        size = float(batch_size * seq_len * (2 if kind == "Conv1D" else 1))
        primitive = kind if level == "ml" else None
        nodes.append(
            Node(scope, kind, level, parent, primitive, call, {"flops": size, "mem_bytes": size / 8.0})
        )
        return len(nodes) - 1

    add("wte", "Embedding", "ml", 0)
    for number in range(2):
        block = add(f"h.{number}", "Block", "module", 0)
        attention = add(f"h.{number}.attn", "Attention", "module", block)
        add(f"h.{number}.attn.c_attn", "Conv1D", "ml", attention)
        for kind, call in (("MatMul", 0), ("Softmax", 0), ("MatMul", 1)):
            add(f"h.{number}.attn", kind, "ml", attention, call)
    return ModelTree(
        nodes, {"model": model, "batch_size": batch_size, "seq_len": seq_len, "cost_model": "irene2021"}
    )


def values(tree: ModelTree, node: Node) -> dict[str, Any]:
    """The columns of one node: equal nodes of a tree get equal numbers, as the authors' cache did."""
    flops, size = node.features["flops"], node.features["mem_bytes"]
    gpu = (1e-3 * flops + 5e-3 * size + 1e-3) * (1.0 if node.level == "ml" else 1.05)
    return {
        "batch_size": float(tree.header["batch_size"]), "seq_len": float(tree.header["seq_len"]),
        "flops": flops, "mem_bytes": size, "cpu": 8.5, "mem": 10.0,
        "gpu": 60.0 + 30.0 * gpu / (1.0 + gpu), "gpu_mem": 20.0,
        "gpu_clk": 1900.0, "gpu_mem_clk": 3802.0, "times_mean": gpu / 150.0 + 2e-5, "gpu_energy_mean": gpu,
        "energy_mean": 1.1 * gpu + 100.0 * (gpu / 150.0 + 2e-5),
    }  # fmt: skip


def rows(trees: list[ModelTree]) -> dict[str, list[dict[str, Any]]]:
    """File name (without suffix) -> its rows."""
    out: dict[str, list[dict[str, Any]]] = {name: [] for name in (*FILES.values(), "ml2_level_features")}
    for tree in trees:
        model = tree.header["model"]
        for node in tree.nodes:
            name = "ml2_level_features" if node.type in FUNCTIONAL else FILES[node.level]
            level_name = f"{node.scope}:{node.type}" if node.level != "model" else model
            out[name].append({**values(tree, node), "level_name": level_name, "model_name": model})
    return out


def write_csv(folder: Path, trees: list[ModelTree]) -> Path:
    """The four files of the authors' original branch."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in rows(trees).items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    return folder


def write_jsonl(path: Path, trees: list[ModelTree]) -> Path:
    """The JSONL of the cleaned-up branch: nested, no names of lists, functional leaves in lower case."""
    with path.open("w", encoding="utf-8") as file:
        for tree in trees:
            children = tree.children
            scopes = {index: _scope(tree.nodes[index]) for index in range(len(tree.nodes))}

            def nested(index: int, depth: int, tree: ModelTree = tree, children: Any = children,
                       scopes: Any = scopes) -> dict[str, Any]:  # fmt: skip
                node = tree.nodes[index]
                functional = node.type in FUNCTIONAL
                numbers = values(tree, node)
                numbers["ground_truth_energy"] = numbers.pop("energy_mean")
                for name in ("batch_size", "seq_len"):
                    numbers.pop(name)
                return {
                    "id": f"{index}", "scope": scopes[index], "parent_name": "", "level": depth,
                    "instance_type": node.type.lower() if functional else node.type,
                    "type": "ml-np" if functional else node.level, "num_parameters": 7, **numbers,
                    "child_nodes_obj": [nested(child, depth + 1) for child in children[index]],
                    "child_nodes": [scopes[child] for child in children[index]],
                }  # fmt: skip

            header = {key: tree.header[key] for key in ("batch_size", "seq_len")}
            file.write(
                json.dumps({"model_name": tree.header["model"], **header, "frontend_tree": nested(0, 0)})
                + "\n"
            )
    return path


def _scope(node: Node) -> str:
    parts = [part for part in node.scope.split(".") if part and part not in ("h", "layer")]
    if node.type in FUNCTIONAL:
        parts.append(node.type.lower())
    return ".".join(["root", *parts])
