"""What any estimator must beat: one constant times one number, a formula, a regression without the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError
from irene_build.train import paper
from irene_build.train.forest import collapse, feature_matrix, flatten
from irene_build.train.paper_nodes import polynomial


@dataclass(frozen=True)
class Constant:
    """Energy = constant times one feature: W for latency, a loss factor for gpu_energy, J per MFLOP."""

    feature: str
    constant: float

    def predict(self, trees: Sequence[LabelledTree]) -> list[np.ndarray]:
        """Joules of every node, NaN where the feature is not known."""
        return [self.constant * feature_matrix(tree, [self.feature])[:, 0] for tree in trees]


def fit_constant(dataset: Dataset, feature: str) -> Constant:
    """The median ratio over all labelled nodes. Raises DatasetError where none of them has the feature."""
    forest = flatten(dataset.trees, [feature])
    value = forest.features[:, 0]
    known = np.isfinite(forest.energy_j) & np.isfinite(value) & (value > 0.0)
    if not known.any():
        raise DatasetError(f"no labelled node of {dataset.hardware!r} has {feature}")
    return Constant(feature, float(np.median(forest.energy_j[known] / value[known])))


@dataclass(frozen=True)
class Strubell:
    """The software formula of Strubell et al. 2019 and experiment-impact-tracker (section 5.1 of the paper).

    e = pue (p_dram e_dram + p_cpu e_cpu + p_gpu e_gpu), e being a part's rated power (W) times the time of a
    run, and p the share of the part that is used, as the resource features give it.
    """

    pue: float
    cpu_w: float
    dram_w: float
    gpu_w: float

    def predict(self, trees: Sequence[LabelledTree]) -> list[np.ndarray]:
        """Joules of every node; a part whose use is not known is left out, NaN without latency."""
        out = []
        for tree in trees:
            latency, cpu, memory, gpu = feature_matrix(tree, ("latency", "cpu_util", "mem_usg", "gpu_util")).T
            shares = ((cpu, self.cpu_w), (memory, self.dram_w), (gpu, self.gpu_w))
            power = sum(np.nan_to_num(share / 100.0) * watt for share, watt in shares)
            out.append(self.pue * power * latency)
        return out


def strubell(constants: Mapping[str, float]) -> Strubell:
    """The formula with a hardware profile's constants (``pue``, ``cpu_w``, ``dram_w``, ``gpu_w``)."""
    return Strubell(constants["pue"], constants["cpu_w"], constants["dram_w"], constants["gpu_w"])


@dataclass(frozen=True)
class Unstructured:
    """Section 5.5: leaves as ever; modules and models by one regression on their own features."""

    base: paper.PaperModel
    own: paper.LinearLeaf
    mean: np.ndarray
    scale: np.ndarray

    def predict(self, trees: Sequence[LabelledTree]) -> list[np.ndarray]:
        """Joules of every node."""
        forest = flatten(trees, self.base.names)
        energy = self.base.leaf_energies(forest)
        above = ~forest.leaf
        z = polynomial((forest.features[above] - self.mean) / self.scale)
        energy[above] = self.own.predict(z)
        return np.split(energy, forest.starts[1:-1])


def fit_unstructured(dataset: Dataset, names: Sequence[str] = paper.INPUTS) -> Unstructured:
    """Least squares of the relative error (equation 4) over the same cubic features as the aggregation.

    Raises DatasetError where no node above the leaves is labelled.
    """
    base = paper.fit(dataset, names, strategy="predicted-sum")
    forest = flatten(dataset.trees, base.names)
    folded = collapse(forest)
    energy, above = forest.energy_j[folded.node], ~forest.leaf[folded.node]
    rows = above & np.isfinite(energy)
    if not rows.any():
        raise DatasetError(f"no module or model of {dataset.hardware!r} has a label")
    features, count = forest.features[folded.node][rows], folded.count[rows]
    mean = np.average(features, axis=0, weights=count)
    spread = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=count))
    scale = np.where(spread > 0.0, spread, 1.0)
    z = polynomial((features - mean) / scale)
    design = np.column_stack([z, np.ones(len(z))]) * (np.sqrt(count) / energy[rows])[:, None]
    weight = np.linalg.lstsq(design, np.sqrt(count), rcond=None)[0]
    width = z.shape[1]
    own = paper.LinearLeaf(np.zeros(width), np.ones(width), weight[:-1], float(weight[-1]))
    return Unstructured(base, own, mean, scale)
