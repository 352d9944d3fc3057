"""The dataset of a finished campaign: what its journal's results say about the nodes of its trees.

Reads the tables that ``irene_build.measure.journal`` documents; it knows the data, not the code.
"""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError, InputError
from irene_build.received import inflate, plain_tables
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import loads


def dataset_from_campaign(path: str | Path) -> Dataset:
    """Labels, resources and provenance of the campaign in the SQLite file ``path``.

    Nodes that were not measured have NaN and measurement -1; nodes of equal work share a measurement.
    Raises InputError where there is no campaign or it has no labels, DatasetError where it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no campaign at {path}: run `irene-build calibrate` first")
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10.0)
        ) as database:
            names = set(database.execute("SELECT name FROM sqlite_master"))
            if not {("campaign",), ("tree",), ("node",), ("result",)} <= names:
                raise InputError(f"{path} holds no campaign: run `irene-build calibrate` first")
            plain_tables(database, path)
            return _read(database, path)
    except sqlite3.Error as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{path} is damaged: {type(error).__name__}: {error!s:.120}") from None


def _read(database: sqlite3.Connection, path: Path) -> Dataset:
    header = {k: json.loads(v) for k, v in database.execute("SELECT key, value FROM campaign")}
    results: dict[int, tuple[float, float | None, dict[str, float]]] = {
        work: (energy, std, json.loads(features))
        for work, energy, std, features in database.execute(
            "SELECT work, energy_j, std_j, features FROM result"
        )
    }
    if not results:
        raise InputError(
            f"{path}: no node has a label yet: go on with `irene-build calibrate --resume`, "
            "or derive labels with `irene-build relabel`"
        )
    nodes_of: dict[int, list[tuple[int, int]]] = {}
    for tree, node, work in database.execute("SELECT tree, node, work FROM node"):
        nodes_of.setdefault(tree, []).append((node, work))
    trees = []
    for number, packed in database.execute("SELECT id, tree FROM tree ORDER BY id"):
        text = inflate(packed, f"{path}: tree {number}").decode("utf-8")
        labelled = _label(loads(text), nodes_of.get(number, []), results)
        # A tree of which nothing was measured teaches nothing.
        if not np.isnan(labelled.energy_j).all():
            trees.append(labelled)
    return Dataset(
        header["hardware"],
        header["boundary"],
        header["provenance"],
        header["label_source"],
        trees,
        _info(database, header),
    )


def _label(
    tree: Any, nodes: list[tuple[int, int]], results: dict[int, tuple[float, float | None, dict[str, float]]]
) -> LabelledTree:
    count = len(tree.nodes)
    energy, std = np.full(count, np.nan), np.full(count, np.nan)
    resources = np.full((count, len(RESOURCE_FEATURES)), np.nan)
    measurement = np.full(count, -1, dtype=np.int64)
    for node, work in nodes:
        if work in results:
            energy[node], known_std, features = results[work]
            std[node] = np.nan if known_std is None else known_std
            measurement[node] = work
            for column, name in enumerate(RESOURCE_FEATURES):
                resources[node, column] = features.get(name, np.nan)
    return LabelledTree(tree, energy, resources, measurement, std)


def _info(database: sqlite3.Connection, header: dict[str, Any]) -> dict[str, Any]:
    """What is remembered of how the labels were made."""
    trials, accepted = database.execute("SELECT COUNT(*), SUM(accepted) FROM trial").fetchone()
    widths = [w for (w,) in database.execute("SELECT half_width FROM result") if w is not None]
    sessions = [
        {"meter": json.loads(meter), **json.loads(info)}
        for meter, info in database.execute("SELECT meter, info FROM session ORDER BY id")
    ]
    keys = ("offset_s", "drift", "residual_s", "pulses", "score", "sent")
    columns = {name for _, name, *_ in database.execute("PRAGMA table_info(clock)")}
    known = [key for key in keys if key in columns]  # journals of version 1 have fewer
    clocks = database.execute(f"SELECT {', '.join(known)} FROM clock ORDER BY session")
    both = list(
        database.execute("SELECT work, energy_j, above_idle_j FROM result WHERE above_idle_j IS NOT NULL")
    )
    total, above = (math.fsum(row[column] for row in both) for column in (1, 2))
    return {
        "made_by": "campaign",
        "finished": bool(header.get("finished")),
        "arguments": header.get("arguments", {}),
        "protocol": header.get("protocol", {}),
        "notes": header.get("notes", []),
        "fingerprint": header.get("fingerprint", {}),
        "trials": trials,
        "rejected_trials": trials - (accepted or 0),
        "disturbed_nodes": database.execute(
            "SELECT COUNT(DISTINCT work) FROM trial WHERE accepted AND reasons LIKE '%foreign load%'"
        ).fetchone()[0],
        "half_width_median": float(np.median(widths)) if widths else None,
        "half_width_nodes": len(widths),
        # Sums over the distinct nodes whose idle power is known; per measurement, as labels are, below.
        "energy_j": total if both else None,
        "above_idle_j": above if both else None,
        "above_idle_share": above / total if both else None,
        "above_idle": {str(work): value for work, _, value in both},
        "sessions": sessions,
        "clocks": [dict(zip(known, row, strict=True)) for row in clocks],
    }
