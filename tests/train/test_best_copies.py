"""Labels that were measured on another shape: hints where a shape has nothing else, never its truth."""

from __future__ import annotations

import numpy as np
import pytest

from irene_build.dataset.table import Dataset
from irene_build.evaluate.metrics import score
from irene_build.train import arithmetic, best
from irene_build.train.best import roofline
from irene_build.train.best.sample import sample
from tests.train import synthetic

SHAPES = np.array([[1.0], [2.0], [3.0]])
MODELS = {"a": (2, 64), "b": (3, 64), "c": (2, 128), "d": (3, 128)}


def fold(energy: list[float], of: list[int], copied: list[bool]) -> roofline.Shapes:
    n = len(energy)
    return roofline.fold(SHAPES, np.array(of), np.array(energy), np.ones(n), np.array(copied))


def test_a_copy_has_no_say_where_the_shape_itself_was_measured() -> None:
    own = fold([1.0, 2.0, 3.0, 3.1], [0, 1, 2, 2], [False] * 4)
    both = fold([1.0, 2.0, 3.0, 3.1, 9.0], [0, 1, 2, 2, 2], [False] * 4 + [True])
    for name in ("energy_j", "count", "nodes"):
        assert getattr(both, name).tolist() == pytest.approx(getattr(own, name).tolist())
    assert both.noise == own.noise


def test_a_copy_counts_where_it_is_all_there_is() -> None:
    found = fold([1.0, 2.0, 2.0, 3.0], [0, 1, 1, 2], [False, False, False, True])
    assert found.energy_j[2] == pytest.approx(3.0)
    assert found.count.tolist() == pytest.approx([1.0, 2.0, 1.0])


def test_the_spread_of_copies_is_not_noise_of_the_meter() -> None:
    apart = fold([1.0, 2.0, 3.0, 6.0], [0, 1, 2, 2], [False, False, True, True])
    assert apart.noise == 0.0


@pytest.fixture(scope="module")
def copied() -> Dataset:
    """A PC where leaves of the largest shape have the label of a smaller one; those of model d have their own."""
    made = synthetic.dataset(MODELS, [(1, 16), (2, 32), (4, 64), (8, 64)], hidden=("Copy", "Elementwise"))
    for tree in made.trees:
        if tree.model == "d":
            continue
        nodes = tree.tree.nodes
        linear = [
            i for i, node in enumerate(nodes) if node.primitive == "Linear" and tree.measurement[i] >= 0
        ]
        largest = max(linear, key=lambda i: nodes[i].features["flops"])
        other = next(i for i in linear if nodes[i].features["flops"] < nodes[largest].features["flops"])
        for index in linear:
            if nodes[index].features == nodes[largest].features and index > other:
                tree.energy_j[index] = tree.energy_j[other]
                tree.measurement[index] = tree.measurement[other]
    return made


def test_copies_are_known_and_labels_are_what_was_measured(copied: Dataset) -> None:
    data = sample(copied)
    assert data.copied.any() and not (data.copied & data.labelled).any()
    assert (data.hinted & ~data.labelled == data.copied).all()


def test_a_copied_label_is_compared_with_what_is_said_of_the_node_that_was_measured(copied: Dataset) -> None:
    answers = [p.energy_j for p in arithmetic.predict(best.fit(copied), copied.trees, "static")]
    found = score(copied.trees, answers)
    c = (found.model == "c") & (found.level == "ml")
    other = c & (found.own_j != found.predicted_j)
    assert 0 < other.sum() < c.sum()
    own = 100.0 * np.abs(found.own_j / found.energy_j - 1.0)
    assert own[other].mean() > 10.0 > 2.0 * found.error[other].mean()
