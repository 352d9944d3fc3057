"""Reads the published IrEne measurements into plain trees, from either form of the authors' repository.

``original`` branch: a folder of four CSV files, a row a node. Cleaned-up branch: JSONL, a tree a line.
Plain trees hold the published rows alone (cost model ``irene2021``); ``join`` puts them onto traced
trees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.dataset.rows import Row, check_not_cut, decode, read_csv
from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError
from irene_runtime.features import PRIMITIVES, RESOURCE_FEATURES
from irene_runtime.tree import ModelTree, Node

#: The six architectures of the paper; rows of others (sshleifer/tiny-ctrl) are dropped, and counted.
PAPER_MODELS = (
    "bert-base-uncased", "roberta-base", "distilbert-base-uncased", "gpt2", "distilgpt2", "openai-gpt",
)  # fmt: skip
#: CSV file -> level of its rows. ml1 holds primitives that are modules, ml2 functional ones.
FILES = {
    "model_level_features.csv": "model", "module_level_features.csv": "module",
    "ml1_level_features.csv": "ml", "ml2_level_features.csv": "ml",
}  # fmt: skip
#: Published column -> our resource feature, in the order of RESOURCE_FEATURES.
RESOURCE_COLUMNS = {
    "cpu": "cpu_util", "mem": "mem_usg", "gpu": "gpu_util", "gpu_mem": "gm_usg", "gpu_clk": "g_clk",
    "gpu_mem_clk": "gm_clk", "times_mean": "latency", "gpu_energy_mean": "gpu_energy",
}  # fmt: skip
_COLUMNS = (
    "batch_size", "seq_len", "flops", "mem_bytes", *RESOURCE_COLUMNS, "energy_mean", "level_name",
    "model_name",
)  # fmt: skip
#: A run that takes no time, or whose GPU takes no energy, was not measured: such a reading is unknown, never 0.
_NEVER_ZERO = ("times_mean", "gpu_energy_mean")
_PRIMITIVE = {name.lower(): name for name in PRIMITIVES}
_MAX_DEPTH = 100


@dataclass
class Record:
    """One published node. ``key`` is what its measurement is told by: equal ones are copies of one."""

    where: str
    scope: str
    type: str
    level: str
    features: dict[str, float]
    resources: list[float]
    energy_j: float
    children: list[Record] = field(default_factory=list)
    call: int = 0

    @property
    def primitive(self) -> str | None:
        return _PRIMITIVE.get(self.type.lower(), "Custom") if self.level == "ml" else None


@dataclass
class Published:
    """What was read: plain trees, and what was dropped, by reason."""

    trees: list[LabelledTree]
    rows: int
    dropped: dict[str, int]


def read(path: Path) -> Published:
    """Read a folder of the four CSV files or one JSONL file.

    Raises DatasetError that names the file and the line of what is missing or broken.
    """
    if path.is_dir():
        roots, rows, dropped = _read_folder(path)
    elif path.is_file():
        roots, rows, dropped = _read_jsonl(path)
    else:
        raise DatasetError(
            f"no such file or folder: {path}; download the dataset from the IrEne repository first"
        )
    if not roots:
        raise DatasetError(f"{path} holds no complete tree of the paper's models ({', '.join(PAPER_MODELS)})")
    zeros = sum(
        math.isnan(value) for root in roots.values() for node in _walk(root) for value in node.resources
    )
    _count(dropped, f"readings of 0 ({', '.join(_NEVER_ZERO)}): unknown", zeros)
    order = {model: position for position, model in enumerate(PAPER_MODELS)}
    numbers: dict[tuple[Any, ...], int] = {}
    trees = [
        _plain_tree(key, roots[key], numbers)
        for key in sorted(roots, key=lambda k: (order[k[0]], k[1], k[2]))
    ]
    return Published(trees, rows, {reason: count for reason, count in dropped.items() if count})


Key = tuple[str, int, int]


def _read_folder(folder: Path) -> tuple[dict[Key, Record], int, dict[str, int]]:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DatasetError(
            f"{folder} lacks {', '.join(missing)}; expected the four CSV files {', '.join(FILES)}"
        )
    total = 0
    dropped: dict[str, int] = {}
    levels: dict[Key, dict[str, list[Record]]] = {}
    for name, level in FILES.items():
        rows = read_csv(folder / name, _COLUMNS)
        check_not_cut(rows, "model_name")
        total += len(rows)
        seen: dict[tuple[Key, str], Row] = {}
        for row in rows:
            key, record = _record(row, level)
            if key[0] not in PAPER_MODELS:
                _count(dropped, f"rows of {key[0]}, which is not one of the paper's six models")
                continue
            earlier = seen.setdefault((key, row.cells["level_name"]), row)
            if earlier is not row and name != "ml2_level_features.csv":
                if earlier.cells != row.cells:
                    raise DatasetError(f"{row.where}: a second, different row for {row.cells['level_name']} "
                                       f"(the first is on line {earlier.line})")  # fmt: skip
                _count(dropped, f"repeated rows of {name}")
                continue
            levels.setdefault(key, {}).setdefault(level, []).append(record)
    roots = {}
    for key, by_level in levels.items():
        if "model" not in by_level:
            count = sum(map(len, by_level.values()))
            _count(dropped, "rows of {} {}x{}, which has no row for the whole model".format(*key), count)
            continue
        roots[key] = _nest(by_level)
    return roots, total, dropped


def _record(row: Row, level: str) -> tuple[Key, Record]:
    name = row.text("level_name")
    scope, separator, kind = name.rpartition(":")
    if (level == "model") is bool(separator):
        expected = "a model name" if level == "model" else "scope:Type"
        raise DatasetError(f"{row.where}: level_name is {name[:80]!r}, expected {expected}")
    key = (row.text("model_name"), row.count("batch_size"), row.count("seq_len"))
    record = Record(
        row.where,
        scope,
        kind,
        level,
        {"flops": row.number("flops"), "mem_bytes": row.number("mem_bytes")},
        _readings({column: row.number(column) for column in RESOURCE_COLUMNS}),
        row.number("energy_mean", positive=True),
    )
    return key, record


def _readings(values: dict[str, float]) -> list[float]:
    # math.nan itself, so that copies of one measurement stay equal.
    return [math.nan if column in _NEVER_ZERO and value == 0.0 else value for column, value in values.items()]


def _nest(levels: dict[str, list[Record]]) -> Record:
    """The tree of one configuration: a row's parent is the nearest scope above it that has a module row.

    Functional primitives carry the scope of the module that runs them.
    """
    root = levels["model"][0]
    modules = {record.scope: record for record in levels.get("module", [])}
    calls: dict[tuple[str, str], int] = {}
    for record in levels.get("module", []) + levels.get("ml", []):
        call = calls.get((record.scope, record.type), 0)
        calls[record.scope, record.type] = call + 1
        record.call = call
        scope = record.scope
        parent = modules.get(scope) if record.level == "ml" else None
        while parent is None and scope:
            scope = scope.rpartition(".")[0]
            parent = modules.get(scope)
        (parent or root).children.append(record)
    return root


def _read_jsonl(path: Path) -> tuple[dict[Key, Record], int, dict[str, int]]:
    roots: dict[Key, Record] = {}
    dropped: dict[str, int] = {}
    total = 0
    for number, line in enumerate(decode(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where}: not JSON, or cut off: {error}") from None
        if not isinstance(data, dict) or not isinstance(data.get("frontend_tree"), dict):
            raise DatasetError(f"{where}: no frontend_tree; expected the JSONL of the IrEne repository")
        model = data.get("model_name")
        if not isinstance(model, str) or not model:
            raise DatasetError(f"{where}: model_name is {model!r}, expected a name")
        key = (model, _whole(data, "batch_size", where), _whole(data, "seq_len", where))
        record = _json_record(data["frontend_tree"], where, 0)
        count = sum(1 for _ in _walk(record))
        total += count
        if model not in PAPER_MODELS:
            _count(dropped, f"rows of {model}, which is not one of the paper's six models", count)
        elif key in roots:
            raise DatasetError(f"{where}: {model} at {key[1]}x{key[2]} is there twice")
        else:
            roots[key] = record
    return roots, total, dropped


def _json_record(raw: Any, where: str, depth: int) -> Record:
    if not isinstance(raw, dict):
        raise DatasetError(f"{where}: a node is {type(raw).__name__}, expected an object")
    if depth > _MAX_DEPTH:
        raise DatasetError(f"{where}: nodes nested deeper than {_MAX_DEPTH}")
    for key in ("scope", "instance_type", "type"):
        if not isinstance(raw.get(key), str):
            raise DatasetError(f"{where}: a node's {key} is {raw.get(key)!r}, expected text")
    kind, level = raw["instance_type"], {"ml-np": "ml"}.get(raw["type"], raw["type"])
    scope = raw["scope"].removeprefix("root").removeprefix(".")
    here = f"{where}, node {raw['scope'][:80]}:{kind[:40]}"
    if level not in ("ml", "module", "model") or (level == "model") is not (depth == 0):
        raise DatasetError(f"{here}: type is {raw['type']!r}, expected ml or module, and model at the root")
    if level == "ml":
        # Functional leaves: root.attention.self.matmul here, attention.self:MatMul in the CSV form.
        if scope.rpartition(".")[2] == kind.lower() and kind.lower() in ("matmul", "softmax"):
            scope = scope.rpartition(".")[0]
        kind = _PRIMITIVE.get(kind.lower(), kind)
    children = raw.get("child_nodes_obj")
    if not isinstance(children, list) or (level == "ml" and children):
        raise DatasetError(f"{here}: child_nodes_obj must be a list, empty at ML nodes")
    features = {name: _float(raw, name, here) for name in ("flops", "mem_bytes")}
    if raw.get("num_parameters") is not None:
        features["num_parameters"] = _float(raw, "num_parameters", here)
    record = Record(
        here,
        scope,
        kind,
        level,
        features,
        _readings({column: _float(raw, column, here) for column in RESOURCE_COLUMNS}),
        _float(raw, "ground_truth_energy", here),
    )
    if record.energy_j == 0.0:
        raise DatasetError(f"{here}: ground_truth_energy is 0, expected a positive number")
    calls: dict[tuple[str, str], int] = {}
    for child in children:
        item = _json_record(child, where, depth + 1)
        item.call = calls.get((item.scope, item.type), 0)
        calls[item.scope, item.type] = item.call + 1
        record.children.append(item)
    return record


def _float(raw: dict[str, Any], key: str, where: str) -> float:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DatasetError(f"{where}: {key} is {value!r:.40}, expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0.0:
        raise DatasetError(f"{where}: {key} is {number!r}, expected a finite number that is not negative")
    return number


def _whole(raw: dict[str, Any], key: str, where: str) -> int:
    value = _float(raw, key, where)
    if value != int(value) or not 1 <= value <= 2**31:
        raise DatasetError(f"{where}: {key} is {value!r}, expected a whole number")
    return int(value)


def _walk(record: Record) -> Iterator[Record]:
    yield record
    for child in record.children:
        yield from _walk(child)


def _count(counts: dict[str, int], reason: str, number: int = 1) -> None:
    counts[reason] = counts.get(reason, 0) + number


def _plain_tree(key: Key, root: Record, numbers: dict[tuple[Any, ...], int]) -> LabelledTree:
    """A labelled tree of the published nodes alone. ``numbers`` gives equal measurements equal numbers.

    The authors' profiler measured each (type, flops, mem_bytes) of a configuration once and copied the row.
    """
    model, batch_size, seq_len = key
    nodes: list[Node] = []
    energy, resources, measurement = [], [], []
    stack = [(root, -1)]
    while stack:
        record, parent = stack.pop()
        index = len(nodes)
        nodes.append(
            Node(
                record.scope,
                record.type or model,
                record.level,
                parent,
                record.primitive,
                record.call,
                record.features,
            )
        )
        identity = (key, record.type, *record.features.values(), *record.resources, record.energy_j)
        energy.append(record.energy_j)
        resources.append(record.resources)
        measurement.append(numbers.setdefault(identity, len(numbers)))
        stack.extend((child, index) for child in reversed(record.children))
    header = {"model": model, "batch_size": batch_size, "seq_len": seq_len, "cost_model": "irene2021"}
    assert tuple(RESOURCE_COLUMNS.values()) == RESOURCE_FEATURES
    return LabelledTree(
        ModelTree(nodes, header),
        np.array(energy),
        np.array(resources),
        np.array(measurement, dtype=np.int64),
        np.full(len(nodes), np.nan),
    )


def plain_dataset(path: Path, hardware: str) -> Dataset:
    """The published rows alone as a dataset: cost model ``irene2021``, no num_parameters."""
    return Dataset(hardware, "wall", "measured", "emonpi", read(path).trees, {"source": "irene"})
