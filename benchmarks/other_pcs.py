"""PCs that differ from a measured one where PCs do differ, made of its measurements: what few labels are tried on.

SIMULATED: readings and labels of the measured PC, with matrix products and memory traffic of another speed and
another energy, another time to launch a kernel, another idle draw, a supply whose loss grows with the load, and
noise of its own. What made the measured labels differ from the linear law stays in them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_runtime.features import RESOURCE_FEATURES

LATENCY, GPU = RESOURCE_FEATURES.index("latency"), RESOURCE_FEATURES.index("gpu_energy")
#: What the measured PC is taken for: FLOP/s, MiB/s, idle draw of its GPU (W).
FLOPS, MEBIBYTES, GPU_IDLE_W = 8e12, 3.4e5, 55.0


@dataclass(frozen=True)
class OtherPC:
    """``gemm``, ``memory``: time of a run's share, relative. ``gemm_j``, ``memory_j``: energy above idle, relative.

    ``launch_s``: seconds more a kernel. ``gpu_idle_w``, ``rest_w``: draw of GPU and of the rest. Wall power is
    ``rest_w + loss P + curve P^2`` of the GPU's power P. ``noise``: spread of a label, log units.
    """

    name: str
    gemm: float = 1.0
    memory: float = 1.0
    launch_s: float = 0.0
    gemm_j: float = 1.0
    memory_j: float = 1.0
    gpu_idle_w: float = GPU_IDLE_W
    rest_w: float = 100.0
    loss: float = 1.044
    curve: float = 0.0
    noise: float = 0.0


PCS = (
    OtherPC("same PC"),
    OtherPC("idle draw", rest_w=60.0),
    OtherPC("supply", rest_w=160.0, loss=1.075),
    OtherPC("faster GEMMs", 0.4, 0.8, -2e-6, 0.6, 0.8, 35.0, 70.0, 1.06, 1e-4, 0.003),
    OtherPC("slow memory", 1.3, 2.0, 8e-6, 1.1, 1.6, 60.0, 140.0, 1.08, 3e-4, 0.006),
    OtherPC("laptop", 2.5, 2.0, 4e-6, 0.4, 0.45, 12.0, 18.0, 1.13, 2e-4, 0.008),
    OtherPC("server", 0.3, 0.35, 1e-6, 0.5, 0.5, 75.0, 260.0, 1.05, 5e-5, 0.002),
)


def made_of(dataset: Dataset, pc: OtherPC, seed: int = 0) -> Dataset:
    """The dataset as that PC would have it. Copies of a measurement stay copies."""
    numbers = np.unique(np.concatenate([tree.measurement for tree in dataset.trees]))
    noise = (
        np.random.default_rng(seed).normal(scale=pc.noise, size=len(numbers)) if pc.noise else 0.0 * numbers
    )
    trees = [_moved(tree, pc, numbers, noise) for tree in dataset.trees]
    return replace(dataset, hardware=pc.name, provenance="simulated", trees=trees)


def _moved(tree: LabelledTree, pc: OtherPC, numbers: np.ndarray, noise: np.ndarray) -> LabelledTree:
    def feature(name: str) -> np.ndarray:
        return np.array([node.features.get(name, 0.0) for node in tree.tree.nodes])

    time, energy = tree.resources[:, LATENCY], tree.resources[:, GPU]
    # Of a run's time the share that multiplies matrices; the rest moves bytes.
    products, moves = feature("matmul_flops") * 1e6 / FLOPS, feature("mem_bytes") / MEBIBYTES
    share = products / np.maximum(products + moves, 1e-12)
    new_time = time * (share * pc.gemm + (1.0 - share) * pc.memory) + pc.launch_s * feature("kernels")
    new_time = np.maximum(new_time, 0.2 * time)
    above = np.maximum(energy - GPU_IDLE_W * time, 0.05 * energy)
    new_energy = above * (share * pc.gemm_j + (1.0 - share) * pc.memory_j) + pc.gpu_idle_w * new_time
    power = new_energy / new_time
    wall = (pc.rest_w + pc.loss * power + pc.curve * power**2) * new_time
    odd = tree.energy_j / (1.044 * energy + 100.0 * time)
    place = np.clip(np.searchsorted(numbers, tree.measurement), 0, len(numbers) - 1)
    resources = tree.resources.copy()
    resources[:, LATENCY], resources[:, GPU] = new_time, new_energy
    return replace(tree, energy_j=wall * odd * np.exp(noise[place]), resources=resources)
