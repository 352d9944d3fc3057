"""Inner folds leave out models and families, which are told by what models are made of."""

from __future__ import annotations

import numpy as np

from irene_build.train.best import folds, module_signature
from irene_build.train.best.sample import TrainingSet, sample
from tests.train import synthetic

SIZES = [(1, 16), (4, 64)]
#: a and a2 are one architecture at two depths, and so are b and b2.
MODELS = {"a": (2, 64), "a2": (4, 64), "b": (2, 128), "b2": (3, 128), "c": (2, 256)}


def data(models: dict[str, tuple[int, int]] = MODELS) -> TrainingSet:
    return sample(synthetic.dataset(models, SIZES, hidden=("Copy", "Elementwise")))


def test_every_model_and_every_family_is_left_out() -> None:
    assert folds.left_out(data()) == [(0,), (1,), (2,), (3,), (4,), (0, 1), (2, 3)]
    assert folds.families_of(data()).tolist() == [0, 0, 2, 2, 4]


def test_names_say_nothing_of_a_family() -> None:
    renamed = {f"x{index}": size for index, size in enumerate(MODELS.values())}
    assert folds.left_out(data(renamed)) == folds.left_out(data())


def test_a_fold_leaves_something_to_learn_from() -> None:
    assert folds.left_out(data({"a": (2, 64), "a2": (4, 64)})) == [(0,), (1,)]
    assert folds.left_out(data({"a": (2, 64)})) == []


def test_models_without_a_label_are_in_no_fold() -> None:
    some = data()
    assert folds.left_out(some.without(some.model == 2)) == [(0,), (1,), (3,), (4,), (0, 1)]


def test_modules_are_far_where_no_other_model_has_their_kind() -> None:
    some = data()
    far = module_signature.unknown_signature(some, some.without(some.model == 4))
    modules = some.at("module")
    assert far[modules & (some.model == 4)].all() and not far[modules & (some.model != 4)].any()
    assert far[some.root & (some.model == 4)].all() and not far[some.root & (some.model != 4)].any()
    alone = module_signature.unknown_signature(some, some.without(np.isin(some.model, [0, 1])))
    assert alone[modules & (some.model == 1)].all()
