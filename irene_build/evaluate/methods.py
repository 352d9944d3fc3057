"""Methods and baselines behind one small interface: nothing of a held-out tree leaks into a fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree, gpu_energy_is_label
from irene_build.errors import DatasetError, InputError
from irene_runtime.features import RESOURCE_FEATURES


@dataclass
class Answer:
    """What a method says of one tree: float64[n] joules and interval, NaN where it says nothing."""

    energy_j: np.ndarray
    low_j: np.ndarray
    high_j: np.ndarray


#: Which labels a fit sees.
LABELS = ("all", "model")
#: (stripped trees, tier) -> answers.
Predictor = Callable[[Sequence[LabelledTree], str], list[Answer]]


@dataclass
class Method:
    """``view`` is how it sees a dataset, ``fit`` learns from one and gives its tiers and its predictor.

    ``reads``: a feature that must be known at a node itself (baselines of one constant).
    """

    name: str
    view: Callable[[Dataset], Dataset]
    fit: Callable[[Dataset], tuple[tuple[str, ...], Predictor]]


def stripped(tree: LabelledTree, tier: str, label_source: str) -> LabelledTree:
    """The tree as it is known when predicting: no labels, and the resource features of the tier alone.

    static: none; live: the root's; profile: every node's. The label's source is no feature (DESIGN, rule 4).
    """
    size = len(tree.energy_j)
    resources = np.full_like(tree.resources, np.nan)
    if tier == "profile":
        resources = tree.resources.copy()
    elif tier == "live":
        resources[0] = tree.resources[0]
    if gpu_energy_is_label(label_source):
        resources[:, RESOURCE_FEATURES.index("gpu_energy")] = np.nan
    unknown = np.full(size, np.nan)
    return LabelledTree(tree.tree, unknown, resources, np.full(size, -1, dtype=np.int64), unknown)


def counts_of(recipe: str | None) -> str:
    """What modules count (``dataset.view``): the authors' own rows in their recipe; else what a tracer gives.

    An estimator predicts trees that are traced today, so it learns from counts that are made the same way.
    """
    return "published" if recipe == "authors" else "irene2021"


def by_estimator(
    name: str,
    recipe: str | None = None,
    seed: int = 0,
    counts: str | None = None,
    tiers: Sequence[str] = ("static", "live", "profile"),
    labels: str = "all",
) -> Method:
    """``best`` or ``paper`` through an estimator and the trainer's own arithmetic.

    ``counts`` (method paper on an imported dataset): what modules count, as in ``counts_of``. ``labels``: ``all``,
    or ``model``: fits see the labels of whole models alone (method best), as after ``import table``.
    """
    from irene_build.train import api, arithmetic, estimator_file, paper, paper_estimator, whole_model

    def fit(dataset: Dataset) -> tuple[tuple[str, ...], Predictor]:
        if name == "paper":
            estimator = paper_estimator.fit(dataset, recipe or "converged", tiers, seed, counts=None)
        elif labels == "model":
            estimator = whole_model.fit(dataset, seed=seed)
        else:
            estimator = api.fit(dataset, name, recipe, tiers, seed)

        def predict(trees: Sequence[LabelledTree], tier: str) -> list[Answer]:
            found = arithmetic.predict(estimator, trees, tier)
            return [Answer(one.energy_j, one.low_j, one.high_j) for one in found]

        return tuple(tier for tier in estimator_file.TIERS if tier in estimator["tiers"]), predict

    seen = counts_of(recipe) if counts is None else counts
    if labels not in LABELS or (labels == "model" and name == "paper"):
        raise InputError(f"labels {labels!r}: expected {' or '.join(LABELS)}; method paper needs all")
    if name not in estimator_file.METHODS:
        raise InputError(f"unknown method {name!r}: expected {' or '.join(estimator_file.METHODS)}")
    return Method(name, (lambda d: paper.train_view(d, seen)[0]) if name == "paper" else _as_it_is, fit)


def paper_variant(
    name: str, features: Sequence[str], strategy: str = "end2end", recipe: str = "converged", seed: int = 0
) -> Method:
    """The paper's model without file and intervals: the ablations of Tables 8 and 9."""
    from irene_build.train import paper

    def fit(dataset: Dataset) -> tuple[tuple[str, ...], Predictor]:
        model = paper.fit(dataset, features, recipe, strategy, seed)
        return (_tier_of(model.names),), _plain(model.predict)

    return Method(name, lambda d: paper.train_view(d, counts_of(recipe))[0], fit)


def unstructured(name: str = "unstructured", recipe: str = "converged") -> Method:
    """One regression over modules and models, without the tree."""
    from irene_build.train import baselines, paper

    def fit(dataset: Dataset) -> tuple[tuple[str, ...], Predictor]:
        model = baselines.fit_unstructured(dataset)
        return (_tier_of(model.base.names),), _plain(model.predict)

    return Method(name, lambda d: paper.train_view(d, counts_of(recipe))[0], fit)


def constant(feature: str) -> Method:
    """Energy = constant times ``feature``."""
    from irene_build.train import baselines

    def fit(dataset: Dataset) -> tuple[tuple[str, ...], Predictor]:
        if feature == "gpu_energy" and gpu_energy_is_label(dataset.label_source):
            raise DatasetError("gpu_energy is the label here")
        return (_tier_of((feature,)),), _plain(baselines.fit_constant(dataset, feature).predict)

    return Method(feature, _as_it_is, fit)


def law() -> Method:
    """The physical law alone, fitted to the labels of whole models: what is learned has to be worth more."""
    from irene_build.train import whole_model

    def fit(dataset: Dataset) -> tuple[tuple[str, ...], Predictor]:
        return ("static",), _plain(whole_model.fit_law_alone(dataset))

    return Method("law-static", _as_it_is, fit)


def strubell(constants: Any) -> Method:
    """The software formula with a hardware profile's constants; nothing is fitted."""
    from irene_build.train import baselines

    formula = baselines.strubell(constants)
    return Method("strubell", _as_it_is, lambda dataset: (("profile",), _plain(formula.predict)))


def _as_it_is(dataset: Dataset) -> Dataset:
    return dataset


def _tier_of(features: Sequence[str]) -> str:
    return "profile" if set(features) & set(RESOURCE_FEATURES) else "static"


def _plain(predict: Callable[[Sequence[LabelledTree]], list[np.ndarray]]) -> Predictor:
    """A predictor without intervals."""

    def answers(trees: Sequence[LabelledTree], tier: str) -> list[Answer]:
        return [
            Answer(energy, np.full_like(energy, np.nan), np.full_like(energy, np.nan))
            for energy in predict(trees)
        ]

    return answers
