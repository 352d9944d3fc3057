"""From a dataset to an estimator: ``fit`` dispatches to a method. The file is ``estimator_file``'s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irene_build.dataset.table import Dataset
from irene_build.errors import InputError
from irene_build.train.estimator_file import METHODS, TIERS


def fit(
    dataset: Dataset,
    method: str = "best",
    recipe: str | None = None,
    tiers: Sequence[str] = TIERS,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit ``method`` to all trees of ``dataset`` and return the estimator (FORMAT.md).

    ``recipe`` belongs to method paper (``converged``, ``authors``). A tier that the dataset cannot give
    is left out. Raises InputError for unknown names, DatasetError where there is nothing to learn from.
    """
    unknown = [tier for tier in tiers if tier not in TIERS]
    if unknown or not tiers:
        raise InputError(f"tier {', '.join(unknown) or '(none)'}: expected some of {', '.join(TIERS)}")
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: expected {' or '.join(METHODS)}")
    if recipe is not None and method != "paper":
        raise InputError(f"recipe {recipe!r} belongs to --method paper; method best has none")
    from irene_build.train import best, paper_estimator, whole_model
    from irene_build.train.reading_ranges import with_ranges
    from irene_build.train.threads import one_thread

    with one_thread():
        if method == "paper":
            return paper_estimator.fit(dataset, recipe=recipe or "converged", tiers=tiers, seed=seed)
        if whole_model.roots_alone(dataset):
            return with_ranges(whole_model.fit(dataset, tiers, seed), dataset)
        return with_ranges(best.fit(dataset, tiers=tiers, seed=seed), dataset)
