"""Copies of a measurement know which node was measured, and whether that had their shape."""

from __future__ import annotations

import numpy as np

from irene_build.dataset.table import LabelledTree
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import ModelTree, Node


def labelled(sizes: list[float], measurement: list[int]) -> LabelledTree:
    nodes = [Node("", "M", "model", -1, None, 0, {"flops": -1.0})]
    nodes += [Node(f"a{i}", "Linear", "ml", 0, "Linear", 0, {"flops": size}) for i, size in enumerate(sizes)]
    n = len(nodes)
    return LabelledTree(
        ModelTree(nodes, {"model": "m", "batch_size": 1, "seq_len": 1}),
        np.ones(n),
        np.ones((n, len(RESOURCE_FEATURES))),
        np.array([0, *measurement]),
        np.full(n, np.nan),
    )


def test_the_first_node_of_a_measurement_is_the_one_that_was_measured() -> None:
    tree = labelled([1.0, 2.0, 1.0, 2.0, 5.0], [7, 8, 7, 8, -1])
    assert tree.measured_on.tolist() == [0, 1, 2, 1, 2, 5]
    assert not tree.of_another_shape.any()


def test_nodes_without_a_measurement_stand_for_themselves() -> None:
    tree = labelled([1.0, 2.0], [-1, -1])
    assert tree.measured_on.tolist() == [0, 1, 2] and not tree.of_another_shape.any()


def test_a_copy_of_another_shape_is_told_from_one_of_its_own() -> None:
    tree = labelled([1.0, 1.0, 3.0], [4, 4, 4])
    assert tree.measured_on.tolist() == [0, 1, 1, 1]
    assert tree.of_another_shape.tolist() == [False, False, False, True]
