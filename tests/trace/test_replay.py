"""Captured nodes run just what the model ran there, as an operator log of our own counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from irene_build.trace import trace
from irene_build.trace.keys import work_keys
from irene_build.trace.replay import capture

TINY = "bert_uncased_L-2_H-128_A-2"


class OperatorLog(TorchDispatchMode):
    """Counts operators that give new memory; views share their input's storage."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        held = {a.data_ptr() for a in args if isinstance(a, torch.Tensor)}
        made = [t for t in (result if isinstance(result, (tuple, list)) else [result]) if torch.is_tensor(t)]
        if not made or any(t.data_ptr() not in held for t in made):
            self.seen[func.name()] += 1
        return result


def operators_of(run: Callable[[], None]) -> Counter[str]:
    with OperatorLog() as log:
        run()
    return log.seen


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_leaves_together_run_what_the_model_runs(attention: str) -> None:
    captured = capture(TINY, 2, 8, attention=attention)
    assert set(captured.runners) == set(range(len(captured.tree.nodes)))
    leaves: Counter[str] = Counter()
    for index, node in enumerate(captured.tree.nodes):
        if node.level == "ml":
            leaves += operators_of(captured.runners[index])
    assert leaves == operators_of(captured.runners[0])
    assert leaves["aten::addmm"] == 13


def test_indices_are_those_of_a_trace_on_the_meta_device() -> None:
    captured = capture(TINY, 2, 8, only=[])
    meta = trace(TINY, 2, 8)
    assert [n.to_json() for n in captured.tree.nodes] == [n.to_json() for n in meta.nodes]
    assert captured.runners == {}


def test_only_the_nodes_that_were_asked_for_are_kept() -> None:
    captured = capture(TINY, 2, 8, only={3, 5})
    assert set(captured.runners) == {3, 5}


def test_equal_layers_share_a_key_and_others_do_not() -> None:
    tree = trace(TINY, 2, 8)
    keys = dict(zip(((n.scope, n.type) for n in tree.nodes), work_keys(tree), strict=True))
    first, second = keys["encoder.layer.0", "BertLayer"], keys["encoder.layer.1", "BertLayer"]
    assert first == second
    assert (
        keys["encoder.layer.0.attention.self.query", "Linear"]
        == keys["encoder.layer.1.attention.self.key", "Linear"]
    )
    assert (
        keys["encoder.layer.0.intermediate.dense", "Linear"] != keys["encoder.layer.0.output.dense", "Linear"]
    )


def test_layers_of_bert_and_roberta_are_equal_work() -> None:
    layer = {}
    for name, kind in (("bert-base-uncased", "BertLayer"), ("roberta-base", "RobertaLayer")):
        tree = trace(name, 2, 8)
        index = next(i for i, n in enumerate(tree.nodes) if n.type == kind)
        layer[name] = work_keys(tree)[index]
    assert layer["bert-base-uncased"] == layer["roberta-base"]


def test_size_and_dtype_change_a_key() -> None:
    keys = {
        work_keys(trace(TINY, batch, seq, dtype=dtype))[0]
        for batch, seq, dtype in (
            (2, 8, "float32"),
            (1, 8, "float32"),
            (2, 16, "float32"),
            (2, 8, "bfloat16"),
        )
    }
    assert len(keys) == 4
