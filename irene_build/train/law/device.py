"""Which device a dataset was measured on: said, read in its name, or guessed from what it reached."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import HardwareError
from irene_build.hardware.datasheets import Datasheet, datasheet
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.law import MEGA, MIB

_LATENCY = RESOURCE_FEATURES.index("latency")
#: A device of which nothing is known: about an A30.
UNKNOWN = Datasheet("unknown", {"float32": 1e13, "float16": 1.5e14, "bfloat16": 1.5e14}, 1e12, 24 * 2.0**30, 60,
                     8 * 2.0**20, 250.0, 25.0, 1.5e9, "HBM2e", source={"all": "guessed"})  # fmt: skip


def named(text: str) -> Datasheet | None:
    """The device whose name stands in ``text`` (``lab-a100-2``, ``gw-m1-pro``), the longest that does."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    for length in range(min(4, len(words)), 0, -1):
        for start in range(len(words) - length + 1):
            part = words[start : start + length]
            if not any(re.search(r"\d", word) for word in part):
                continue
            if length == 1 and not re.fullmatch(r"[a-z]+\d+[a-z]*|\d{4}(ti|d)?", part[0]):
                continue
            try:
                return datasheet(" ".join(part))
            except HardwareError:
                continue
    return None


def sheet_of(dataset: Dataset) -> Datasheet:
    """The datasheet of a dataset's device; where neither it nor its name says which, one made of its labels."""
    said = dataset.info.get("device")
    found = datasheet(str(said)) if said else named(dataset.hardware)
    return found if found is not None else guessed(dataset.trees)


def guessed(trees: Sequence[LabelledTree]) -> Datasheet:
    """A datasheet from what whole models reached: 1.6 times the median model's best FLOP/s, 1.2 its bytes/s."""
    seconds = np.array([tree.resources[0, _LATENCY] for tree in trees])
    joules = np.array([tree.energy_j[0] for tree in trees])
    known = np.isfinite(seconds) & np.isfinite(joules) & (seconds > 0.0)
    if not known.any():
        return UNKNOWN
    dtype = np.array([str(tree.tree.header["dtype"]) for tree in trees])
    model = np.array([tree.model for tree in trees])
    flops = MEGA * np.array([tree.tree.nodes[0].features.get("flops", 0.0) for tree in trees]) / seconds
    weights = (
        MIB * np.array([tree.tree.nodes[0].features.get("weight_bytes", 0.0) for tree in trees]) / seconds
    )
    wide = np.isin(dtype, ("float32", "float64"))

    def best(rate: np.ndarray, rows: np.ndarray) -> float:
        """The median over models of each one's best, its single highest row left out where it has several."""
        tops = [np.sort(rate[rows & (model == m)])[-2:][0] for m in np.unique(model[rows])]
        return float(np.median(tops)) if tops else 0.0

    half, single = 1.6 * best(flops, known & ~wide), 1.4 * best(flops, known & wide)
    half = half or 8.0 * single
    single = single or half / 8.0
    limit = 1.05 * float(np.quantile(joules[known] / seconds[known], 0.97))
    bandwidth = max(1.2 * best(weights, known), half / 250.0)
    return replace(
        UNKNOWN,
        peak_flops_per_s={"float32": min(single, half), "float16": half, "bfloat16": half},
        bandwidth_bytes_per_s=bandwidth,
        power_limit_w=limit,
        idle_w=0.05 * limit,
        l2_bytes=24 * 2.0**20,
        max_clock_hz=_highest_clock(trees),
    )


def _highest_clock(trees: Sequence[LabelledTree]) -> float:
    asked = [float(tree.tree.header.get("clock_mhz") or 0.0) for tree in trees]
    return 1e6 * max(asked) if asked and max(asked) > 0.0 else UNKNOWN.max_clock_hz
