"""Predictions as plain data (irene_build/export/FORMAT.md): reading, checking, laying out.

Everything that the report folder draws or tabulates starts from this one format, whether a bundle, the
estimator or ``irene-build predict --json`` made it, so the report never calls another stage's code.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from irene_build.errors import InputError

FORMAT = "irene-prediction"
VERSION = 1
#: From the most to the least that is known when predicting (DESIGN, terms).
TIERS = ("profile", "live", "static")
#: Predictions are dictionaries as ``Prediction.to_dict()`` gives them.
Prediction = dict[str, Any]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_node(node: Any, index: int, where: str) -> None:
    if not isinstance(node, dict):
        raise InputError(f"{where}: node {index} is {type(node).__name__}, expected an object")
    for key in ("scope", "type", "level", "parent", "energy_j", "interval_j"):
        if key not in node:
            raise InputError(f"{where}: node {index} lacks {key!r}")
    parent = node["parent"]
    if not isinstance(parent, int) or not (-1 <= parent < index) or (parent == -1) != (index == 0):
        raise InputError(
            f"{where}: node {index} has parent {parent!r}; nodes stand in pre-order under one root"
        )
    if not _finite(node["energy_j"]):
        raise InputError(f"{where}: node {index} has energy_j {node['energy_j']!r}, expected a finite number")
    interval = node["interval_j"]
    if not (isinstance(interval, list) and len(interval) == 2 and all(map(_finite, interval))):
        raise InputError(f"{where}: node {index} has interval_j {interval!r}, expected [low, high]")


def check(data: Any, where: str = "prediction") -> Prediction:
    """``data`` if it is a prediction; raises InputError that names the node and the field otherwise."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f'{where}: not a prediction: expected an object with "format": "{FORMAT}"')
    version = data.get("version")
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{where}: version is {version!r}, expected a whole number")
    if version > VERSION:
        raise InputError(f"{where}: prediction version {version} is newer than {VERSION}: update irene-build")
    for key in ("model", "tier", "provenance", "energy_j", "interval_j", "nodes"):
        if key not in data:
            raise InputError(f"{where}: lacks {key!r}")
    nodes = data["nodes"]
    if not isinstance(nodes, list) or not nodes:
        raise InputError(f"{where}: nodes must be a list that is not empty")
    for index, node in enumerate(nodes):
        _check_node(node, index, where)
    return data


def load(path: Path) -> Prediction:
    """Read what ``irene-build predict --json`` printed. Raises InputError."""
    try:
        return check(json.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None


def size_label(prediction: Prediction) -> str:
    """``8 × 128``, and the phase where it is not a plain forward pass: ``1 × 1 decode after 512``."""
    text = f"{prediction.get('batch_size')} × {prediction.get('seq_len')}"
    phase = prediction.get("phase") or "forward"
    if phase != "forward":
        text += f" {phase}"
    if prediction.get("past_len"):
        text += f" after {prediction['past_len']}"
    return text


def is_simulated(data: dict[str, Any]) -> bool:
    """Whether the joules descend from a simulated meter (DESIGN, rule 4)."""
    return data.get("provenance") == "simulated" or "simulated" in (data.get("flags") or [])


def spans(parents: list[int], energies: list[float]) -> list[tuple[float, float]]:
    """Where each node lies on the root's joule axis: (start, width), both in J.

    A child is as wide as its joules. Alphas and, in the profile tier, a node's own reading stand between
    a parent and its children (equation 3), so children may add up to more than their parent: then all of
    them shrink by the same factor to fit; where they add up to less, the rest of the parent stays bare.
    Negative predictions (possible in linear regressions) have no width.
    """
    positive = [max(0.0, e) if math.isfinite(e) else 0.0 for e in energies]
    below = [0.0] * len(parents)
    for parent, energy in zip(parents, positive, strict=True):
        if parent >= 0:
            below[parent] += energy
    out: list[tuple[float, float]] = []
    cursor: list[float] = []
    for index, parent in enumerate(parents):
        if parent < 0:
            start, width = 0.0, positive[index]
        else:
            whole = max(positive[parent], below[parent])
            width = out[parent][1] * positive[index] / whole if whole > 0 else 0.0
            start = cursor[parent]
            cursor[parent] = start + width
        out.append((start, width))
        cursor.append(start)
    return out


def folded(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes with runs of sibling modules of the same shape as one: ``BertLayer ×12``, energies summed.

    Interval ends are summed as well, which takes the errors of the run as fully shared. The page's explorer
    does the same in the browser.
    """
    children: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        if node["parent"] >= 0:
            children[node["parent"]].append(index)
    names: dict[tuple[Any, ...], int] = {}
    kind = [0] * len(nodes)
    for index in reversed(range(len(nodes))):
        key = (nodes[index]["type"], *(kind[c] for c in children[index]))
        kind[index] = names.setdefault(key, len(names))
    out: list[dict[str, Any]] = []

    def add(run: list[int], parent: int, above: int) -> None:
        first, here, times = nodes[run[0]], len(out), len(run) // above
        low, high = (sum(nodes[i]["interval_j"][end] for i in run) for end in (0, 1))
        merged = {
            "index": here, "parent": parent, "energy_j": sum(nodes[i]["energy_j"] for i in run),
            "interval_j": [low, high], "type": f"{first['type']} ×{times}" if times > 1 else first["type"],
            "flags": sorted({name for i in run for name in nodes[i].get("flags") or []}),
        }  # fmt: skip
        out.append({**first, **merged})
        columns = list(zip(*(children[i] for i in run), strict=True))
        while columns:
            end = 1
            if nodes[columns[0][0]]["level"] != "ml":
                while end < len(columns) and kind[columns[end][0]] == kind[columns[0][0]]:
                    end += 1
            add([i for column in columns[:end] for i in column], here, len(run))
            del columns[:end]

    add([0], -1, 1)
    return out


def node_name(node: dict[str, Any]) -> str:
    """``encoder.layer.0:BertLayer``, with ``#call`` from the second call on (as ``Node.name``)."""
    text = f"{node['scope']}:{node['type']}" if node["scope"] else str(node["type"])
    return f"{text}#{node['call']}" if node.get("call") else text
