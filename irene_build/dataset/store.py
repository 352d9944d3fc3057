"""The dataset's place on disk: two tables of ``artifacts/HARDWARE/campaign.sqlite``, beside the journal.

Schema, version 1 (numbers are little-endian, NaN is "not known"):

    dataset(key TEXT PRIMARY KEY, value TEXT)           value is JSON; keys:
        format      "irene-dataset"
        version     1
        hardware, boundary, provenance, label_source    strings, as in ``irene_build.dataset.table.Dataset``
        resources   names of the resource columns below, in order
        info        object, whatever the maker of the dataset wants to be remembered
    dataset_tree(position INTEGER PRIMARY KEY,          0, 1, 2, ... in the order of the dataset
        model TEXT, batch_size INTEGER, seq_len INTEGER, nodes INTEGER,
        tree BLOB,                                      zlib of the tree file's text (irene-tree)
        energy_j BLOB, energy_std_j BLOB,               float64[nodes], J of one run
        resources BLOB,                                 float64[nodes, columns], units: irene_runtime.features
        measurement BLOB)                               int64[nodes], -1 for none

"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.dataset.table import PROVENANCES, Dataset, LabelledTree
from irene_build.errors import DatasetError, InputError, RunError, TreeError
from irene_build.received import inflate, json_of, plain_tables
from irene_runtime.features import FEATURES, RESOURCE_FEATURES
from irene_runtime.tree import loads

FORMAT = "irene-dataset"
VERSION = 1
_STRINGS = ("hardware", "boundary", "provenance", "label_source")
_SCHEMA = (
    "CREATE TABLE dataset(key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE dataset_tree(position INTEGER PRIMARY KEY, model TEXT NOT NULL, batch_size INTEGER,"
    " seq_len INTEGER, nodes INTEGER NOT NULL, tree BLOB NOT NULL, energy_j BLOB NOT NULL,"
    " energy_std_j BLOB NOT NULL, resources BLOB NOT NULL, measurement BLOB NOT NULL)",
)


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    """SQLite's errors as ours: what cannot be read is wrong input, what cannot be written is a failure."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        advice = "free some space" if "full" in text else "close the program that holds it, then try again"
        raise RunError(f"{path}: {text}; nothing was changed; {advice}") from None
    except sqlite3.DatabaseError as error:
        raise DatasetError(f"{path} is not a usable SQLite file: {error}") from None


