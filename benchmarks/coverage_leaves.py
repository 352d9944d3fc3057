"""Whether every aten operation of a pass is in exactly one leaf, by a log that shares no code with the tracer.

The log is a dispatch mode and hooks of its own below the tracer's, on real CPU tensors: it sees what torch is
given to run. It decides by itself which operations are work (they fill new memory, write in place or read a value)
and which are not (views, reserved memory), and in which module each one ran.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: What reserves memory or checks something, and runs no kernel that fills a tensor.
_NO_WORK = (
    "aten::empty",
    "aten::new_empty",
    "prim::",
    "aten::_assert",
    "aten::is_pinned",
    "aten::_has_compatible",
)


def _tensors(values: Any) -> list[Any]:
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    return [t for v in values for t in _tensors(v)] if isinstance(values, (list, tuple)) else []


class OperationLog(TorchDispatchMode):
    """``seen``: (operation, innermost module) of everything that is work, in order. Use as a context."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._handles = []
        for scope, module in model.named_modules():
            self._handles.append(
                module.register_forward_pre_hook(lambda *_, scope=scope: self._open.append(scope))
            )
            self._handles.append(module.register_forward_hook(self._close))

    def _close(self, *_: Any) -> None:
        self._open.pop()

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        for handle in self._handles:
            handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        if not self._open or name.startswith(_NO_WORK) or torch.Tag.inplace_view in func.tags:
            return result
        held = {t.untyped_storage()._cdata for t in _tensors([args, kwargs or {}])}
        made = _tensors(result)
        if made and not func._schema.is_mutable and all(t.untyped_storage()._cdata in held for t in made):
            return result
        self.seen.append((name.partition("::")[2], self._open[-1]))
        return result


def compare(log: OperationLog, owners: list[tuple[str, int, str | None]], assembler: Any) -> dict[str, Any]:
    """The log beside the tracer's owners: what is lost, counted twice or elsewhere, and leaves that own nothing."""
    ours, theirs = Counter(name for name, _, _ in owners), Counter(name for name, _ in log.seen)
    misplaced: list[str] = []
    owned: set[int] = set()
    aligned = [name for name, _, _ in owners] == [name for name, _ in log.seen]
    for number, (name, sequence, own) in enumerate(owners):
        index = assembler.positions.get((sequence, own))
        leaf = assembler.nodes[index] if index is not None else None
        if leaf is None or leaf.level != "ml":
            misplaced.append(f"{name} in no leaf")
            continue
        owned.add(index)
        scope = log.seen[number][1] if aligned else leaf.scope
        if leaf.scope != scope and not scope.startswith(f"{leaf.scope}."):
            misplaced.append(f"{name} ran in {scope or '(root)'}, is in {leaf.scope or '(root)'}:{leaf.type}")
    leaves = [i for i, node in enumerate(assembler.nodes) if node.level == "ml"]
    return {
        "operations": len(log.seen), "leaves": len(leaves), "in_order": aligned,
        "lost": sorted((theirs - ours).elements())[:10], "too_many": sorted((ours - theirs).elements())[:10],
        "misplaced": misplaced[:10],
        "empty": [f"{assembler.nodes[i].scope}:{assembler.nodes[i].type}" for i in leaves if i not in owned][:10],
    }  # fmt: skip


def _seed() -> None:
    """Draws steer some models (random attention): the same ones for each pass."""
    import random

    import numpy as np

    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def leaf_check(spec: Any, run: Any, max_bytes: int) -> dict[str, Any]:
    """Runs ``spec`` with real tensors under the tracer and the log. Raises ModelError where it does not run."""
    from irene_build.errors import ModelError
    from irene_build.models.build import instantiate
    from irene_build.trace import conditions, tracer
    from irene_build.trace.assemble import Assembler
    from irene_build.trace.inputs import prepare
    from irene_build.trace.recorder import Recorder

    bare = instantiate(spec, run.dtype, run.attention, "meta")
    size = sum(p.numel() * p.element_size() for p in bare.parameters())
    if size > max_bytes:
        raise ModelError(f"{size / 2**30:.1f} GiB of weights: too large for this benchmark")
    _seed()
    module = instantiate(spec, run.dtype, run.attention, "cpu")
    errors: list[ModelError] = []
    for variant in range(tracer.variants(module, run)):
        trial = replace(run, variant=variant, tensors="cpu")
        with tracer.collecting(errors):
            # The first pass: some models keep tables from it, so that later ones run less.
            tracer.record(module, spec.name, trial)
            break
    else:
        raise errors[0]
    _seed()
    tree, _ = tracer.record(module, spec.name, trial)
    _seed()
    with conditions.evaluating(module), conditions.ordinary_run():
        inputs, _ = prepare(module, trial, "cpu", None)
        recorder = Recorder(module, audit=True)
        log = OperationLog(module)
        with log, recorder:
            module(**inputs)
    header = {"batch_size": tree.header["batch_size"], "seq_len": tree.header["seq_len"]}
    assembler = Assembler(header, recorder.weights)
    assert recorder.root is not None
    audited = assembler.tree(recorder.root)
    found = compare(log, recorder.owners, assembler)
    # The audit must not have changed the tree that a user gets.
    found["same_tree"] = [n.to_json() for n in tree.nodes] == [n.to_json() for n in audited.nodes]
    faults = any(found[what] for what in ("lost", "too_many", "misplaced", "empty"))
    found["exact"] = found["in_order"] and found["same_tree"] and not faults
    return found
