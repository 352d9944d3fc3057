"""What the paper's method is fitted on: the distinct nodes of a dataset, and equation 4 over them with its gradient.

Copies are folded into one node with a multiplicity, apart for every model, so that leaving models out is a choice of
rows. The gradient is written out (a sum over edges, level by level): a step costs two products with the
polynomial features, 0.5 ms on the published data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from irene_build.dataset.splits import family
from irene_build.dataset.table import LabelledTree
from irene_build.train.forest import collapse, flatten
from irene_runtime.tree import LEVELS

TAU = 10.0
DEGREE = 3


@dataclass
class Nodes:
    """``m`` distinct nodes, closed under children.

    ``features``: float64[m, names]. ``energy_j``: float64[m], NaN without label. ``level``: int8[m], index into
    ``tree.LEVELS``. ``primitive``: str[m]. ``model``, ``family``: int64[m], numbers of what a node belongs to.
    ``count``: float64[m], how many nodes each stands for. ``height``: int64[m], 0 without children. Edges
    ``parent``, ``child``, ``times``: child occurs ``times`` times below parent.
    """

    names: tuple[str, ...]
    features: np.ndarray
    energy_j: np.ndarray
    level: np.ndarray
    primitive: np.ndarray
    model: np.ndarray
    family: np.ndarray
    count: np.ndarray
    height: np.ndarray
    parent: np.ndarray
    child: np.ndarray
    times: np.ndarray

    @property
    def leaf(self) -> np.ndarray:
        """bool[m]: level ml."""
        return np.asarray(self.level == LEVELS.index("ml"))

    @property
    def childless(self) -> np.ndarray:
        """bool[m]: nodes that take a leaf's regression, a module without children among them."""
        return np.asarray(self.height == 0)

    @property
    def labelled(self) -> np.ndarray:
        return ~np.isnan(self.energy_j)

    def columns(self, names: Sequence[str]) -> Nodes:
        """The same nodes with these features alone."""
        chosen = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), features=self.features[:, chosen])

    def where(self, rows: np.ndarray) -> Nodes:
        """The nodes of whole models (bool[m])."""
        place = np.cumsum(rows) - 1
        edges = rows[self.parent]
        own = ("features", "energy_j", "level", "primitive", "model", "family", "count", "height")
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in own},
            parent=place[self.parent[edges]],
            child=place[self.child[edges]],
            times=self.times[edges],
        )


def gather(trees: Sequence[LabelledTree], names: Sequence[str]) -> Nodes:
    """The distinct nodes of the trees; a node of one model never stands for one of another."""
    forest = flatten(trees, names)
    models, families = (
        np.unique([key(tree) for tree in trees], return_inverse=True)[1]
        for key in (lambda tree: tree.model, family)
    )
    of_node = models[forest.tree]
    folded = collapse(replace(forest, features=np.column_stack([forest.features, of_node])))
    node = folded.node
    return Nodes(
        forest.names,
        forest.features[node],
        forest.energy_j[node],
        forest.level[node],
        forest.primitive[node],
        of_node[node],
        families[forest.tree[node]],
        folded.count,
        folded.height,
        folded.parent,
        folded.child,
        folded.times,
    )


def moments(features: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of what is known in every column, a row counting ``count`` times.

    Columns that are constant have the scale 1, columns of nothing the mean 0.
    """
    known = np.isfinite(features)
    weight = known * count[:, None]
    total = np.maximum(weight.sum(axis=0), 1e-300)
    mean = (weight * np.where(known, features, 0.0)).sum(axis=0) / total
    scale = np.sqrt((weight * np.where(known, features - mean, 0.0) ** 2).sum(axis=0) / total)
    return mean, np.where(scale > 1e-10 * np.abs(mean), scale, 1.0)


def polynomial(z: np.ndarray) -> np.ndarray:
    """All monomials of the columns up to degree 3, without the constant, in the order of FORMAT.md."""
    blocks = [z]
    picks: list[tuple[int, ...]] = [(column,) for column in range(z.shape[1])]
    for _ in range(DEGREE - 1):
        longer = [(*pick, last) for pick in picks for last in range(pick[-1], z.shape[1])]
        index = {pick: position for position, pick in enumerate(picks)}
        prefix = np.array([index[pick[:-1]] for pick in longer], dtype=np.int64)
        blocks.append(blocks[-1][:, prefix] * z[:, [pick[-1] for pick in longer]])
        picks = longer
    return np.concatenate(blocks, axis=1)


class Loss:
    """Equations 3 to 5 over nodes whose leaves are known.

    ``z``: float[m, p], the polynomial features. ``leaf_j``: float64[m], joules of the leaves, 0 above.
    ``stepwise``: what a child hands up is its label, where it has one (equation 5).
    """

    def __init__(self, nodes: Nodes, z: np.ndarray, leaf_j: np.ndarray, stepwise: bool) -> None:
        self.z, self.leaf_j = z, leaf_j
        self.handed = np.where(nodes.labelled & stepwise, nodes.energy_j, np.nan)
        heights = nodes.height[nodes.parent]
        self.steps = [
            (nodes.parent[edges], nodes.child[edges], nodes.times[edges])
            for edges in (np.flatnonzero(heights == h) for h in range(1, int(heights.max(initial=0)) + 1))
        ]
        self.scored = (nodes.height > 0) & nodes.labelled
        self.label = np.where(self.scored, nodes.energy_j, 1.0)
        count = np.where(self.scored, nodes.count, 0.0)
        #: Equation 4 is a sum over so many nodes, what is returned their mean.
        self.total = max(float(count.sum()), 1.0)
        self.weight = count / self.total

    def energies(self, weight: np.ndarray, bias: float) -> np.ndarray:
        """float64[m]: joules of every node."""
        return self._forward(weight, bias)[0]

    def _forward(self, weight: np.ndarray, bias: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        bent = np.tanh((self.z @ weight.astype(self.z.dtype)).astype(np.float64) + bias)
        alpha = 1.0 + bent / TAU
        energy, size = self.leaf_j, len(self.leaf_j)
        given = np.empty(size)
        known = ~np.isnan(self.handed)
        for parent, child, times in self.steps:
            given[child] = np.where(known[child], self.handed[child], energy[child])
            energy = energy + np.bincount(parent, alpha[child] * given[child] * times, size)
        return energy, given, bent

    def __call__(self, weight: np.ndarray, bias: float) -> tuple[float, np.ndarray, float]:
        """Mean squared relative error of the nodes above the leaves, its gradients in weight and bias."""
        energy, given, bent = self._forward(weight, bias)
        alpha, size = 1.0 + bent / TAU, len(energy)
        off = (energy - self.label) / self.label
        to_energy = 2.0 * off * self.weight / self.label
        to_alpha = np.zeros(size)
        free = np.isnan(self.handed)
        for parent, child, times in reversed(self.steps):
            share = to_energy[parent] * times
            to_alpha += np.bincount(child, share * given[child], size)
            to_energy = to_energy + np.bincount(child, share * alpha[child] * free[child], size)
        slope = to_alpha * (1.0 - bent**2) / TAU
        gradient = (slope.astype(self.z.dtype) @ self.z).astype(np.float64)
        return float((off**2 * self.weight).sum()), gradient, float(slope.sum())
