"""Reads a table of whole-model measurements: one row a run of a model, a joule label at the root alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.dataset.rows import Row, read_csv
from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError, ModelError
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import ModelTree

_NEEDED = ("batch_size", "seq_len", "energy_j")
#: Column of the table -> resource feature; resource features by their own names are read as well.
_RESOURCES = {
    "latency_s": "latency",
    "gpu_energy_j": "gpu_energy",
    **{name: name for name in RESOURCE_FEATURES},
}
_DEFAULTS = {"phase": "forward", "past_len": "0", "dtype": "float32", "attention": "eager", "weights": ""}
#: Columns that say what a run was under -> key of the tree's header.
_CONDITIONS = {"freq": "clock_mhz", "clock": "clock_mhz", "clock_mhz": "clock_mhz",
               "power_limit": "power_limit_w", "power_limit_w": "power_limit_w"}  # fmt: skip
#: Repetitions of one run whose joules are further apart than this factor are told.
FAR_APART = 1.3


@dataclass(frozen=True)
class Run:
    """What was run, by the arguments of the tracer, and under what: one tree each."""

    spec: str
    batch_size: int
    seq_len: int
    phase: str
    past_len: int
    dtype: str
    attention: str
    weights: str = ""
    clock_mhz: float | None = None
    power_limit_w: float | None = None

    @property
    def traced(self) -> Run:
        """What the tracer needs to know: runs that differ in clock and power limit share their tree."""
        return replace(self, clock_mhz=None, power_limit_w=None)


#: Traces a run; raises ModelError.
Tracer = Callable[[Run], ModelTree]


@dataclass
class WholeModelRow:
    """One measured run: ``resources`` float64[8] as RESOURCE_FEATURES, NaN where the table does not say."""

    where: str
    run: Run
    name: str
    energy_j: float
    resources: np.ndarray


def read(path: Path) -> tuple[list[WholeModelRow], list[str]]:
    """The rows, and the names of columns that are not used. Raises DatasetError with file and line."""
    rows = read_csv(path, _NEEDED)
    columns = list(rows[0].cells)
    if "model" not in columns and "config" not in columns:
        raise DatasetError(
            f"{path}, line 1: needs a column 'model' (a named model) or 'config' (a configuration)"
        )
    for names in (_RESOURCES, _CONDITIONS):
        twice = [ours for ours in set(names.values()) if sum(names.get(c) == ours for c in columns) > 1]
        if twice:
            raise DatasetError(f"{path}, line 1: {twice[0]} is there in two columns")
    used = {*_NEEDED, *_DEFAULTS, *_RESOURCES, *_CONDITIONS, "model", "config", "gpu", "device"}
    return [_row(row) for row in rows], [column for column in columns if column not in used]


def device(path: Path) -> str:
    """The device that a column ``device`` or ``gpu`` names in every row alike; empty where none does."""
    found = {row.cells.get("device") or row.cells.get("gpu") or "" for row in read_csv(path, _NEEDED)}
    return found.pop() if len(found) == 1 else ""


def _row(row: Row) -> WholeModelRow:
    cells = row.cells
    model, config = cells.get("model", ""), cells.get("config", "")
    if not model and not config:
        raise DatasetError(f"{row.where}: neither model nor config is filled in")
    spec = model
    if config:
        place = row.path.parent / config
        spec = str(place)
        if not place.exists():
            raise DatasetError(f"{row.where}: config {config!r}: there is no such file or folder ({place})")
    text = {key: cells.get(key) or default for key, default in _DEFAULTS.items()}
    past = 0
    if text["past_len"] not in ("0", "0.0"):
        past = row.count("past_len")
    resources = np.full(len(RESOURCE_FEATURES), np.nan)
    for column, feature in _RESOURCES.items():
        if cells.get(column):
            resources[RESOURCE_FEATURES.index(feature)] = row.number(column)
    under = {key: row.number(c, positive=True) for c, key in _CONDITIONS.items() if cells.get(c)}
    run = Run(
        spec,
        row.count("batch_size"),
        row.count("seq_len"),
        text["phase"],
        past,
        text["dtype"],
        text["attention"],
        text["weights"],
        under.get("clock_mhz"),
        under.get("power_limit_w"),
    )
    name = model or Path(config).name.removesuffix(".json")
    return WholeModelRow(row.where, run, name, row.number("energy_j", positive=True), resources)


def build(
    rows: list[WholeModelRow],
    hardware: str,
    trace: Tracer,
    boundary: str = "wall",
    provenance: str = "measured",
    label_source: str = "table",
    progress: Callable[[int, str], None] | None = None,
) -> tuple[Dataset, dict[str, Any]]:
    """The dataset, labelled at the roots alone, and a summary.

    Rows of one run under the same conditions are repetitions: their mean is the label, its standard error comes
    from their spread; where they are far apart, ``info["far_apart"]`` says so. ``info["implausible"]`` holds, by the
    root's measurement, why a run is no label for its tree (here: it is longer than the model's positions).
    Raises DatasetError that names the row of a model that cannot be traced.
    """
    groups: dict[tuple[str, Run], list[WholeModelRow]] = {}
    for row in rows:
        groups.setdefault((row.name, row.run), []).append(row)
    trees: list[LabelledTree] = []
    traced: dict[Run, ModelTree] = {}
    implausible: dict[str, dict[str, str]] = {}
    far_apart: list[str] = []
    for number, ((name, run), same) in enumerate(groups.items()):
        if progress is not None:
            progress(number, name)
        if run.traced not in traced:
            try:
                traced[run.traced] = trace(run.traced)
            except ModelError as error:
                raise DatasetError(f"{same[0].where}: {error}") from None
        shared = traced[run.traced]
        under = {"clock_mhz": run.clock_mhz, "power_limit_w": run.power_limit_w}
        tree = ModelTree(shared.nodes, {**shared.header, **under, "model": name})
        trees.append(_labelled(tree, same, number))
        length = tree.header["seq_len"]
        if (tree.header["traced_by"] or {}).get("seq_len_asked"):
            implausible[str(number)] = {
                "row": same[0].where, "reason": f"{run.seq_len} tokens, but the model has {length} positions",
            }  # fmt: skip
        joules = [row.energy_j for row in same]
        if max(joules) > FAR_APART * min(joules):
            far_apart.append(
                f"{same[0].where}: {len(same)} rows of one run, {min(joules):.4g} to {max(joules):.4g} J"
            )
    summary = {
        "trees": len(trees),
        "rows": len(rows),
        "repetitions": len(rows) - len(trees),
        "nodes": sum(len(tree.tree.nodes) for tree in trees),
    }
    info = {
        "source": "table", "labels": "model", **summary, "implausible": implausible, "far_apart": far_apart,
        "rows_of": {str(n): same[0].where for n, same in enumerate(groups.values())},
    }  # fmt: skip
    return Dataset(hardware, boundary, provenance, label_source, trees, info), summary


def _labelled(tree: ModelTree, rows: list[WholeModelRow], number: int) -> LabelledTree:
    size = len(tree.nodes)
    energy, std = np.full(size, np.nan), np.full(size, np.nan)
    resources = np.full((size, len(RESOURCE_FEATURES)), np.nan)
    measurement = np.full(size, -1, dtype=np.int64)
    values = np.array([row.energy_j for row in rows])
    energy[0], measurement[0] = values.mean(), number
    if len(values) > 1:
        std[0] = values.std(ddof=1) / np.sqrt(len(values))
    table = np.array([row.resources for row in rows])
    known = np.isfinite(table)
    sums, counts = np.where(known, table, 0.0).sum(axis=0), known.sum(axis=0)
    resources[0] = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return LabelledTree(tree, energy, resources, measurement, std)
