"""Partial pooling over hosts of one kind: what they share, how far they differ, and what to expect of the next.

Every host's readings law D(n) = loss gpu_energy + watts latency + curve gpu_energy^2 / latency (``transfer``) is fitted
to all its labels. Its three numbers are taken as drawn from a normal distribution over the hosts of the kind, whose
mean and deviation are estimated by the moments of DerSimonian and Laird (Controlled Clinical Trials 7, 1986): between
hosts there is what their scatter has beyond what each fit is unsure of. Few hosts say little of a deviation: it is
mixed with the usual one of any other PC, which counts as ``USUAL_HOSTS`` hosts. The next host is expected at the mean;
few labels are drawn to it within the deviation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import arithmetic, estimator_file, intervals, transfer
from irene_build.train.moments import moments
from irene_build.train.transfer import NAMES

#: So many hosts the usual deviation counts for.
USUAL_HOSTS = 1.0


@dataclass(frozen=True)
class HostFit:
    """A host's numbers, float64[3] in the order of ``transfer.NAMES``, and how unsure the fit is of each."""

    hardware: str
    labels: int
    values: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class Pool:
    """Of a kind: ``mean`` and ``deviation`` of the next host, float64[3]; ``between``: the hosts' own scatter."""

    hosts: tuple[HostFit, ...]
    mean: np.ndarray
    deviation: np.ndarray
    between: np.ndarray

    def to_json(self) -> dict[str, Any]:
        return {
            "hosts": [
                {"hardware": h.hardware, "labels": h.labels, **_named(h.values), "errors": _named(h.errors)}
                for h in self.hosts
            ],
            "mean": _named(self.mean), "deviation": _named(self.deviation), "between": _named(self.between),
        }  # fmt: skip


def pool(estimator: Mapping[str, Any], datasets: Sequence[Dataset]) -> Pool:
    """What the hosts of these datasets share. ``estimator``: of one of them, whose form of D is taken.

    Raises DatasetError where there are not two hosts, or one lacks the readings.
    """
    if len({d.hardware for d in datasets}) < 2:
        raise DatasetError("pooling wants the campaigns of two or more hosts of one kind")
    fits, usual = [], []
    for dataset in datasets:
        parts, label = _readings(estimator, dataset)
        usual.append(transfer.usual_spread(parts, label))
        fits.append(_fitted(dataset.hardware, parts, label, 10.0 * usual[-1]))
    values, errors = np.stack([f.values for f in fits]), np.stack([f.errors for f in fits])
    mean, between, unsure = moments(values, errors)
    count = len(fits) - 1.0
    mixed = (count * between**2 + USUAL_HOSTS * np.mean(usual, axis=0) ** 2) / (count + USUAL_HOSTS)
    return Pool(tuple(fits), mean, np.sqrt(mixed + unsure**2), between)


def pooled(estimator: Mapping[str, Any], datasets: Sequence[Dataset], kind: str) -> dict[str, Any]:
    """An estimator of the kind: it predicts the next host without a label, and few labels are drawn to it.

    Its intervals hold what the hosts showed when each was left out in turn. ``trained_on.pool`` is what
    ``transfer.carry_over`` reads. Raises DatasetError.
    """
    found = pool(estimator, datasets)
    out: dict[str, Any] = json.loads(json.dumps(estimator))
    out["hardware"] = kind
    out["trained_on"]["pool"] = _rounded(found.to_json())
    out.pop("fingerprint", None)
    off = np.concatenate([
        _miss(estimator, [d for d in datasets if d is not left], left) for left in datasets
    ])  # fmt: skip
    shown = intervals.quantile(off, np.ones(len(off)), intervals.COVERAGE) * (1.0 + 1.0 / len(datasets))
    for name, tier in out["tiers"].items():
        columns = out["tiers"].get(tier.get("base", name), tier)["columns"]
        for level, direct in tier.get("direct", {}).items():
            direct["terms"] = transfer.written(columns, found.mean.tolist())
            direct["pool"] = 1.0
            entry = tier["interval"]["levels"][level]
            entry["q"] = round(min(max(float(entry["q"]), float(shown)), intervals.UNKNOWN), 5)
    ratio = np.concatenate([_leaf_ratio(estimator, d) for d in datasets])
    if len(ratio):
        transfer.scale_leaves(out, float(np.median(ratio)), ratio)
    return estimator_file.compact(out)


def left_out(estimator: Mapping[str, Any], datasets: Sequence[Dataset]) -> dict[str, float]:
    """Per host the mean error in percent of its labels by the pool of the others, without a label of its own."""
    out = {}
    for left in datasets:
        off = _miss(estimator, [d for d in datasets if d is not left], left)
        out[left.hardware] = float(100.0 * np.mean(np.abs(np.expm1(off))))
    return out


def _miss(estimator: Mapping[str, Any], others: Sequence[Dataset], left: Dataset) -> np.ndarray:
    """Logarithms of prediction over label of a host by what the others share, float64[labels]."""
    if len({d.hardware for d in others}) > 1:
        mean = pool(estimator, others).mean
    else:
        parts, label = _readings(estimator, others[0])
        mean = _fitted("", parts, label, 10.0 * transfer.usual_spread(parts, label)).values
    parts, label = _readings(estimator, left)
    return np.asarray(np.log(np.maximum(parts @ mean / label, 1e-9)))


def _readings(estimator: Mapping[str, Any], dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """What the law weighs, float64[labels, 3], and the labels. Raises DatasetError."""
    law, parts, label = transfer.readings(estimator, dataset)
    if law is None or not len(label):
        raise DatasetError(
            f"{dataset.hardware} has no labelled node with latency and gpu_energy, which pooling compares hosts by"
        )
    return parts, label


def _fitted(hardware: str, parts: np.ndarray, label: np.ndarray, width: np.ndarray) -> HostFit:
    """The numbers of one host by all its labels, beside a prior so wide that the labels decide."""
    start = np.array([1.0, float(np.median(label / parts[:, 1])) * 0.3, 0.0])
    values = transfer.huber(parts, label, start, width, parts[:, 1])
    off = parts @ values / label - 1.0
    noise = max(transfer.NOISE, 1.4826 * float(np.median(np.abs(off))))
    design = parts / label[:, None] / noise
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design + np.diag(width**-2.0))))
    return HostFit(hardware, len(label), values, errors)


def _leaf_ratio(estimator: Mapping[str, Any], dataset: Dataset) -> np.ndarray:
    """Logarithms of label over static prediction of every labelled node."""
    if "static" not in estimator["tiers"]:
        return np.empty(0)
    found = [
        np.log(tree.energy_j[known] / p.energy_j[known])
        for tree, p in zip(dataset.trees, arithmetic.predict(estimator, dataset.trees, "static"), strict=True)
        if (known := np.isfinite(tree.energy_j)).any()
    ]
    return np.concatenate(found) if found else np.empty(0)


def _named(values: np.ndarray) -> dict[str, float]:
    return dict(zip(NAMES, map(float, values), strict=True))


def _rounded(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_rounded(value) for value in data]
    return float(f"{data:.6g}") if isinstance(data, float) else data
