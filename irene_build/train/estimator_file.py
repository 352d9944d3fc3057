"""The estimator file: its header, its short form, how it is written, read and held to FORMAT.md."""

from __future__ import annotations

import json
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import Path
from typing import Any

from irene_build.dataset.table import PROVENANCES, Dataset
from irene_build.errors import EstimatorError
from irene_build.files import write_text_atomic
from irene_runtime.features import FEATURES, PRIMITIVES

FORMAT = "irene-estimator"
VERSION = 1
METHODS = ("best", "paper")
TIERS = ("static", "live", "profile")
MAX_BYTES = 32 << 20
#: Significant digits of a fitted number (no label is known to half as many), and of the ends of a range.
DIGITS, RANGE_DIGITS = 8, 6
#: What may be left out of a term, a leaf and a column, each known by a key that it always has.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "weight": {"mean": 0.0, "scale": 1.0},
    "terms": {"floor": None, "correction": None},
    "feature": {"map": "identity"},
    "of": {"map": "identity"},
    "kernel": {"bias": 0.0, "scale": None},
}
_BASE_36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_STRINGS = ("hardware", "method", "boundary", "provenance", "label_source", "cost_model", "attention")


def compact(estimator: dict[str, Any]) -> dict[str, Any]:
    """The estimator as it ships: floats to DIGITS significant digits, terms and leaves without their defaults.

    Methods end with this, so that what is evaluated, written and compiled are the same numbers. Ranges are rounded
    outwards: what was calibrated stays inside.
    """
    return {**estimator, "tiers": {name: _compact(tier) for name, tier in estimator["tiers"].items()}}


