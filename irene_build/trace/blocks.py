"""Folds trees into blocks: equal subtrees once, runs of equal layers in one line (tree format 2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from irene_runtime.tree import Node


class Folding:
    """Collects the expressions and blocks of one file."""

    def __init__(self) -> None:
        self.expressions: list[Any] = []
        self._expressions: dict[str, int] = {}
        self._blocks: list[dict[str, Any]] = []
        self._index: dict[str, int] = {}

    def expression(self, raw: Any) -> int:
        key = json.dumps(raw, sort_keys=True)
        if key not in self._expressions:
            self._expressions[key] = len(self.expressions)
            self.expressions.append(raw)
        return self._expressions[key]

    def add(self, nodes: Sequence[Node], features: Sequence[dict[str, Any]]) -> int:
        """The number of the root's block. ``features``: per node its expressions, as the file has them."""
        children: list[list[int]] = [[] for _ in nodes]
        for index, node in enumerate(nodes):
            if index:
                children[node.parent].append(index)
        numbers = [0] * len(nodes)
        for index in range(len(nodes) - 1, -1, -1):
            node = nodes[index]
            block: dict[str, Any] = {"type": node.type}
            if node.primitive is not None:
                block["primitive"] = node.primitive
            block["features"] = {name: self.expression(raw) for name, raw in features[index].items()}
            if (node.shapes or {}).get("is_causal"):
                block["shapes"] = {"is_causal": True}
            if children[index]:
                block["children"] = [
                    [_suffix(node.scope, nodes[c].scope), numbers[c]] for c in children[index]
                ]
            key = json.dumps(block)
            if key not in self._index:
                self._index[key] = len(self._blocks)
                self._blocks.append(block)
            numbers[index] = self._index[key]
        return numbers[0]

    def blocks(self) -> list[dict[str, Any]]:
        """All blocks, parents before their children; what ``add`` numbered n stands at ``place(n)``."""
        out = []
        for block in reversed(self._blocks):
            links = [[suffix, self.place(number)] for suffix, number in block.get("children", [])]
            out.append({**block, **({"children": _runs(links)} if links else {})})
        return out

    def place(self, number: int) -> int:
        return len(self._blocks) - 1 - number


def _suffix(parent: str, scope: str) -> str:
    if scope == parent:
        return ""
    if not parent:
        return scope
    return scope[len(parent) + 1 :] if scope.startswith(f"{parent}.") else f"/{scope}"


def _numbered(suffix: str) -> tuple[str, int] | None:
    """``layers.{}`` and 3 of ``layers.3``; None where no part is a number, or several are."""
    parts = suffix.split(".")
    at = [i for i, part in enumerate(parts) if part.isdigit() and str(int(part)) == part]
    if len(at) != 1 or "{}" in suffix:
        return None
    number = int(parts[at[0]])
    parts[at[0]] = "{}"
    return ".".join(parts), number


def _runs(links: list[list[Any]]) -> list[list[Any]]:
    """Links with runs of one block under rising numbers as ``[layers.{}, block, first, count]``."""
    out: list[list[Any]] = []
    for suffix, block in links:
        found = _numbered(suffix)
        last = out[-1] if out else None
        if found is not None:
            name, number = found
            if (
                last is not None
                and len(last) == 4
                and last[:2] == [name, block]
                and last[2] + last[3] == number
            ):
                last[3] += 1
                continue
            out.append([name, block, number, 1])
        else:
            out.append([suffix, block])
    return [
        [link[0].replace("{}", str(link[2])), link[1]] if len(link) == 4 and link[3] == 1 else link
        for link in out
    ]
