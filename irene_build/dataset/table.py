"""The dataset: trees of one PC with labels, each joule with its provenance.

Stage interface between measuring (or importing) and training. Arrays are aligned with
``tree.nodes``; NaN stands for "not known" and is never read as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import ModelTree

PROVENANCES = ("measured", "integrated", "estimated", "simulated", "datasheet")


def gpu_energy_is_label(label_source: str) -> bool:
    """True where NVML gave (part of) the labels: then gpu_energy must not be a feature (DESIGN, rule 4)."""
    return "nvml" in label_source.split("+")


@dataclass
class LabelledTree:
    """One model at one input size on one PC.

    ``energy_j``: float64[n], joules of one run, NaN where the node has no label.
    ``resources``: float64[n, 8], columns as ``RESOURCE_FEATURES``, NaN where unknown.
    ``measurement``: int64[n], equal numbers share one physical measurement (copies), -1 for none.
    ``energy_std_j``: float64[n], standard error of the label, NaN where unknown.
    """

    tree: ModelTree
    energy_j: np.ndarray
    resources: np.ndarray
    measurement: np.ndarray
    energy_std_j: np.ndarray

    @property
    def model(self) -> str:
        return str(self.tree.header["model"])

    @property
    def measured_on(self) -> np.ndarray:
        """int64[n]: the node that a label was measured on: of equal measurements, the first that ran."""
        first: dict[int, int] = {}
        return np.array(
            [first.setdefault(m, i) if m >= 0 else i for i, m in enumerate(self.measurement.tolist())],
            dtype=np.int64,
        )

    @property
    def of_another_shape(self) -> np.ndarray:
        """bool[n]: nodes whose label is a copy of what was measured on a node with other features."""
        nodes = self.tree.nodes
        return np.array(
            [nodes[i].features != nodes[j].features for i, j in enumerate(self.measured_on.tolist())]
        )

    def __post_init__(self) -> None:
        n = len(self.tree.nodes)
        assert self.energy_j.shape == self.measurement.shape == self.energy_std_j.shape == (n,)
        assert self.resources.shape == (n, len(RESOURCE_FEATURES))


@dataclass
class Dataset:
    """Labelled trees of one PC. ``boundary`` is what the joules cover: wall, gpu, cpu+dram+gpu.

    ``label_source`` names the meter that gave the labels; see
    ``gpu_energy_is_label``. ``provenance`` is one of PROVENANCES.
    """

    hardware: str
    boundary: str
    provenance: str
    label_source: str
    trees: list[LabelledTree]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """Model names in order of first appearance."""
        return list(dict.fromkeys(tree.model for tree in self.trees))

    def subset(self, models: list[str]) -> Dataset:
        trees = [tree for tree in self.trees if tree.model in models]
        info = dict(self.info)
        return Dataset(self.hardware, self.boundary, self.provenance, self.label_source, trees, info)