def _compact(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        if key == "ranges":
            return {
                kind: {name: [_outward(low, ROUND_FLOOR), _outward(high, ROUND_CEILING)]
                       for name, (low, high) in limits.items()}
                for kind, limits in value.items()
            }  # fmt: skip
        if "centers" in value and "grid" not in value:
            grid = [sorted(set(values)) for values in zip(*value["centers"], strict=True)]
            at = [
                [g.index(x) for x in row]
                for g, row in zip(grid, zip(*value["centers"], strict=True), strict=True)
            ]
            short = ["".join(_BASE_36[i] for i in row) if max(row) < len(_BASE_36) else row for row in at]
            value = {**value, "grid": grid, "centers": short}
            if set(value.get("scale") or ()) == {1.0}:
                value["scale"] = None
        defaults = next((_DEFAULTS[k] for k in _DEFAULTS if k in value), {})
        kept = {k: v for k, v in value.items() if k not in defaults or v != defaults[k]}
        return {k: _compact(v, k) for k, v in kept.items()}
    if isinstance(value, list):
        return [_compact(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _outward(value: float, rounding: str) -> float:
    return float(Context(prec=RANGE_DIGITS, rounding=rounding).create_decimal(repr(value)))


def header(dataset: Dataset, method: str, cost_model: str) -> dict[str, Any]:
    """The keys of an estimator that say where it comes from; the method adds features, primitives, tiers."""
    import numpy as np

    measurements = np.concatenate([tree.measurement for tree in dataset.trees])
    labelled = sum(int((~np.isnan(tree.energy_j)).sum()) for tree in dataset.trees)
    attentions = sorted({str(tree.tree.header["attention"]) for tree in dataset.trees})
    return {
        "format": FORMAT,
        "version": VERSION,
        "hardware": dataset.hardware,
        "method": method,
        "boundary": dataset.boundary,
        "provenance": dataset.provenance,
        "label_source": dataset.label_source,
        "cost_model": cost_model,
        "attention": attentions[0] if len(attentions) == 1 else "mixed",
        "created_by": package_versions(),
        "fingerprint": dict(dataset.info.get("fingerprint") or {}),
        "trained_on": {
            "models": dataset.models,
            "trees": len(dataset.trees),
            "nodes": labelled,
            "distinct": len(np.unique(measurements[measurements >= 0])),
            "dtypes": sorted({str(tree.tree.header["dtype"]) for tree in dataset.trees}),
        },
        "evaluation": {},
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape the numbers."""
    import numpy
    import scipy
    import sklearn

    import irene_build

    return {
        "irene-build": irene_build.__version__, "numpy": numpy.__version__, "scipy": scipy.__version__,
        "scikit-learn": sklearn.__version__,
    }  # fmt: skip


def dumps(estimator: dict[str, Any]) -> str:
    """The file's text: sorted keys, one-space indent, floats by ``repr``: equal inputs give equal bytes."""
    try:
        return json.dumps(estimator, sort_keys=True, indent=1, allow_nan=False) + "\n"
    except ValueError:
        raise EstimatorError("the estimator holds a number that is not finite: a fault of the fit") from None


def save(estimator: dict[str, Any], path: str | Path) -> None:
    """Check and write the estimator; a crash leaves the old file or the new one. Raises EstimatorError, OutputError."""
    validate(estimator, "estimator")
    write_text_atomic(path, dumps(estimator))


def load(path: str | Path) -> dict[str, Any]:
    """Read and check an estimator file. Raises EstimatorError that names the file and what is wrong in it."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise EstimatorError(f"cannot read {path}: {error.strerror or error}") from None
    if len(raw) > MAX_BYTES:
        raise EstimatorError(f"{path} is larger than {MAX_BYTES >> 20} MiB, too large for an estimator")
    try:
        data = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise EstimatorError(f"{path} is not an estimator file: {error}; train it again") from None
    validate(data, str(path))
    return data


def validate(data: Any, where: str) -> None:
    """Check an estimator against FORMAT.md. Raises EstimatorError with the key that is wrong."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise EstimatorError(f'{where}: not an estimator: expected an object with "format": "{FORMAT}"')
    number = data.get("version")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise EstimatorError(f"{where}: version is {number!r}, expected a whole number from 1 on")
    if number > VERSION:
        raise EstimatorError(
            f"{where}: estimator version {number} is newer than {VERSION}, the newest known: update it"
        )
    for key in _STRINGS:
        if not isinstance(data.get(key), str) or not data[key]:
            raise EstimatorError(f"{where}: {key} is {data.get(key)!r}, expected text")
    if data["provenance"] not in PROVENANCES:
        raise EstimatorError(
            f"{where}: provenance is {data['provenance']!r}, not one of {', '.join(PROVENANCES)}"
        )
    for key, known in (("features", FEATURES), ("primitives", PRIMITIVES)):
        names = data.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
            raise EstimatorError(f"{where}: {key} must be a list of known names")
        if len(set(names)) != len(names):
            raise EstimatorError(f"{where}: {key} names one twice")
    tiers = data.get("tiers")
    if not isinstance(tiers, dict) or not tiers or not all(tier in TIERS for tier in tiers):
        raise EstimatorError(f"{where}: tiers must be an object with some of {', '.join(TIERS)}")
    _check_numbers(tiers, f"{where}: tiers")
    for name in tiers:
        _check_columns(data, name, where)
    _check_by_runtime(data, where)


def _check_numbers(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_numbers(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise EstimatorError(f"{where} is {value!r}, expected a finite number")


def _check_columns(data: dict[str, Any], name: str, where: str) -> None:
    tier = data["tiers"][name]
    columns = tier.get("columns", []) if isinstance(tier, dict) else None
    if not isinstance(columns, list) or not all(isinstance(column, dict) for column in columns):
        raise EstimatorError(f"{where}: tiers.{name}.columns must be a list of objects")
    for index, column in enumerate(columns):
        if "of" not in column and column.get("feature") not in data["features"]:
            raise EstimatorError(
                f"{where}: tiers.{name}.columns[{index}]: no feature {column.get('feature')!r}"
            )


def _check_by_runtime(data: dict[str, Any], where: str) -> None:
    """The runtime compiles every formula when it starts; what it refuses is not an estimator."""
    from irene_runtime.model import Estimator

    try:
        Estimator(data)
    except EstimatorError as error:
        raise EstimatorError(f"{where}: {error}") from None
