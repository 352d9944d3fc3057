"""Runs that failed: what no device can do, and labels far off their neighbours under the law.

A run is judged by the datasheet, or by laws fitted to other models than its own. What is found is kept and listed
with its reason, and not trained on.
"""

from __future__ import annotations

import math

import numpy as np

from irene_build.dataset.splits import with_trees
from irene_build.dataset.table import Dataset
from irene_build.train.law import whole
from irene_build.train.law.device import named, sheet_of
from irene_build.train.law.fit import labels
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.law import MEGA

_LATENCY = RESOURCE_FEATURES.index("latency")
#: FLOP/s above the peak by more than this are impossible; where the device was only guessed, by more than that.
ABOVE, ABOVE_GUESSED = 1.02, 1.6
#: A label so many times off what the law says of it, and of its model's other runs, is a failed run.
OFF = 3.0
#: At most this share of a table is called failed for its label alone.
SHARE = 0.03


def find(dataset: Dataset) -> dict[str, str]:
    """Why runs of whole models are implausible, by the root's measurement."""
    sheet = sheet_of(dataset)
    known = bool(dataset.info.get("device")) or named(dataset.hardware) is not None
    out: dict[str, str] = {}
    for tree in dataset.trees:
        seconds, joules = float(tree.resources[0, _LATENCY]), float(tree.energy_j[0])
        if not (math.isfinite(seconds) and seconds > 0.0):
            continue
        rate = MEGA * tree.tree.nodes[0].features.get("matmul_flops", 0.0) / seconds
        peak = sheet.peak(str(tree.tree.header["dtype"]))
        watts = joules / seconds
        if rate > (ABOVE if known else ABOVE_GUESSED) * peak:
            of = sheet.name if known else "what the table's other runs reach"
            out[_key(tree)] = f"{rate / 1e12:.0f} TFLOP/s, more than the {peak / 1e12:.0f} of {of}"
        elif known and math.isfinite(watts) and watts < 0.9 * sheet.idle_w:
            out[_key(tree)] = f"{watts:.1f} W, less than the {sheet.idle_w:g} W of {sheet.name} at rest"
    rest = with_trees(dataset, [t for t in dataset.trees if _key(t) not in out and t.energy_j[0] > 0.0])
    out.update(_off(rest))
    return out


def _key(tree: object) -> str:
    return str(int(tree.measurement[0]))  # type: ignore[attr-defined]


def _off(dataset: Dataset) -> dict[str, str]:
    """Labels far off what the laws of the other models say, where the rest of their own model is not."""
    if len(dataset.models) < 2 or len(dataset.trees) < 8:
        return {}
    data = labels(dataset.trees)
    held = whole.leave_models_out(data, sheet_of(dataset))
    residual = np.log(data.energy_j / held.plain)
    for name in np.unique(data.model):
        rows = data.model == name
        residual[rows] -= np.median(residual[rows])
    worst = [i for i in np.argsort(-np.abs(residual)) if abs(residual[i]) > math.log(OFF)]
    return {
        _key(dataset.trees[i]): (
            f"{data.energy_j[i]:.4g} J, {math.exp(abs(residual[i])):.1f} times "
            f"{'more' if residual[i] > 0 else 'less'} than the law says beside the model's other runs"
        )
        for i in worst[: max(1, int(SHARE * len(dataset.trees)))]
    }
