"""What an engine launches for a traced model, as functions of batch and context: a few dozen distinct kernels.

Read off one tree of a decode step (``trace_for``): shapes of weights, heads, windows, experts, states. Each launch
names the nodes that it computes, with shares that add up to 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from irene_build.errors import InputError, ModelError
from irene_runtime.tree import ModelTree, Node

#: Cached tokens of the step that is traced: more than any window, so that a window shows in the shapes.
PAST = 20_000
_SHAPE = re.compile(r"(\d+(?:x\d+)*):")


@dataclass(frozen=True)
class Layout:
    """How a model is spread: ``gpus`` in all, ``dp`` replicas of attention, experts over ``ep`` (1: split by width)."""

    gpus: int = 1
    ep: int = 1
    dp: int = 1
    weights: str = "bfloat16"
    cache: str = "bfloat16"

    @property
    def tp(self) -> int:
        return max(1, self.gpus // self.dp)


@dataclass
class Launch:
    """One kernel: ``shape`` holds what does not change with batch and context, ``count`` how often a step runs it.

    ``members``: (node, share) of one instance after another, in order; shares of an instance add up to 1.
    """

    kind: str
    dtype: str
    shape: tuple[float, ...]
    per: str = "token"
    count: int = 0
    members: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Stack:
    """All launches of one step, and the tree that they were read from."""

    tree: ModelTree
    layout: Layout
    launches: list[Launch]

    @property
    def vocabulary(self) -> float:
        """Logits of a sequence: the widest product that runs once a sequence; 0 where there is none."""
        own = [x.shape[0] for x in self.launches if x.per == "sequence"]
        return max(own, default=0.0) * (self.layout.tp if own else 1)

    def held_bytes(self, sequences: float, context: float) -> float:
        """Bytes that each GPU holds at least: its part of the parameters, and the keys and values of its sequences."""
        form = self.layout.weights
        width = 2.0 if form in ("bfloat16", "float16") else 1.0 if "8" in form else 0.5
        held = width * self.tree.nodes[0].features.get("num_parameters", 0.0) / self.layout.gpus
        value = 1.0 if self.layout.cache == "fp8" else 2.0
        for launch in self.launches:
            if launch.kind == "attention":
                _, kv, d, window = launch.shape
                tokens = min(context, window) if window else context
                held += launch.count * sequences / self.layout.dp * tokens * 2.0 * kv * d * value
        return held

    def at(
        self, sequences: float, tokens: float, context: float, prefill: bool = False
    ) -> list[tuple[Any, ...]]:
        """(launch, kind, dtype, shape) of a step on one GPU: ``sequences`` in flight, ``tokens`` new ones each.

        ``context`` is the tokens in the cache after the step. With ``dp`` each replica has its part of the sequences.
        """
        own = sequences / self.layout.dp
        rows = max(own * tokens, 1.0)
        out = []
        for launch in self.launches:
            shape = launch.shape
            kind: str = launch.kind
            if kind == "gemm":
                m = rows if launch.per == "token" else max(own, 1.0)
                full: tuple[float, ...] = (m, *shape)
            elif kind == "attention":
                heads, kv, d, window = shape
                kind = "prefill" if prefill else "decode"
                head = (own, tokens, max(0.0, context - tokens)) if prefill else (own, context)
                full = (*head, heads, kv, d, window)
            elif kind == "mla":
                kind = "mla_prefill" if prefill else "mla_decode"
                head = (own, tokens, max(0.0, context - tokens)) if prefill else (own, context)
                full = (*head, *shape)
            elif kind == "experts":
                full = (rows * self.layout.dp, *shape)
            elif kind == "all_reduce":
                full = (shape[0], max(shape[1] * rows, 1.0))
            else:
                full = (max(shape[0] * rows + shape[1] * own, 1.0),)
            out.append((launch, kind, launch.dtype, full))
        return out


@cache
def fusions() -> dict[str, Any]:
    """fusions.toml."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    table: dict[str, Any] = tomllib.loads(
        (Path(__file__).parent / "fusions.toml").read_text(encoding="utf-8")
    )
    return table


def trace_for(model: str) -> ModelTree:
    """The tree that ``stack_of`` reads: a decode step of two sequences behind a long cache. Raises ModelError."""
    from irene_build.models.specs import named
    from irene_build.trace import trace_model

    name = named(model, quantised=True) or model
    lengths = (2_000,) if "deepseek" in name.lower() else (PAST, 3_000, 1_500, 400)
    for past in lengths:
        try:
            return trace_model(name, 2, 1, phase="decode", past_len=past, dtype="bfloat16", attention="sdpa")
        except ModelError as error:  # noqa: PERF203
            refused = error
            if "positions" not in str(error):  # else a shorter cache may fit
                raise
    raise refused


