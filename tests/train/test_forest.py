"""Folding equal subtrees changes the size of a forest and no sum over it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.train.forest import collapse, feature_matrix, flatten
from tests import synthetic

NAMES = ("batch_size", "seq_len", "input_size", "flops", "mem_bytes", "num_parameters", "latency")


def test_features_follow_the_rules_of_the_format() -> None:
    tree = synthetic.dataset(["tiny-bert"]).trees[0]
    tree.resources[3] = np.nan
    del tree.tree.nodes[4].features["flops"]
    found = dict(zip(NAMES, feature_matrix(tree, NAMES).T, strict=True))
    assert set(found["batch_size"]) == {2.0} and set(found["input_size"]) == {32.0}
    assert found["flops"][4] == 0.0
    assert np.isnan(found["latency"][3]) and np.isfinite(found["latency"][4])


def test_nodes_keep_their_parents_across_trees() -> None:
    trees = synthetic.dataset().trees
    forest = flatten(trees, NAMES)
    for number, tree in enumerate(trees):
        start = forest.starts[number]
        for index, node in enumerate(tree.tree.nodes):
            assert forest.parent[start + index] == (node.parent + start if node.parent >= 0 else -1)
            assert forest.tree[start + index] == number
    assert (forest.depth[forest.parent < 0] == 0).all()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_sums_up_the_tree_are_those_of_the_unfolded_forest(data: st.DataObject) -> None:
    models = data.draw(st.lists(st.sampled_from(list(synthetic.MODELS)), min_size=1, max_size=3))
    forest = flatten([synthetic.labelled(synthetic.tree(model, 2, 16)) for model in models], NAMES)
    folded = collapse(forest)
    assert folded.count.sum() == len(forest.parent)
    assert len(folded.node) < len(forest.parent)
    own = np.where(forest.leaf, forest.features[:, 3] + 1.0, 0.0)
    plain = own.copy()
    for index in range(len(own) - 1, -1, -1):
        if forest.parent[index] >= 0:
            plain[forest.parent[index]] += plain[index]
    quick = own[folded.node]
    for parent, child, times in folded.steps():
        np.add.at(quick, parent, quick[child] * times)
    np.testing.assert_allclose(quick[folded.of], plain, rtol=1e-12)
    np.testing.assert_array_equal(forest.features[folded.node[folded.of]], forest.features)


def test_nodes_that_differ_in_their_label_stay_apart() -> None:
    tree = synthetic.labelled(synthetic.tree("tiny-bert", 2, 16))
    before = len(collapse(flatten([tree], NAMES)).node)
    tree.energy_j[-1] *= 2.0
    assert len(collapse(flatten([tree], NAMES)).node) > before
