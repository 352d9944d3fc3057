"""What ``evaluate --json`` (artifacts/HARDWARE/evaluation.json) says, as the report's tables and curves.

Beside the keys of `evaluate --json`, two optional ones carry the single predictions on held-out models:

    "pairs": {tier: {level: {"model": [...], "measured_j": [...], "predicted_j": [...], "low_j": [...],
              "high_j": [...], "copies": [...]}}}      one entry a measurement; the last three may lack
    "cdf":   {tier: {level: {"error_percent": [...], "fraction": [...]}}}     used where there are no pairs

Where ``evaluation.json`` has neither, ``pairs_from_predictions`` gives the pairs of the estimator on the
very trees that it was trained on; such numbers are marked ``in_sample`` and the page says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irene_build.errors import InputError
from irene_build.report.predictions import TIERS, Prediction

LEVELS = ("ml", "module", "model")
_COLUMNS = ("mape", "p50", "p95", "p99", "max", "n", "n_distinct", "coverage90")


def load(path: Path) -> dict[str, Any]:
    """Read an evaluation. Raises InputError that says what is wrong."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}; run `irene-build evaluate` again") from None
    if not isinstance(data, dict) or not isinstance(data.get("tiers"), dict):
        raise InputError(f"{path}: not an evaluation (no tiers); run `irene-build evaluate` again")
    return data


def percent(value: float | None) -> float | None:
    """A coverage in percent, whether it was stored as a fraction or as percent."""
    return None if value is None else 100.0 * value if value <= 1.0 else value


def error_rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a tier and level, columns as in ``evaluate --json`` (percent of error; coverage in percent)."""
    rows = []
    for tier in _tiers(evaluation):
        for level in LEVELS:
            found = evaluation["tiers"][tier].get(level)
            if isinstance(found, dict):
                row = {"tier": tier, "level": level, **{key: found.get(key) for key in _COLUMNS}}
                row["coverage90"] = percent(found.get("coverage90"))
                rows.append(row)
    return rows


def model_rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean error in percent of each held-out model: ``{"tier", "model", "ml", "module", "model_level"}``."""
    rows = []
    for tier in _tiers(evaluation):
        for model, levels in (evaluation["tiers"][tier].get("per_model") or {}).items():
            found = {level: _number(levels.get(level)) for level in LEVELS}
            row = {"tier": tier, "model": model, "ml": found["ml"], "module": found["module"]}
            rows.append({**row, "model_level": found["model"]})
    return rows


def baseline_rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """``{"baseline", "ml", "module", "model_level"}`` in percent; None where a baseline has no such level."""
    rows = []
    for name, levels in (evaluation.get("baselines") or {}).items():
        if isinstance(levels, dict):
            found = [_number(levels.get(level)) for level in LEVELS]
            rows.append(dict(zip(("baseline", "ml", "module", "model_level"), (name, *found), strict=True)))
    return rows


def _tiers(evaluation: dict[str, Any]) -> list[str]:
    known = evaluation["tiers"]
    return [t for t in TIERS if t in known] + [t for t in known if t not in TIERS]


def _number(value: Any) -> float | None:
    """A mean error, given as a number or as ``{"mape": number, ...}``."""
    if isinstance(value, dict):
        value = value.get("mape")
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def pairs_from_predictions(
    predictions: Sequence[Prediction], labels: Sequence[list[float | None]], measurements: Sequence[list[int]]
) -> dict[str, Any]:
    """Pairs as in ``evaluation["pairs"]`` of predictions and the labels of the same nodes (None: no label).

    ``measurements`` number the physical measurements (-1: none); a copied one is taken once per model and
    tier, with the number of its copies.
    """
    out: dict[str, Any] = {}
    seen: dict[tuple[str, str, int], tuple[dict[str, list[Any]], int]] = {}
    for prediction, known, numbers in zip(predictions, labels, measurements, strict=True):
        tier, model = str(prediction["tier"]), str(prediction["model"])
        for node, measured, number in zip(prediction["nodes"], known, numbers, strict=True):
            if measured is None or not measured > 0:
                continue
            key = (tier, model, number)
            if number >= 0 and key in seen:
                columns, row = seen[key]
                columns["copies"][row] += 1
                continue
            columns = out.setdefault(tier, {}).setdefault(
                node["level"],
                {k: [] for k in ("model", "measured_j", "predicted_j", "low_j", "high_j", "copies")},
            )
            if number >= 0:
                seen[key] = (columns, len(columns["model"]))
            values = (model, measured, node["energy_j"], *node["interval_j"], 1)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return out


def errors_percent(pairs: dict[str, list[Any]]) -> list[float]:
    """Absolute errors in percent of the measured energy, copies counted as in the paper."""
    copies = pairs.get("copies") or [1] * len(pairs["measured_j"])
    out: list[float] = []
    for measured, predicted, count in zip(pairs["measured_j"], pairs["predicted_j"], copies, strict=True):
        out += [100.0 * abs(predicted - measured) / measured] * int(count)
    return out


def summary(pairs: dict[str, Any]) -> dict[str, Any]:
    """The ``tiers`` part of an evaluation from pairs (used for in-sample pairs)."""
    tiers: dict[str, Any] = {}
    for tier, levels in pairs.items():
        for level, columns in levels.items():
            errors = sorted(errors_percent(columns))
            inside = total = 0
            per_model: dict[str, list[float]] = {}
            rows = zip(
                *(columns[k] for k in ("model", "measured_j", "predicted_j", "low_j", "high_j", "copies")),
                strict=True,
            )
            for model, measured, predicted, low, high, copies in rows:
                inside += copies * (low <= measured <= high)
                total += copies
                per_model.setdefault(model, []).extend(
                    [100.0 * abs(predicted - measured) / measured] * copies
                )

            def quantile(q: float, ordered: list[float] = errors) -> float:
                return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]

            entry = tiers.setdefault(tier, {"per_model": {}})
            entry[level] = {
                "mape": sum(errors) / len(errors), "p50": quantile(0.5), "p95": quantile(0.95),
                "p99": quantile(0.99), "max": errors[-1], "n": total, "n_distinct": len(columns["model"]),
                "coverage90": inside / total,
            }  # fmt: skip
            for model, values in per_model.items():
                entry["per_model"].setdefault(model, {})[level] = sum(values) / len(values)
    return {"tiers": tiers}
