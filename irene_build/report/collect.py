"""Gathers what `irene-build report` shows: dataset, estimator and evaluation in, plain numbers out.

The result is the command's ``--json``; the page adds only words and drawings to it:

    {"format": "irene-report", "version": 1, "hardware", "boundary", "provenance", "label_source",
     "dataset": {...}, "estimator": {...}, "errors": {...}, "bottlenecks": {tier: {model: [rows]}},
     "models": [{"model", "sizes", "nodes", "measured_j", "predicted_j": {tier: J}}], "notes": [...]}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.report import evaluation as ev
from irene_build.report.breakdown import bottlenecks
from irene_build.report.predictions import TIERS, Prediction
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.model import Estimator
from irene_runtime.tree import ModelTree, Node

FORMAT = "irene-report"
VERSION = 1


@dataclass
class Predicted:
    """All predictions of one dataset, each with its nodes' labels (J, None: none) and measurement numbers."""

    predictions: list[Prediction] = field(default_factory=list)
    labels: list[list[float | None]] = field(default_factory=list)
    measurements: list[list[int]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)


def _readings(labelled: LabelledTree, index: int) -> dict[str, float]:
    row = labelled.resources[index]
    return {name: float(x) for name, x in zip(RESOURCE_FEATURES, row, strict=True) if math.isfinite(x)}


def _profiled(labelled: LabelledTree) -> ModelTree:
    """The tree with every node's own resource features, as the profile tier wants it."""
    nodes = []
    for index, n in enumerate(labelled.tree.nodes):
        features = {**n.features, **_readings(labelled, index)}
        nodes.append(Node(n.scope, n.type, n.level, n.parent, n.primitive, n.call, features))
    return ModelTree(nodes, labelled.tree.header)


def predict_all(
    estimator: Mapping[str, Any], dataset: Dataset, progress: Callable[[int], None] = lambda done: None
) -> Predicted:
    """Predict every tree of the dataset in every tier of the estimator that the tree's readings allow."""
    engine = Estimator(estimator)
    out = Predicted()
    for done, labelled in enumerate(dataset.trees):
        for tier in TIERS:
            if tier not in engine.tiers:
                continue
            tree = _profiled(labelled) if tier == "profile" else labelled.tree
            live = _readings(labelled, 0) if tier == "live" else None
            prediction = engine.predict(tree, live or None, tier=tier)
            if prediction.tier != tier:
                out.skipped[tier] = out.skipped.get(tier, 0) + 1
                continue
            out.predictions.append(prediction.to_dict())
            out.labels.append([float(x) if math.isfinite(x) else None for x in labelled.energy_j])
            out.measurements.append([int(m) for m in labelled.measurement])
        progress(done + 1)
    return out


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Counts, ranges and repeatability of a dataset; energies in J."""
    measurements: set[int] = set()
    singles = labelled = nodes = 0
    spread: list[float] = []
    least, most = math.inf, 0.0
    models: dict[str, dict[str, Any]] = {}
    for tree in dataset.trees:
        head = tree.tree.header
        row = models.setdefault(tree.model, {"model": tree.model, "nodes": len(tree.tree.nodes), "sizes": []})
        row["sizes"].append([head["batch_size"], head["seq_len"]])
        row["nodes"] = max(row["nodes"], len(tree.tree.nodes))
        nodes += len(tree.tree.nodes)
        for energy, error, number in zip(tree.energy_j, tree.energy_std_j, tree.measurement, strict=True):
            if not math.isfinite(energy):
                continue
            labelled += 1
            least, most = min(least, float(energy)), max(most, float(energy))
            singles += number < 0
            if number >= 0 and int(number) not in measurements:
                measurements.add(int(number))
                if math.isfinite(error) and energy > 0:
                    spread.append(100.0 * float(error / energy))
    spread.sort()
    return {
        "trees": len(dataset.trees), "nodes": nodes, "labelled_nodes": labelled,
        "distinct_measurements": len(measurements) + int(singles),
        "energy_range_j": [least, most] if labelled else None,
        "standard_error_percent_median": spread[len(spread) // 2] if spread else None,
        "models": list(models.values()),
        "info": {k: v for k, v in dataset.info.items() if isinstance(v, (str, int, float, bool))},
    }  # fmt: skip


def _errors(evaluation: dict[str, Any] | None, predicted: Predicted) -> tuple[dict[str, Any], dict[str, Any]]:
    """The errors part, and the pairs that figures are drawn from."""
    held_out = (evaluation or {}).get("pairs")
    pairs = held_out or ev.pairs_from_predictions(
        predicted.predictions, predicted.labels, predicted.measurements
    )
    source = evaluation if evaluation is not None else ev.summary(pairs)
    errors = {
        "in_sample": evaluation is None, "pairs_in_sample": not held_out,
        "method": (evaluation or {}).get("method"), "protocol": (evaluation or {}).get("protocol"),
        "by_level": ev.error_rows(source), "by_model": ev.model_rows(source),
        "baselines": ev.baseline_rows(source),
    }  # fmt: skip
    return errors, pairs


def _overview(predicted: Predicted) -> list[dict[str, Any]]:
    """Per model the mean over its sizes of the whole model's energy: measured, and predicted per tier."""
    models: dict[str, dict[str, list[tuple[Prediction, float | None]]]] = {}
    for prediction, labels in zip(predicted.predictions, predicted.labels, strict=True):
        tiers = models.setdefault(prediction["model"], {})
        tiers.setdefault(prediction["tier"], []).append((prediction, labels[0]))
    out = []
    for model, tiers in models.items():
        longest = max(tiers.values(), key=len)
        known = [label for _, label in longest if label is not None]
        out.append(
            {
                "model": model,
                "sizes": len(longest),
                "nodes": max(len(p["nodes"]) for p, _ in longest),
                "measured_j": sum(known) / len(known) if len(known) == len(longest) else None,
                "predicted_j": {t: sum(p["energy_j"] for p, _ in v) / len(v) for t, v in tiers.items()},
            }
        )
    return out


