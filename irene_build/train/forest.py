"""A forest as arrays: what the fits and the vectorised arithmetic work on.

Nodes of all trees stand one after the other, in pre-order; ``collapse`` folds equal subtrees into one
node with a multiplicity, which leaves every sum over nodes as it was and makes it ten times cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irene_build.dataset.table import LabelledTree
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import LEVELS

_COLUMN = {name: column for column, name in enumerate(RESOURCE_FEATURES)}


def feature_matrix(labelled: LabelledTree, names: Sequence[str]) -> np.ndarray:
    """float64[nodes, names] in the units of ``irene_runtime.features``.

    By the rules of FORMAT.md: batch_size and seq_len are the header's, input_size is their product, a model
    feature that a node lacks is 0 (it does not apply), a resource feature that it lacks is NaN (unknown).
    """
    header, nodes = labelled.tree.header, labelled.tree.nodes
    sizes = {name: header[name] for name in ("batch_size", "seq_len")}
    if None not in sizes.values():
        sizes["input_size"] = sizes["batch_size"] * sizes["seq_len"]
    out = np.empty((len(nodes), len(names)))
    for column, name in enumerate(names):
        if name in _COLUMN:
            out[:, column] = labelled.resources[:, _COLUMN[name]]
        elif name in ("batch_size", "seq_len", "input_size"):
            out[:, column] = np.nan if sizes.get(name) is None else sizes[name]
        else:
            out[:, column] = [node.features.get(name, 0.0) for node in nodes]
    return out


@dataclass
class Forest:
    """``n`` nodes of ``t`` trees.

    ``features``: float64[n, f], columns as ``names``. ``level``: int8[n], index into ``tree.LEVELS``.
    ``primitive``: str[n], empty above the leaves. ``parent``: int64[n], -1 at roots. ``depth``: int64[n].
    ``tree``: int64[n], the tree a node belongs to; ``starts``: int64[t + 1]. ``energy_j``: float64[n], NaN
    without label. ``measurement``: int64[n], -1 for none.
    """

    names: tuple[str, ...]
    features: np.ndarray
    level: np.ndarray
    primitive: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    tree: np.ndarray
    starts: np.ndarray
    energy_j: np.ndarray
    measurement: np.ndarray

    @property
    def leaf(self) -> np.ndarray:
        """bool[n]: level ml."""
        return self.level == LEVELS.index("ml")

    @property
    def childless(self) -> np.ndarray:
        """bool[n]: nodes that take a leaf's regressor. So does a module without children: never a silent 0 J."""
        out = np.ones(len(self.parent), dtype=bool)
        out[self.parent[self.parent >= 0]] = False
        return out


def flatten(trees: Sequence[LabelledTree], names: Sequence[str]) -> Forest:
    """The trees as one forest with the features ``names``."""
    sizes = [len(tree.tree.nodes) for tree in trees]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    level, primitive, parent, depth = [], [], [], []
    for start, labelled in zip(starts, trees, strict=False):
        for node in labelled.tree.nodes:
            level.append(LEVELS.index(node.level))
            primitive.append(node.primitive or "")
            parent.append(node.parent + int(start) if node.parent >= 0 else -1)
        depth += labelled.tree.depths
    return Forest(
        tuple(names),
        np.concatenate([feature_matrix(tree, names) for tree in trees]),
        np.array(level, dtype=np.int8),
        np.array(primitive, dtype=str),
        np.array(parent, dtype=np.int64),
        np.array(depth, dtype=np.int64),
        np.repeat(np.arange(len(trees)), sizes),
        starts,
        np.concatenate([tree.energy_j for tree in trees]),
        np.concatenate([tree.measurement for tree in trees]),
    )


@dataclass
class Collapsed:
    """The distinct subtrees of a forest, children before parents.

    ``node``: int64[m], a node of the forest that stands for each; ``count``: float64[m], how often it occurs;
    ``of``: int64[n], the distinct node of every node. Edges ``parent``, ``child``, ``times``: child occurs
    ``times`` times below parent. ``height``: int64[m], 0 at nodes without children, else one more than the
    highest child.
    """

    node: np.ndarray
    count: np.ndarray
    of: np.ndarray
    height: np.ndarray
    parent: np.ndarray
    child: np.ndarray
    times: np.ndarray

    def steps(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Edges by the height of their parent, lowest first: (parent, child, times) of each step."""
        heights = self.height[self.parent]
        return [
            (self.parent[chosen], self.child[chosen], self.times[chosen])
            for chosen in (np.flatnonzero(heights == h) for h in range(1, int(heights.max(initial=0)) + 1))
        ]


def collapse(forest: Forest) -> Collapsed:
    """Fold subtrees that agree in features, level, primitive, label and children."""
    size = len(forest.parent)
    own = np.ascontiguousarray(np.column_stack([forest.features, forest.energy_j, forest.level]))
    _, row = np.unique(own.view(np.dtype((np.void, own.itemsize * own.shape[1]))), return_inverse=True)
    kinds = list(zip(row.ravel().tolist(), forest.primitive.tolist(), strict=True))
    below: list[dict[int, int]] = [{} for _ in range(size)]
    known: dict[tuple[object, ...], int] = {}
    of = np.empty(size, dtype=np.int64)
    node: list[int] = []
    height: list[int] = []
    edges: list[tuple[int, int, int]] = []
    parents = forest.parent.tolist()
    for index in range(size - 1, -1, -1):
        children = below[index]
        key = (kinds[index], *sorted(children.items()))
        number = known.get(key)
        if number is None:
            number = known[key] = len(node)
            node.append(index)
            height.append(1 + max((height[child] for child in children), default=-1))
            edges += [(number, child, times) for child, times in sorted(children.items())]
        of[index] = number
        if parents[index] >= 0:
            siblings = below[parents[index]]
            siblings[number] = siblings.get(number, 0) + 1
    table = np.array(edges, dtype=np.int64).reshape(-1, 3)
    return Collapsed(
        np.array(node, dtype=np.int64),
        np.bincount(of, minlength=len(node)).astype(np.float64),
        of,
        np.array(height, dtype=np.int64),
        table[:, 0],
        table[:, 1],
        table[:, 2].astype(np.float64),
    )
