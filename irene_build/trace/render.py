"""A model tree as text, and the difference of two."""

from __future__ import annotations

from typing import Any

from irene_runtime.tree import ModelTree, Node

from .keys import work_keys

#: --sort name -> feature.
SORTS = {"flops": "flops", "bytes": "mem_bytes", "params": "num_parameters"}
_LETTERS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float) -> str:
    """``43.8 G``, ``1.2 M``, ``512``: three digits that count."""
    for unit, letter in _LETTERS:
        if abs(value) >= 0.9995 * unit:
            return (
                f"{value / unit:.3g} {letter}"
                if abs(value) < 999.5 * unit
                else f"{value / unit:.0f} {letter}"
            )
    return f"{value:.3g}"


def size(mebibytes: float) -> str:
    for unit, name in ((2**20, "TiB"), (2**10, "GiB"), (1, "MiB")):
        if abs(mebibytes) >= unit:
            return (
                f"{mebibytes / unit:.3g} {name}"
                if abs(mebibytes) < 999.5 * unit
                else f"{mebibytes / unit:.0f} {name}"
            )
    return f"{mebibytes * 1024:.3g} KiB" if mebibytes else "0"


def title(tree: ModelTree) -> str:
    head = tree.header
    past = f" behind {head['past_len']}" if head["past_len"] else ""
    weights = f", {head['weights']} weights" if head.get("weights") else ""
    return (
        f"{head['model']}, {head['batch_size']} x {head['seq_len']}{past}, {head['phase']}, {head['dtype']}{weights}, "
        f"{(head.get('traced_by') or {}).get('attention_ran', head['attention'])}, cost model {head['cost_model']}"
        f"{_traced_on(tree)}"
    )


def _traced_on(tree: ModelTree) -> str:
    """``, traced on meta``; nothing where the tree does not say."""
    tensors = _tensors(tree)
    return f", traced on {tensors}" if tensors else ""


def _tensors(tree: ModelTree) -> str:
    """The kind of tensors that a tree was traced on; trees of earlier versions call it ``rung``."""
    by = tree.header.get("traced_by") or {}
    return str(by.get("tensors", by.get("rung", "")))


def rows(tree: ModelTree, depth: int | None = None, sort: str = "", collapse: bool = True) -> list[list[str]]:
    """Lines of cells: name, primitive, FLOPs, bytes, parameters, kernels.

    Equal siblings in a row (the layers of BERT), or of one list (every other layer of Gemma), are one line ``12 x``
    with the numbers of one of them.
    """
    children, keys = tree.children, work_keys(tree)
    out: list[list[str]] = []

    def add(index: int, level: int, times: int) -> None:
        node = tree.nodes[index]
        f = node.features
        name = _short(tree, index)
        prefix = "  " * level + (f"{times} x " if times > 1 else "")
        out.append([
            prefix + name, node.primitive or "", amount(f.get("flops", 0.0) * 1e6), size(f.get("mem_bytes", 0.0)),
            amount(f.get("num_parameters", 0.0)), f"{f['kernels']:g}" if "kernels" in f else "",
        ])  # fmt: skip
        if depth is not None and level >= depth:
            return
        below = list(children[index])
        if sort:
            below.sort(key=lambda i: -tree.nodes[i].features.get(SORTS[sort], 0.0))
        for group in _alike(tree, below, keys) if collapse else [[index] for index in below]:
            add(group[0], level + 1, len(group))

    add(0, 0, 1)
    return out


def _alike(tree: ModelTree, below: list[int], keys: list[str]) -> list[list[int]]:
    """Siblings that do the same work: neighbours, and members of a list (scopes that differ in a number alone)."""
    groups: list[list[int]] = []
    lists: dict[tuple[str, str], list[int]] = {}
    for index in below:
        parts = tree.nodes[index].scope.split(".")
        member = (".".join("#" if p.isdigit() else p for p in parts), keys[index])
        if groups and keys[groups[-1][0]] == keys[index]:
            groups[-1].append(index)
        elif parts[-1].isdigit() and member in lists:
            lists[member].append(index)
        else:
            groups.append([index])
        if parts[-1].isdigit():
            lists.setdefault(member, groups[-1])
    return groups


def _short(tree: ModelTree, index: int) -> str:
    """The scope below the parent's, and the type: ``attention.self: BertSelfAttention``."""
    node = tree.nodes[index]
    if node.parent < 0:
        return node.type
    above = tree.nodes[node.parent].scope
    scope = node.scope[len(above) :].lstrip(".") if node.scope.startswith(above) else node.scope
    call = f" #{node.call}" if node.call else ""
    return (f"{scope}: {node.type}" if scope else node.type) + call