def stack_of(tree: ModelTree, layout: Layout) -> Stack:
    """The launches of ``tree`` under vLLM. Raises InputError where the heads cannot be divided."""
    return _Reader(tree, layout).read()


class _Reader:
    def __init__(self, tree: ModelTree, layout: Layout) -> None:
        self.tree, self.layout = tree, layout
        self.table = fusions()["vllm"]
        self.found: dict[tuple[Any, ...], Launch] = {}
        self.batch = int(tree.header["batch_size"] or 1)
        self.topk = 1.0
        self.kept: list[str] = []
        for rule in fusions()["partly_quantised"]:
            if tree.nodes[0].type in rule["classes"] and layout.weights in rule["dtypes"]:
                self.kept = rule["keeps_16_bit"]

    def read(self) -> Stack:
        tree = self.tree
        children = tree.children
        for index, node in enumerate(tree.nodes):
            if node.level == "ml":
                continue
            leaves = [i for i in children[index] if tree.nodes[i].level == "ml"]
            if leaves:
                self._module(index, leaves)
        if not self.found:
            raise InputError(f"{tree.header['model']}: no layer that an engine could launch")
        return Stack(tree, self.layout, list(self.found.values()))

    def _add(
        self,
        kind: str,
        dtype: str,
        shape: Sequence[float],
        members: list[tuple[int, float]],
        per: str = "token",
    ) -> None:
        key = (kind, dtype, tuple(shape), per)
        launch = self.found.setdefault(key, Launch(kind, dtype, tuple(float(x) for x in shape), per))
        launch.count += 1
        total = sum(share for _, share in members) or 1.0
        launch.members += [(i, share / total) for i, share in members]

    def _module(self, index: int, leaves: list[int]) -> None:
        nodes = self.tree.nodes
        names = {nodes[i].scope.rpartition(".")[2]: i for i in leaves if nodes[i].primitive == "Linear"}
        attention = [i for i in leaves if nodes[i].primitive == "Attention"]
        products = [i for i in leaves if nodes[i].primitive == "MatMul"]
        if "kv_a_proj_with_mqa" in names and attention:
            self._latent(leaves, attention[0], names)
            return
        self._products(index, leaves, names)
        for i in leaves:
            if nodes[i].primitive == "TopK":
                self.topk = float(_dims((nodes[i].shapes or {})["out"][0])[-1])
        experts = [i for i in leaves if nodes[i].primitive == "GroupedExperts"]
        if not experts and len(products) == 2 and len(_dims(nodes[products[0]].shapes["in"][0])) == 3:  # type: ignore[index]
            experts = products  # every expert over every token, as one batched product
        if experts:
            self._experts(experts)
            return  # activation, sorting and sums are inside the experts' kernels
        if attention or len(products) >= 2:
            self._attention(attention, products, names)
        self._memory(leaves, "Mamba" in nodes[index].type)

    def _products(self, index: int, leaves: list[int], names: dict[str, int]) -> None:
        nodes, done = self.tree.nodes, set()
        for group in self.table["together"]:
            members = [names[n] for n in group if n in names]
            if len(members) > 1 and len({nodes[i].features["gemm_k"] for i in members}) == 1:
                self._product(members, group[0])
                done.update(members)
        for i in leaves:
            if nodes[i].primitive == "Linear" and i not in done:
                self._product([i], nodes[i].scope.rpartition(".")[2])

    def _product(self, members: list[int], name: str) -> None:
        nodes, tp = self.tree.nodes, self.layout.tp
        n = sum(nodes[i].features["gemm_n"] for i in members)
        k = nodes[members[0]].features["gemm_k"]
        per = "token"
        parent = nodes[nodes[members[0]].parent]
        if parent.parent < 0 or name == "lm_head":
            per = "sequence"
        scope = nodes[members[0]].scope
        keeps = name in self.table["unquantised"] + self.table["replicated"] or any(
            x in scope for x in self.kept
        )
        dtype = "bfloat16" if keeps or per == "sequence" else self.layout.weights
        shares = [(i, nodes[i].features["gemm_n"]) for i in members]
        if name in self.table["replicated"]:
            self._add("gemm", "bfloat16", (n, k), shares)
        elif name in self.table["row_parallel"]:
            self._add("gemm", dtype, (n, k / tp), shares, per)
            self._reduce(members[0], n)
        else:
            self._add("gemm", dtype, (n / tp, k), shares, per)

    def _reduce(self, node: int, width: float) -> None:
        if self.layout.tp > 1:
            self._add("all_reduce", "bfloat16", (self.layout.tp, 2.0 * width), [(node, 1.0)])

    def _attention(self, fused: list[int], products: list[int], names: dict[str, int]) -> None:
        nodes, tp = self.tree.nodes, self.layout.tp
        first = nodes[(fused or products)[0]]
        query, keys = _dims(first.shapes["in"][0]), _dims(first.shapes["in"][1])  # type: ignore[index]
        heads, d = query[1] * query[2], query[3]
        length = keys[2] if fused else keys[3]
        kv = float(keys[1])
        if "k_proj" in names:
            kv = nodes[names["k_proj"]].features["gemm_n"] / d
        window = 0.0 if length > int(self.tree.header["past_len"]) else float(length)
        members = [(i, max(nodes[i].features["mem_bytes"], 1e-9)) for i in (fused or products)]
        self._add(
            "attention", self.layout.cache, (max(1.0, heads / tp), max(1.0, kv / tp), d, window), members
        )

    def _latent(self, leaves: list[int], attention: int, names: dict[str, int]) -> None:
        nodes = self.tree.nodes
        heads = _dims(nodes[attention].shapes["in"][0])[1]  # type: ignore[index]
        weights = self.layout.weights
        members = [
            (i, nodes[i].features["mem_bytes"])
            for i in leaves
            if nodes[i].primitive in ("Linear", "Attention")
        ]
        self._add("mla", f"{weights}/{self.layout.cache}", (max(1.0, heads / self.layout.tp),), members)
        self._reduce(names["o_proj"], nodes[names["o_proj"]].features["gemm_n"])

    def _experts(self, members: list[int]) -> None:
        first = self.tree.nodes[members[0]]
        text = " ".join(str(x) for x in (first.shapes or {}).get("ops", []))
        found = re.search(r"_grouped_mm\((\d+)x(\d+):\w+[^;]*;(\d+)x(\d+)x(\d+)", text)
        if found:
            pairs, hidden, experts, _, wide = (float(x) for x in found.groups())
            self.topk = pairs / self.batch
        elif "gemm_batch" in first.features:
            experts, wide, hidden = (first.features[f"gemm_{x}"] for x in ("batch", "n", "k"))
        else:
            raise InputError(f"{first.scope}: cannot read the experts' shapes")
        lay = self.layout
        ep = lay.ep if lay.ep > 1 else 1
        shape = (hidden, wide / 2.0, self.topk, experts, 1 if ep > 1 else lay.gpus, ep, 1.2)
        self._add("experts", lay.weights, shape, [(i, 1.0) for i in members])
        if lay.gpus > 1:
            self._add("all_reduce", "bfloat16", (lay.gpus, 2.0 * hidden), [(members[0], 1.0)])

    def _memory(self, leaves: list[int], state_space: bool) -> None:
        nodes, tp = self.tree.nodes, self.layout.tp
        if state_space:
            self._state(leaves)
        for rule in self.table["memory"].values():
            own = [i for i in leaves if nodes[i].primitive in rule["primitives"]]
            split = 1 if rule["primitives"][0] in ("RMSNorm", "Embedding", "TopK") else tp
            # an activation and the product behind it are one kernel; each norm is one of its own
            for members in [own] if rule["passes"] == 3.0 else [[i] for i in own]:
                if members:
                    elements = [max(nodes[i].features.get("elements", 0.0), 1.0) for i in members]
                    size = 2.0 * rule["passes"] * sum(elements) / self.batch / split
                    self._add("memory", "bfloat16", (size, 0.0), list(zip(members, elements, strict=True)))

    def _state(self, leaves: list[int]) -> None:
        """The recurrent state of a Mamba layer: read and written once a step, whatever the context."""
        nodes, largest = self.tree.nodes, 0.0
        others = [i for i in leaves if nodes[i].primitive not in ("Linear", "RMSNorm")]
        for i in others:
            for dims in _all_dims(nodes[i]):
                if len(dims) == 4 and dims[0] == self.batch:
                    largest = max(largest, float(dims[1] * dims[2] * dims[3]))
        if others and largest:
            members = [(i, max(nodes[i].features["mem_bytes"], 1e-9)) for i in others]
            size = 2.0 * 4.0 * largest / self.layout.tp
            self._add("memory", "bfloat16", (0.0, size), members)


def _dims(text: str) -> list[int]:
    return [int(x) for x in text.partition(":")[0].split("x")]


def _all_dims(node: Node) -> list[list[int]]:
    shapes = node.shapes or {}
    return [[int(x) for x in found.split("x")] for key in ("in", "out", "ops") for text in shapes.get(key, [])
            for found in _SHAPE.findall(str(text))]  # fmt: skip