def report_data(
    dataset: Dataset, estimator: Mapping[str, Any], evaluation: dict[str, Any] | None, predicted: Predicted
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The report (see the top of this file) and the pairs for its figures."""
    errors, pairs = _errors(evaluation, predicted)
    tables: dict[str, dict[str, Any]] = {}
    for tier in TIERS:
        groups: dict[str, list[tuple[Prediction, list[float | None]]]] = {}
        for prediction, known in zip(predicted.predictions, predicted.labels, strict=True):
            if prediction["tier"] == tier:
                phase = prediction.get("phase") or "forward"
                name = prediction["model"] if phase == "forward" else f"{prediction['model']} ({phase})"
                groups.setdefault(name, []).append((prediction, known))
        if groups:
            tables[tier] = {
                model: bottlenecks([p for p, _ in items], [known for _, known in items])
                for model, items in groups.items()
            }
    notes = [
        f"{count} of {len(dataset.trees)} trees lack readings that the tier {tier} needs: not predicted there"
        for tier, count in predicted.skipped.items()
    ]
    keys = ("method", "cost_model", "attention", "created_by", "trained_on", "fingerprint")
    report = {
        "format": FORMAT, "version": VERSION, "hardware": dataset.hardware, "boundary": dataset.boundary,
        "provenance": dataset.provenance, "label_source": dataset.label_source,
        "dataset": describe_dataset(dataset),
        "estimator": {key: estimator.get(key) for key in keys} | {"digest": Estimator(estimator).digest},
        "errors": errors, "bottlenecks": tables, "models": _overview(predicted), "notes": notes,
    }  # fmt: skip
    return report, pairs


def examples(predictions: Sequence[Prediction]) -> list[Prediction]:
    """One prediction a model, in its best tier and nearest to 8 x 128: for still figures and flame graphs."""
    out: dict[str, Prediction] = {}

    def rank(p: Prediction) -> tuple[int, float]:
        size = (p.get("batch_size") or 1) * (p.get("seq_len") or 1)
        away = abs(math.log(size / 1024.0)) + 0.1 * abs(math.log((p.get("seq_len") or 1) / 128.0))
        return TIERS.index(p["tier"]), away

    for prediction in sorted(predictions, key=rank):
        out.setdefault(str(prediction["model"]), prediction)
    order = list(dict.fromkeys(str(p["model"]) for p in predictions))
    return [out[model] for model in order]


def tables(report: Mapping[str, Any], pairs: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Every table of the page, flat, by file name."""
    errors = report["errors"]
    flat = [
        {"tier": tier, "model": model, **row}
        for tier, models in report["bottlenecks"].items()
        for model, rows in models.items()
        for row in rows
    ]
    points = [
        {"tier": tier, "level": level, **dict(zip(columns, values, strict=True))}
        for tier, levels in pairs.items()
        for level, columns in levels.items()
        for values in zip(*columns.values(), strict=True)
    ]
    overview = [
        {
            **{k: v for k, v in row.items() if k != "predicted_j"},
            **{f"predicted_{t}_j": e for t, e in row["predicted_j"].items()},
        }
        for row in report["models"]
    ]
    return {
        "errors": errors["by_level"], "errors-by-model": errors["by_model"], "baselines": errors["baselines"],
        "bottlenecks": flat, "models": overview, "pairs": points,
    }  # fmt: skip
