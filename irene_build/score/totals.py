"""Totals of scored rows by any columns: joules with their interval, kWh, grams, cost.

All requests of one model on one device share what its estimator has wrong, so that within a model the ends of
intervals add up; between models the errors are taken for independent, so that half-widths add as squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irene_build.errors import InputError
from irene_build.score.batches import REJECTED, Settings
from irene_build.score.columns import column, has
from irene_build.score.values import seconds, whole_numbers

if TYPE_CHECKING:
    import pyarrow as pa

#: Made of the time of a row where the log has no such column.
OF_TIME = {"day": "D", "hour": "h", "month": "M"}
JOULES_PER_KWH = 3.6e6
_SUMS = (
    "requests", "prompt_tokens", "output_tokens", "energy_j", "energy_low_j", "energy_high_j", "prefill_energy_j",
    "decode_energy_j",
)  # fmt: skip

#: Values of the keys, then the model -> the sums above.
Sums = dict[tuple[str, ...], list[float]]


@dataclass(frozen=True)
class Rates:
    """``g_per_kwh``: grams of CO2 of one kWh; ``price``: of one kWh in ``currency``."""

    g_per_kwh: float | None = None
    price: float | None = None
    currency: str = "EUR"


def check_keys(schema: pa.Schema, by: Sequence[str], settings: Settings) -> None:
    """Raises InputError where rows cannot be told apart by these."""
    for key in by:
        if has(schema, key) or (key in OF_TIME and settings.columns.time) or key == "model":
            continue
        if key in settings.columns.named():
            continue
        why = ", and no column of time to make it of" if key in OF_TIME else ""
        raise InputError(
            f"--by {key}: the log has no such column{why}; it has {', '.join(schema.names[:12])}"
        )


def sums_of(scored: pa.RecordBatch, by: Sequence[str], settings: Settings) -> Sums:
    """The sums of one batch of scored rows (those without a reason), by keys and model, in the order of the rows."""
    import pyarrow.compute as pc

    good = (
        scored.filter(pc.is_null(scored.column(REJECTED)))
        if scored.column(REJECTED).null_count < len(scored)
        else scored
    )
    if not good.num_rows:
        return {}
    columns = settings.columns
    numbers = [np.ones(good.num_rows)]
    numbers += [
        whole_numbers(column(good, name))[0].astype(np.float64) for name in (columns.prompt, columns.output)
    ]
    numbers += [good.column(name).to_numpy() for name in _SUMS[3:]]
    codes = np.zeros(good.num_rows, dtype=np.int64)
    labels: list[tuple[str, ...]] = [()]
    for key in [*by, "model"]:
        values = _key(good, key, settings)
        if isinstance(values, str):
            labels = [(*label, values) for label in labels]
            continue
        coded = pc.dictionary_encode(values, null_encoding="encode")
        words = ["" if word is None else word for word in coded.dictionary.to_pylist()]
        own = coded.indices.to_numpy(zero_copy_only=False)
        joined, codes = np.unique(codes * len(words) + own, return_inverse=True)
        labels = [(*labels[code // len(words)], words[code % len(words)]) for code in joined.tolist()]
    out: Sums = {}
    stacked = [np.bincount(codes, weights=values, minlength=len(labels)) for values in numbers]
    for label, sums in zip(labels, np.stack(stacked, axis=1).tolist(), strict=True):
        add(out, {label: sums})
    return out


def add(total: Sums, more: Mapping[tuple[str, ...], Sequence[float]]) -> None:
    """Add sums to others in place."""
    for label, sums in more.items():
        mine = total.setdefault(label, [0.0] * len(_SUMS))
        for index, value in enumerate(sums):
            mine[index] += value


def totals(sums: Sums, by: Sequence[str], rates: Rates) -> dict[str, Any]:
    """``{"total": row, "rows": [row, ...]}``: one row a group, the dearest first, each as JSON."""
    groups: dict[tuple[str, ...], Sums] = {}
    every: Sums = {}
    for label, values in sums.items():
        model = label[-1:]
        add(groups.setdefault(label[: len(by)], {}), {model: values})
        add(every, {model: values})
    rows = [{**dict(zip(by, key, strict=True)), **_row(models, rates)} for key, models in groups.items()]
    rows.sort(key=lambda row: (-row["energy_j"], *(row[key] for key in by)))
    return {
        "by": list(by),
        "currency": rates.currency,
        "total": _row(every, rates),
        "rows": rows if by else [],
    }


def _row(models: Sums, rates: Rates) -> dict[str, Any]:
    summed = {name: math.fsum(m[index] for m in models.values()) for index, name in enumerate(_SUMS)}
    energy = summed["energy_j"]
    low, high = (math.sqrt(math.fsum((m[3] - m[end]) ** 2 for m in models.values())) for end in (4, 5))
    row: dict[str, Any] = {name: int(summed[name]) for name in _SUMS[:3]}
    row |= {"energy_j": energy, "energy_low_j": energy - low, "energy_high_j": energy + high}
    row |= {name: summed[name] for name in _SUMS[6:]}
    row["energy_kwh"] = energy / JOULES_PER_KWH
    tokens = row["output_tokens"]
    row["energy_per_output_token_j"] = energy / tokens if tokens else None
    if rates.g_per_kwh is not None:
        row["co2_g"] = row["energy_kwh"] * rates.g_per_kwh
    if rates.price is not None:
        row["cost"] = row["energy_kwh"] * rates.price
    return row


def _key(rows: pa.RecordBatch, key: str, settings: Settings) -> Any:
    """The values of a key as text; one text where it is the same for all rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if key == "model" and settings.model:
        return settings.model
    if key == "model" and settings.columns.model:
        key = settings.columns.model
    elif key in OF_TIME and not has(rows.schema, key):
        moments = seconds(column(rows, settings.columns.time))
        known = np.isfinite(moments)
        stamps = np.where(known, moments, 0.0).astype("datetime64[s]").astype(f"datetime64[{OF_TIME[key]}]")
        distinct, codes = np.unique(stamps, return_inverse=True)
        words = pa.array([str(word) for word in distinct], pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=~known), words).cast(pa.string())
    elif not has(rows.schema, key):
        key = settings.columns.named()[key]
    return pc.cast(column(rows, key), pa.string())


def merged(parts: Iterable[Sums]) -> Sums:
    """The sums of several parts, added in their order."""
    out: Sums = {}
    for part in parts:
        add(out, part)
    return out
