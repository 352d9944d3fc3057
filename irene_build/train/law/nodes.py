"""Trees as an estimator with a law sees them: a Host leaf, and what the law says of every node as features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irene_build.dataset.table import LabelledTree
from irene_runtime.law import Law
from irene_runtime.tree import ModelTree, Node


def hosted(labelled: LabelledTree) -> LabelledTree:
    """The tree with its Host leaf, which has no label and no resource features."""
    tree = Law.with_host(labelled.tree)
    if tree is labelled.tree:
        return labelled
    return LabelledTree(
        tree,
        np.append(labelled.energy_j, np.nan),
        np.vstack([labelled.resources, np.full(labelled.resources.shape[1], np.nan)]),
        np.append(labelled.measurement, -1),
        np.append(labelled.energy_std_j, np.nan),
    )


def with_law(trees: Sequence[LabelledTree], law: Mapping[str, Any]) -> list[LabelledTree]:
    """The trees with ``law_time`` and ``law_energy`` at every node."""
    compiled = Law(law)
    return [_one(hosted(tree), compiled) for tree in trees]


def _one(labelled: LabelledTree, law: Law) -> LabelledTree:
    nodes = []
    for node, more in zip(labelled.tree.nodes, law.features(labelled.tree), strict=True):
        features = {**node.features, **more}
        nodes.append(
            Node(node.scope, node.type, node.level, node.parent, node.primitive, node.call, features)
        )
    return LabelledTree(
        ModelTree(nodes, labelled.tree.header), labelled.energy_j, labelled.resources, labelled.measurement,
        labelled.energy_std_j,
    )  # fmt: skip
