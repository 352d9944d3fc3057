"""Which trees are held out: the protocols of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError, InputError

PROTOCOLS = ("model-out", "family-out", "model+size-out")
#: Class of the root -> family, where several classes are one architecture in other clothes.
FAMILIES = {
    "BertModel": "bert", "RobertaModel": "bert", "DistilBertModel": "distilbert",
    "GPT2Model": "gpt", "OpenAIGPTModel": "gpt",
}  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """``held_out`` names what ``test`` is; nothing of ``test`` may reach a fit on ``train``."""

    held_out: str
    train: Dataset
    test: list[LabelledTree]


def family(tree: LabelledTree) -> str:
    """The family of a model: by the class of its root, models that one class builds are one family."""
    kind = tree.tree.nodes[0].type
    return FAMILIES.get(kind, kind.removesuffix("Model").lower())


def folds(dataset: Dataset, protocol: str) -> list[Fold]:
    """The folds of a protocol.

    ``model-out``: each model once (the paper's). ``family-out``: each family once. ``model+size-out``: each
    model once, tested at more input tokens than the median of the dataset, trained on the others at fewer.
    Raises InputError for another protocol, DatasetError where there is nothing to hold out.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"unknown protocol {protocol!r}: expected {', '.join(PROTOCOLS)}")
    groups: dict[str, list[LabelledTree]] = {}
    for tree in dataset.trees:
        groups.setdefault(family(tree) if protocol == "family-out" else tree.model, []).append(tree)
    if len(groups) < 2:
        what = "family" if protocol == "family-out" else "model"
        raise DatasetError(
            f"the dataset of {dataset.hardware!r} holds one {what} only ({next(iter(groups), 'none')}): "
            f"{protocol} needs at least two; measure another, or import one"
        )
    limit = _limit([_tokens(tree) for tree in dataset.trees])
    out = []
    for name, test in groups.items():
        inside = {id(tree) for tree in test}
        train = [tree for tree in dataset.trees if id(tree) not in inside]
        if protocol == "model+size-out":
            train = [tree for tree in train if _tokens(tree) <= limit]
            test = [tree for tree in test if _tokens(tree) > limit]
        if train and test:
            out.append(Fold(name, with_trees(dataset, train), test))
    if not out:
        raise DatasetError(
            f"the dataset of {dataset.hardware!r} has one input size only: {protocol} needs several"
        )
    return out


def _limit(tokens: list[int]) -> float:
    """The median, or the largest size below the largest, where nothing is above the median."""
    middle = float(np.median(tokens))
    below = [one for one in tokens if one < max(tokens)]
    return middle if middle < max(tokens) or not below else float(max(below))


def with_trees(dataset: Dataset, trees: list[LabelledTree]) -> Dataset:
    """The dataset with other trees."""
    return Dataset(
        dataset.hardware,
        dataset.boundary,
        dataset.provenance,
        dataset.label_source,
        trees,
        dict(dataset.info),
    )


def _tokens(tree: LabelledTree) -> int:
    header = tree.tree.header
    return int(header["batch_size"] or 0) * int(header["seq_len"] or 0)
