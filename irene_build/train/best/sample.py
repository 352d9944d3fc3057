"""The training data of one fit: the distinct nodes of a dataset, their weights and models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from irene_build.dataset.table import Dataset, gpu_energy_is_label
from irene_build.train.forest import collapse, flatten
from irene_runtime.features import MODEL_FEATURES, RESOURCE_FEATURES
from irene_runtime.tree import LEVELS

#: Model features that describe how a row was published, or follow from others, and not what runs.
_UNUSED = ("flops_2021", "mem_bytes_2021", "bytes_per_element")
SHAPE_NAMES = tuple(name for name in MODEL_FEATURES if name not in _UNUSED)


@dataclass
class TrainingSet:
    """``m`` distinct nodes, children before parents.

    ``names``: the columns of ``features`` (float64[m, f]), SHAPE_NAMES, then RESOURCE_FEATURES.
    ``energy_j``: float64[m], NaN without label. ``level``: int8[m]. ``primitive``: str[m], empty above the
    leaves. ``model``: int64[m], index into ``models``. ``count``: float64[m], nodes that each
    stands for. ``steps``: edges
    (parent, child, times) by the height of the parent, lowest first. ``root``: bool[m]. ``copied``: bool[m], the
    label is a copy of what was measured on another shape of as much work: a hint, where its own shape has no label.
    """

    names: tuple[str, ...]
    models: tuple[str, ...]
    features: np.ndarray
    energy_j: np.ndarray
    level: np.ndarray
    primitive: np.ndarray
    model: np.ndarray
    count: np.ndarray
    steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    root: np.ndarray
    copied: np.ndarray

    @property
    def leaf(self) -> np.ndarray:
        return self.level == LEVELS.index("ml")

    @property
    def labelled(self) -> np.ndarray:
        """bool[m]: nodes with a label that was measured on their own shape."""
        return ~np.isnan(self.energy_j) & ~self.copied

    @property
    def hinted(self) -> np.ndarray:
        """bool[m]: nodes with a label, their own or one of another shape."""
        return ~np.isnan(self.energy_j)

    def column(self, name: str) -> np.ndarray:
        return self.features[:, self.names.index(name)]

    def at(self, level: str) -> np.ndarray:
        """bool[m]: the nodes of a level."""
        return self.level == LEVELS.index(level)

    @property
    def kind(self) -> np.ndarray:
        """str[m]: the primitive, above the leaves the level."""
        return np.where(self.leaf, self.primitive, np.array(LEVELS)[self.level])

    def without(self, gone: np.ndarray) -> TrainingSet:
        """The same nodes with the labels and weights of these (bool[m]) gone."""
        return replace(
            self,
            energy_j=np.where(gone, np.nan, self.energy_j),
            count=np.where(gone, 0.0, self.count),
        )


def sample(dataset: Dataset) -> TrainingSet:
    """Collapse a dataset. With NVML labels gpu_energy is the label, not a feature: it is unknown (rule 4)."""
    names = SHAPE_NAMES + RESOURCE_FEATURES
    forest = flatten(dataset.trees, names)
    copied = np.concatenate([tree.of_another_shape for tree in dataset.trees])
    if gpu_energy_is_label(dataset.label_source):
        forest.features[:, names.index("gpu_energy")] = np.nan
    models = tuple(dataset.models)
    order = {model: index for index, model in enumerate(models)}
    of_tree = np.array([order[tree.model] for tree in dataset.trees], dtype=np.int64)
    # A node of one model never stands for one of another: a model that is held out leaves nothing behind.
    apart = replace(forest, features=np.column_stack([forest.features, of_tree[forest.tree], copied]))
    folded = collapse(apart)
    node = folded.node
    return TrainingSet(
        names,
        models,
        forest.features[node],
        forest.energy_j[node],
        forest.level[node],
        forest.primitive[node],
        of_tree[forest.tree[node]],
        folded.count,
        folded.steps(),
        forest.parent[node] < 0,
        copied[node],
    )
