"""Protocols hold out what they say, and nothing of it is left in the training side."""

from __future__ import annotations

import pytest

from irene_build.dataset.splits import family, folds
from irene_build.errors import DatasetError, InputError
from tests import synthetic


def test_model_out_leaves_each_model_out_once() -> None:
    dataset = synthetic.dataset()
    found = folds(dataset, "model-out")
    assert [fold.held_out for fold in found] == dataset.models
    for fold in found:
        assert {tree.model for tree in fold.test} == {fold.held_out}
        assert fold.held_out not in fold.train.models
        assert len(fold.train.trees) + len(fold.test) == len(dataset.trees)


def test_family_out_leaves_relatives_out_together() -> None:
    found = folds(synthetic.dataset(), "family-out")
    assert [sorted({t.model for t in fold.test}) for fold in found] == [
        ["small-bert", "tiny-bert"], ["small-gpt", "tiny-gpt"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("RobertaModel", "bert"),
        ("DistilBertModel", "distilbert"),
        ("OpenAIGPTModel", "gpt"),
        ("LlamaModel", "llama"),
    ],
)
def test_families_go_by_the_class_of_the_root(kind: str, name: str) -> None:
    tree = synthetic.dataset(["tiny-bert"]).trees[0]
    tree.tree.nodes[0].type = kind
    assert family(tree) == name


def test_model_and_size_out_tests_larger_inputs_only() -> None:
    for fold in folds(synthetic.dataset(), "model+size-out"):
        largest = max(t.tree.header["batch_size"] * t.tree.header["seq_len"] for t in fold.train.trees)
        assert all(t.tree.header["batch_size"] * t.tree.header["seq_len"] > largest for t in fold.test)
        assert fold.held_out not in fold.train.models


def test_sizes_are_split_where_most_inputs_are_of_the_largest() -> None:
    dataset = synthetic.dataset(["tiny-bert", "tiny-gpt"], sizes=[(1, 16), (4, 16), (2, 32)])
    for fold in folds(dataset, "model+size-out"):
        assert [tree.tree.header["seq_len"] for tree in fold.train.trees] == [16]
        assert len(fold.test) == 2


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(DatasetError, match="holds one model only"):
        folds(synthetic.dataset(["tiny-bert"]), "model-out")
    with pytest.raises(DatasetError, match="holds one family only"):
        folds(synthetic.dataset(["tiny-bert", "small-bert"]), "family-out")
    with pytest.raises(DatasetError, match="one input size only"):
        folds(synthetic.dataset(sizes=[(2, 16)]), "model+size-out")
    with pytest.raises(InputError, match="unknown protocol"):
        folds(synthetic.dataset(), "tree-out")
