"""Writes a report's folder: page, numbers as JSON and CSV, figures as PNG and SVG, flame graphs."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build.errors import InputError
from irene_build.files import check_writable, write_bytes_atomic, write_folder_atomic, write_text_atomic
from irene_build.report.flame import chrome_trace, speedscope
from irene_build.report.predictions import Prediction

if TYPE_CHECKING:
    from irene_build.report.figures import Figure

#: Marks a folder as ours, so that it may be written again.
MARK = "report.json"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with equal keys as CSV; lists are spread (``interval_j`` becomes ``interval_j_low``, ``_high``).

    Names come from models: one that a spreadsheet would run as a formula gets a leading apostrophe.
    """

    def cell(value: Any) -> Any:
        if isinstance(value, str) and value[:1] in tuple("=+-@\t\r"):
            return "'" + value
        return repr(value) if isinstance(value, float) else "" if value is None else value

    def spread(row: Mapping[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in row.items():
            if key.startswith("interval"):
                low, high = value if value is not None else (None, None)
                out[f"{key}_low"], out[f"{key}_high"] = low, high
            else:
                out[key] = " ".join(map(str, value)) if isinstance(value, list) else value
        return out

    flat = [spread(row) for row in rows]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = list(dict.fromkeys(key for row in flat for key in row))
    writer.writerow(header)
    writer.writerows([cell(row.get(key)) for key in header] for row in flat)
    return file.getvalue()


def file_stem(name: str) -> str:
    """A model's name as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def check_folder(folder: Path) -> None:
    """Raises InputError where ``folder`` holds anything that is not a report of ours."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the report")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise InputError(f"{folder} is not empty and holds no report of irene-build: name a new folder")
    check_writable(folder)


def save(path: Path, content: str | bytes) -> None:
    """Write a file and the folders above it, whole or not at all. Raises OutputError."""
    if isinstance(content, bytes):
        write_bytes_atomic(path, content)
    else:
        write_text_atomic(path, content)


def save_folder(
    folder: Path,
    page: str,
    data: Mapping[str, Any],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    figures: Iterable[Figure],
    predictions: Iterable[Prediction] = (),
) -> None:
    """``index.html``, ``report.json``, ``tables/*.csv`` and ``.json``, ``figures/*.png`` and ``.svg``,
    and per prediction ``flame/*.speedscope.json`` and ``*.trace.json``."""
    check_folder(folder)
    with write_folder_atomic(folder) as staging:
        if folder.is_dir():  # what somebody added to an earlier report stays
            shutil.copytree(folder, staging, dirs_exist_ok=True)
        save(staging / MARK, json.dumps(data, indent=1, allow_nan=False) + "\n")
        save(staging / "index.html", page)
        for name, rows in tables.items():
            save(staging / "tables" / f"{name}.csv", csv_text(rows))
            lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
            save(staging / "tables" / f"{name}.json", f"[\n{lines}\n]\n")
        for figure in figures:
            save(staging / "figures" / f"{figure.name}.png", figure.png())
            save(staging / "figures" / f"{figure.name}.svg", figure.svg())
        for prediction in predictions:
            stem = (
                f"{file_stem(prediction['model'])}-{prediction.get('batch_size')}x{prediction.get('seq_len')}"
            )
            if (prediction.get("phase") or "forward") != "forward":
                stem += f"-{prediction['phase']}"
            save(
                staging / "flame" / f"{stem}.speedscope.json",
                json.dumps(speedscope(prediction), allow_nan=False),
            )
            save(
                staging / "flame" / f"{stem}.trace.json",
                json.dumps(chrome_trace(prediction), allow_nan=False),
            )