def reach(tree: ModelTree) -> str:
    """A sentence where the run left parameters out; empty where it touched nearly all."""
    by = tree.header.get("traced_by") or {}
    share = by.get("executed_parameters", 1.0)
    if share >= 0.99:
        return ""
    parts = [f"this run touched {100 * share:.1f} % of the parameters"]
    if by.get("run_in_prefill"):
        parts.append(f"run in the prefill only: {listed(by['run_in_prefill'])}")
    if "left_out" in by:
        parts.append(f"left out: {listed(by['left_out']) or 'parts of some modules'}")
        others = ", ".join(by.get("inputs_not_given", [])[:8])
        parts.append(f"inputs not given: {others}" if others else "no input of forward is missing")
    if by.get("inputs_refused"):
        parts.append(f"tried with more inputs first: {by['inputs_refused']}")
    return "; ".join(parts)


def listed(scopes: list[str], most: int = 6) -> str:
    """Scopes that differ in numbers alone as one: ``decoder.block.0-5.attention``."""
    groups: dict[str, list[list[int]]] = {}
    for scope in scopes:
        numbers = [int(part) for part in scope.split(".") if part.isdigit()]
        shape = ".".join("#" if part.isdigit() else part for part in scope.split("."))
        groups.setdefault(shape, []).append(numbers)
    found = []
    for shape, members in groups.items():
        for column in zip(*members, strict=True):
            low, high = min(column), max(column)
            shape = shape.replace("#", str(low) if low == high else f"{low}-{high}", 1)
        found.append(shape)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def otherwise(tree: ModelTree) -> str:
    """A sentence where the model runs in another way than was asked for: fewer tokens, other attention; else empty."""
    by, head = tree.header.get("traced_by") or {}, tree.header
    said = []
    if "seq_len_asked" in by:
        asked = by["seq_len_asked"]
        said.append(
            f"traced with {head['seq_len']} tokens, as many as it has positions for, not {asked} as asked"
        )
    if "attention_ran" in by:
        said.append(f"traced with {by['attention_ran']} attention: it has no {head['attention']}")
    return "; ".join(said)


#: What tensors other than those on meta mean for the reader of a tree.
_TENSORS = {
    "fake": "traced with fake tensors, since the meta device refused an operation",
    "cpu": "traced with real tensors (random weights where it is named), since values steer it: other values may run "
    "other parts",
    "real": "traced while it ran on a real device",
}


def fallback(tree: ModelTree) -> str:
    """A sentence where the tree is not what was asked for on the meta device; empty where it is."""
    by = tree.header.get("traced_by") or {}
    if "dtype_asked" in by:
        return (
            f"traced in {tree.header['dtype']}, not in {by['dtype_asked']} as asked: its operations exist in "
            "that dtype only, and bytes are those of it"
        )
    return _TENSORS.get(_tensors(tree), "")


_SHOWN = ("flops", "mem_bytes", "weight_bytes", "kernels", "num_parameters")


def difference(a: ModelTree, b: ModelTree) -> dict[str, Any]:
    """What differs: totals, totals by primitive, and nodes (matched by scope, type and call).

    Trees whose scopes have nothing in common below the root differ in every node; their totals still compare.
    """
    totals = {n: [a.nodes[0].features.get(n, 0.0), b.nodes[0].features.get(n, 0.0)] for n in _SHOWN}
    primitives: dict[str, dict[str, list[float]]] = {}
    for side, tree in enumerate((a, b)):
        for node in tree.nodes:
            if node.primitive is None:
                continue
            entry = primitives.setdefault(
                node.primitive, {n: [0.0, 0.0] for n in ("count", "flops", "mem_bytes", "kernels")}
            )
            entry["count"][side] += 1
            for name in ("flops", "mem_bytes", "kernels"):
                entry[name][side] += node.features.get(name, 0.0)
    first, second = _by_name(a), _by_name(b)
    nodes = []
    for key in dict.fromkeys([*first, *second]):
        left, right = first.get(key), second.get(key)
        if left is not None and right is not None and _same(left, right):
            continue
        nodes.append({
            "scope": key[0], "type": key[1], "call": key[2],
            "a": _values(left), "b": _values(right),
        })  # fmt: skip
    return {"a": title(a), "b": title(b), "totals": totals, "primitives": primitives, "nodes": nodes}


def _by_name(tree: ModelTree) -> dict[tuple[str, str, int], Node]:
    return {(n.scope, n.type if n.parent >= 0 else "", n.call): n for n in tree.nodes}


def _same(left: Node, right: Node) -> bool:
    return all(left.features.get(n, 0.0) == right.features.get(n, 0.0) for n in _SHOWN)


def _values(node: Node | None) -> dict[str, float] | None:
    return None if node is None else {n: node.features.get(n, 0.0) for n in _SHOWN}
