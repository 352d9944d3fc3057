"""What goes into a bundle beside the numbers: trees to try it on, traced as the estimator was calibrated."""

from __future__ import annotations

import pytest

from irene_build.export import samples
from tests.export import examples


@pytest.mark.parametrize(
    ("calibrated", "traced"), [("eager", "eager"), ("sdpa", "sdpa"), ("mixed", "sdpa"), ("published", "sdpa")]
)
def test_trees_have_the_attention_that_was_measured_or_the_usual_one(calibrated: str, traced: str) -> None:
    data = {**examples.estimator(examples.PAPER), "attention": calibrated, "cost_model": "analytic"}
    trees = samples.example_trees(data, [("bert_uncased_L-2_H-128_A-2", 2, 8)])
    (tree,) = trees.values()
    assert tree.header["attention"] == traced
    kinds = {node.primitive for node in tree.nodes}
    assert ("Attention" in kinds) == (traced == "sdpa")
