"""Energy against accuracy (section 5.6, Figure 4): the user's accuracies, the Pareto front, choices."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irene_build.errors import InputError


def read_accuracies(path: Path) -> dict[str, float]:
    """``model -> accuracy`` from a CSV file with the columns ``model`` and ``accuracy``.

    The scale is the user's own (percent or fraction). Raises InputError with file and line.
    """
    out: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"model", "accuracy"} - set(reader.fieldnames or [])
            if missing:
                raise InputError(
                    f"{path}: line 1: no column {', '.join(sorted(missing))}; expected model,accuracy"
                )
            for row in reader:
                model, text = (row["model"] or "").strip(), (row["accuracy"] or "").strip()
                try:
                    value = float(text)
                except ValueError:
                    value = math.nan
                if not model or not math.isfinite(value):
                    raise InputError(
                        f"{path}: line {reader.line_num}: expected model,accuracy, found {model!r},{text!r}"
                    )
                if out.get(model, value) != value:
                    raise InputError(f"{path}: line {reader.line_num}: a second accuracy for {model!r}")
                out[model] = value
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}") from None
    if not out:
        raise InputError(f"{path}: holds no accuracies")
    return out


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats, by rising energy.

    ``points`` are (energy, accuracy): one is beaten where another costs no more and is no less accurate,
    and is better in one of the two.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for index in order:
        energy, accuracy = points[index]
        if not front or accuracy > points[front[-1]][1] or points[front[-1]] == (energy, accuracy):
            front.append(index)
    return front


def best_under(rows: Sequence[dict[str, Any]], budget_j: float) -> dict[str, Any] | None:
    """The most accurate row whose ``energy_j`` is at most ``budget_j``; the cheaper of equals; None if none.

    A row whose interval reaches above the budget is still eligible; callers show the interval.
    """
    fits = [r for r in rows if r.get("accuracy") is not None and r["energy_j"] <= budget_j]
    return min(fits, key=lambda r: (-r["accuracy"], r["energy_j"])) if fits else None


def cheapest_above(rows: Sequence[dict[str, Any]], accuracy: float) -> dict[str, Any] | None:
    """The row of least ``energy_j`` with this accuracy or more; the more accurate of equals; None if none."""
    fits = [r for r in rows if r.get("accuracy") is not None and r["accuracy"] >= accuracy]
    return min(fits, key=lambda r: (r["energy_j"], -r["accuracy"])) if fits else None