def save_dataset(dataset: Dataset, path: str | Path) -> None:
    """Write ``dataset`` into the SQLite file ``path``, replacing the dataset there and nothing else.

    One transaction: after a crash the file holds the old dataset or the new one.
    Raises DatasetError for numbers that cannot be labels, RunError where the file cannot be written.
    """
    path = Path(path)
    rows = [_row(position, labelled) for position, labelled in enumerate(dataset.trees)]
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "resources": list(RESOURCE_FEATURES)}
    header.update({key: getattr(dataset, key) for key in _STRINGS}, info=dataset.info)
    _check_header(header, "dataset")
    try:
        values = [(key, json.dumps(header[key], sort_keys=True, allow_nan=False)) for key in sorted(header)]
    except (TypeError, ValueError) as error:
        raise DatasetError(f"dataset: info cannot be written as JSON: {error}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with _failures_named(path), closing(sqlite3.connect(path, timeout=10.0)) as database:
        database.isolation_level = None
        database.execute("BEGIN IMMEDIATE")
        try:
            for table in ("dataset", "dataset_tree"):
                database.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in _SCHEMA:
                database.execute(statement)
            database.executemany("INSERT INTO dataset VALUES(?, ?)", values)
            database.executemany("INSERT INTO dataset_tree VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise


def load_dataset(path: str | Path) -> Dataset:
    """Read and check the dataset of a SQLite file; the file is opened for reading only.

    Raises InputError where there is no file or no dataset in it, DatasetError that says what is wrong where.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no dataset at {path}: run `irene-build calibrate` or `irene-build import` first")
    with _failures_named(path), closing(_connect_read_only(path)) as database:
        plain_tables(database, path)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"dataset", "dataset_tree"} <= tables:
            raise InputError(
                f"{path} holds no dataset yet: finish the campaign (`irene-build calibrate --resume`) or, "
                "if it is finished, derive the labels with `irene-build relabel`"
            )
        header = {}
        for key, value in database.execute("SELECT key, value FROM dataset"):
            header[key] = json_of(value, f"{path}: dataset.{key}")
        _check_header(header, str(path))
        columns = header["resources"]
        trees = []
        query = (
            "SELECT position, nodes, tree, energy_j, energy_std_j, resources, measurement"
            " FROM dataset_tree ORDER BY position"
        )
        for expected, row in enumerate(database.execute(query)):
            if row[0] != expected:
                raise DatasetError(f"{path}: dataset_tree {expected} is missing")
            trees.append(_tree(row, columns, f"{path}: dataset_tree {expected}"))
    return Dataset(
        header["hardware"],
        header["boundary"],
        header["provenance"],
        header["label_source"],
        trees,
        header["info"],
    )


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Read only; a shipped file in a folder that cannot be written has no other users: immutable."""
    uri = path.resolve().as_uri()
    database = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=10.0)
    try:
        database.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        database.close()
        if "unable to open" not in str(error):
            raise
        database = sqlite3.connect(f"{uri}?immutable=1", uri=True)
    return database


def _check_header(header: dict[str, Any], where: str) -> None:
    if header.get("format") != FORMAT:
        raise DatasetError(f"{where}: format is {header.get('format')!r}, expected {FORMAT!r}")
    version = header.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DatasetError(f"{where}: version is {version!r}, expected a whole number from 1 on")
    if version > VERSION:
        raise DatasetError(
            f"{where}: dataset version {version} is newer than {VERSION}, the newest known here:"
            " update irene-build"
        )
    for key in _STRINGS:
        if not isinstance(header.get(key), str) or not header[key]:
            raise DatasetError(f"{where}: {key} is {header.get(key)!r}, expected a name")
    if header["provenance"] not in PROVENANCES:
        raise DatasetError(
            f"{where}: provenance is {header['provenance']!r}, expected one of {', '.join(PROVENANCES)}"
        )
    columns = header.get("resources")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise DatasetError(f"{where}: resources must be a list of feature names")
    for name in columns:
        if name not in FEATURES or columns.count(name) > 1:
            raise DatasetError(f"{where}: resource column {name!r} is unknown or there twice")
    if not isinstance(header.get("info"), dict):
        raise DatasetError(f"{where}: info must be an object")


def _check_numbers(
    energy: np.ndarray, std: np.ndarray, resources: np.ndarray, measurement: np.ndarray, where: str
) -> None:
    """A label is positive and finite, or unknown (NaN); nothing else is stored or believed."""
    if bool((~np.isnan(energy) & ~((energy > 0.0) & np.isfinite(energy))).any()):
        raise DatasetError(f"{where}: energy_j must be positive and finite, or NaN for unknown")
    if bool((~np.isnan(std) & ~((std >= 0.0) & np.isfinite(std))).any()):
        raise DatasetError(f"{where}: energy_std_j must not be negative or infinite")
    if bool((~np.isnan(resources) & ~((resources >= 0.0) & np.isfinite(resources))).any()):
        raise DatasetError(f"{where}: a resource feature is negative or infinite")
    if bool((measurement < -1).any()) or bool((np.isnan(energy) & (measurement >= 0)).any()):
        raise DatasetError(f"{where}: measurement numbers are -1 (none) or up, and belong to labels")


def _row(position: int, labelled: LabelledTree) -> tuple[Any, ...]:
    where = f"dataset: tree {position} ({labelled.model})"
    _check_numbers(labelled.energy_j, labelled.energy_std_j, labelled.resources, labelled.measurement, where)
    header = labelled.tree.header
    return (
        position,
        labelled.model,
        header["batch_size"],
        header["seq_len"],
        len(labelled.tree.nodes),
        zlib.compress(labelled.tree.dumps().encode("utf-8"), 6),
        labelled.energy_j.astype("<f8").tobytes(),
        labelled.energy_std_j.astype("<f8").tobytes(),
        labelled.resources.astype("<f8").tobytes(),
        labelled.measurement.astype("<i8").tobytes(),
    )


def _tree(row: tuple[Any, ...], columns: list[str], where: str) -> LabelledTree:
    _, nodes, packed, energy_raw, std_raw, resources_raw, measurement_raw = row
    try:
        tree = loads(inflate(packed, f"{where}: the tree").decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where}: the tree cannot be unpacked: {error}") from None
    except TreeError as error:
        raise DatasetError(f"{where}: {error}") from None
    if len(tree.nodes) != nodes:
        raise DatasetError(f"{where}: {len(tree.nodes)} nodes in the tree, {nodes} in the table")

    def array(raw: Any, kind: str, width: int, name: str) -> np.ndarray:
        if not isinstance(raw, bytes) or len(raw) != 8 * nodes * width:
            raise DatasetError(f"{where}: {name} has not {nodes} x {width} numbers")
        return np.frombuffer(raw, dtype=kind).astype(kind[1:])

    energy = array(energy_raw, "<f8", 1, "energy_j")
    std = array(std_raw, "<f8", 1, "energy_std_j")
    stored = array(resources_raw, "<f8", len(columns), "resources").reshape(nodes, len(columns))
    resources = np.full((nodes, len(RESOURCE_FEATURES)), np.nan)
    for column, name in enumerate(columns):
        if name in RESOURCE_FEATURES:
            resources[:, RESOURCE_FEATURES.index(name)] = stored[:, column]
    measurement = array(measurement_raw, "<i8", 1, "measurement")
    _check_numbers(energy, std, resources, measurement, where)
    return LabelledTree(tree, energy, resources, measurement, std)
