"""A stable key of equal work, so that nodes that do the same are measured once."""

from __future__ import annotations

import hashlib
import json

from irene_runtime.tree import ModelTree


def work_keys(tree: ModelTree) -> list[str]:
    """Per node a hash of what it runs: primitives, shapes, dtypes and strides of its subtree, in order.

    Names do not count: the layers of BERT and of RoBERTa have the same key. Two nodes of one key run
    the same operations on tensors of the same shape (their values may differ).
    """
    nodes = tree.nodes
    children = tree.children
    keys = [""] * len(nodes)
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        what = [node.primitive, node.shapes or {}, [keys[child] for child in children[index]]]
        text = json.dumps(what, sort_keys=True, separators=(",", ":"))
        keys[index] = hashlib.sha256(text.encode()).hexdigest()[:32]
    return keys
