"""Measured kernels of one GPU, column by column: 300,000 rows are arrays, not trees; each row is a labelled leaf.

A row's label is its latency; where power was measured too, energy = power x latency ("NVML power, 1 s average"), and
the latency may then not be a feature of anything that predicts that energy.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.errors import DatasetError
from irene_build.files import write_bytes_atomic
from irene_runtime.kernels import KINDS

FILE = "kernels.npz"
PROVENANCE = "NVML power, 1 s average"


@dataclass
class Group:
    """Kernels of one kind and dtype: ``shape`` float64[n, len(KINDS[kind])], ``latency_s`` and ``power_w``
    float64[n]; NaN watts where only time was measured."""

    kind: str
    dtype: str
    shape: np.ndarray
    latency_s: np.ndarray
    power_w: np.ndarray

    def columns(self, rows: Any = slice(None)) -> list[np.ndarray]:
        return [self.shape[rows, i] for i in range(self.shape.shape[1])]


@dataclass
class KernelTable:
    """All kernels of a GPU, and ``info``: device (a datasheet as plain data), sources, versions, counts."""

    groups: list[Group]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(len(group.latency_s) for group in self.groups)

    @property
    def powered(self) -> int:
        return sum(int(np.isfinite(group.power_w).sum()) for group in self.groups)


def collect(parts: list[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> list[Group]:
    """Groups by kind and dtype. A part is a kind, its dtypes str[n], shapes, latencies (s) and watts."""
    found: dict[tuple[str, str], list[tuple[np.ndarray, ...]]] = {}
    for kind, dtypes, shape, latency_s, power_w in parts:
        good = np.isfinite(latency_s) & (latency_s > 0) & np.isfinite(shape).all(1)
        for dtype in np.unique(dtypes):
            rows = good & (dtypes == dtype)
            if rows.any():
                found.setdefault((kind, str(dtype)), []).append((shape[rows], latency_s[rows], power_w[rows]))
    return [
        Group(kind, dtype, *(np.concatenate(column) for column in zip(*pieces, strict=True)))
        for (kind, dtype), pieces in sorted(found.items())
    ]


def save(table: KernelTable, path: Path) -> None:
    """Write the table, whole or not at all."""
    arrays: dict[str, np.ndarray] = {"info": np.array(json.dumps(table.info, sort_keys=True))}
    for i, group in enumerate(table.groups):
        arrays[f"{i}|{group.kind}|{group.dtype}"] = np.column_stack(
            [group.shape, group.latency_s, group.power_w]
        )
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    write_bytes_atomic(path, out.getvalue())


def load(path: Path) -> KernelTable:
    """Read what ``save`` wrote. Raises DatasetError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            info = json.loads(str(file["info"]))
            groups = []
            for name in file.files:
                if name == "info":
                    continue
                _, kind, dtype = name.split("|")
                data = file[name]
                if data.ndim != 2 or data.shape[1] != len(KINDS[kind]) + 2:
                    raise ValueError(name)
                groups.append(Group(kind, dtype, data[:, :-2], data[:, -2], data[:, -1]))
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(
            f"{path} is not a table of kernels that `irene-build import` wrote: {error}"
        ) from None
    return KernelTable(groups, info)


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """A Parquet or CSV file as columns. Raises DatasetError."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        read = pyarrow.parquet.read_table if path.suffix == ".parquet" else pyarrow.csv.read_csv
        table = read(path)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}


def read_generic(path: Path) -> list[Group]:
    """Kernels of one's own: columns primitive (a name of KINDS), dtype, the names of its shape, latency_s and
    energy_j (or power_w). Raises DatasetError."""
    columns = read_columns(path)
    missing = {"primitive", "latency_s"} - set(columns)
    if missing:
        raise DatasetError(f"{path}: no column {', '.join(sorted(missing))}")
    kinds = columns["primitive"].astype(str)
    unknown = sorted({str(kind) for kind in kinds} - set(KINDS))
    if unknown:
        raise DatasetError(f"{path}: primitive {unknown[0]!r}: expected one of {', '.join(KINDS)}")
    count = len(kinds)
    latency = columns["latency_s"].astype(float)
    watts = numbers(columns, "power_w", count, np.nan)
    if "energy_j" in columns:
        watts = columns["energy_j"].astype(float) / latency
    dtypes = columns["dtype"].astype(str) if "dtype" in columns else np.full(count, "bfloat16")
    parts = []
    for kind in np.unique(kinds):
        lacking = [name for name in KINDS[kind] if name not in columns and name not in _OPTIONAL]
        if lacking:
            raise DatasetError(f"{path}: rows of {kind} need the column {lacking[0]}")
        rows = kinds == kind
        shape = np.column_stack(
            [numbers(columns, n, count, _OPTIONAL.get(n, np.nan))[rows] for n in KINDS[kind]]
        )
        parts.append((str(kind), dtypes[rows], shape, latency[rows], watts[rows]))
    return collect(parts)


_OPTIONAL = {"cached": 0.0, "window": 0.0, "tp": 1.0, "ep": 1.0, "skew": 0.0}


def numbers(columns: Mapping[str, np.ndarray], name: str, count: int, default: float) -> np.ndarray:
    """A column as float64[count]; ``default`` where the file does not have it."""
    if name not in columns:
        return np.full(count, default)
    return np.asarray(columns[name], dtype=float)
