"""Reads CSV files strictly: what is wrong is named by file and line, nothing is guessed.

Shared by the importers. A row keeps the line that it came from, so that every later complaint can say where.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from irene_build.errors import DatasetError

MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Row:
    """One data row: ``line`` counts from 1, the header included; ``cells`` by column name, stripped."""

    path: Path
    line: int
    cells: dict[str, str]

    @property
    def where(self) -> str:
        return f"{self.path}, line {self.line}"

    def text(self, column: str) -> str:
        """The cell; raises DatasetError where it is empty."""
        value = self.cells[column]
        if not value:
            raise DatasetError(f"{self.where}: {column} is empty")
        return value

    def number(self, column: str, positive: bool = False) -> float:
        """The cell as a finite number >= 0 (> 0 where ``positive``); raises DatasetError otherwise."""
        raw = self.text(column)
        try:
            value = float(raw)
        except ValueError:
            advice = (
                "; write it with a decimal point"
                if raw.replace(",", ".", 1).replace(".", "", 1).isdigit()
                else ""
            )
            raise DatasetError(f"{self.where}: {column} is {raw[:40]!r}, expected a number{advice}") from None
        if not math.isfinite(value):
            raise DatasetError(f"{self.where}: {column} is {raw[:40]!r}, expected a finite number")
        if value < 0.0 or (positive and value == 0.0):
            wanted = "a positive number" if positive else "a number that is not negative"
            raise DatasetError(f"{self.where}: {column} is {raw[:40]}, expected {wanted}")
        return value

    def count(self, column: str) -> int:
        """The cell as a whole number >= 1, written ``8`` or ``8.0``."""
        value = self.number(column, positive=True)
        if value != int(value) or value > 2**31:
            raise DatasetError(f"{self.where}: {column} is {self.cells[column]!r}, expected a whole number")
        return int(value)


def decode(path: Path) -> str:
    """The file as UTF-8 text, without a byte order mark; DatasetError names the line of a bad byte."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(
                f"{path} is larger than {MAX_BYTES >> 20} MiB, too large for a table of measurements"
            )
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    if not text.strip():
        raise DatasetError(f"{path} is empty")
    if "\0" in text:
        raise DatasetError(
            f"{path}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a zero byte, not text"
        )
    return text


def _separator(text: str) -> str:
    """A comma; a semicolon or a tab where the header has these and no comma (spreadsheets of many countries)."""
    header = text.lstrip().split("\n", 1)[0]
    return next((sign for sign in ",;\t" if sign in header), ",")


def read_csv(path: Path, columns: Iterable[str]) -> list[Row]:
    """All rows of a CSV file that has at least ``columns``; separated by commas, semicolons or tabs.

    Raises DatasetError for a missing column, a row with too few or too many cells, a broken quote, another
    encoding, an empty file; the message names the file and the line.
    """
    text = decode(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_separator(text))
    rows: list[Row] = []
    header: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                missing = [column for column in columns if column not in header]
                if missing:
                    raise DatasetError(f"{path}, line {reader.line_num}: column {missing[0]!r} is missing; "
                                       f"found {', '.join(header)[:200]}")  # fmt: skip
                if len(set(header)) != len(header):
                    raise DatasetError(f"{path}, line {reader.line_num}: a column name is there twice")
                continue
            if len(cells) != len(header):
                raise DatasetError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells where the header has {len(header)}; "
                    "the row is cut off or broken"
                )
            rows.append(Row(path, reader.line_num, dict(zip(header, map(str.strip, cells), strict=True))))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: not CSV: {error}") from None
    if not rows:
        raise DatasetError(f"{path}, line {reader.line_num}: a header without rows")
    return rows


def check_not_cut(rows: list[Row], column: str) -> None:
    """A last line without its newline whose last cell was never seen before was cut inside that cell."""
    last = rows[-1]
    if decode(last.path).endswith(("\n", "\r")):
        return
    if all(row.cells[column] != last.cells[column] for row in rows[:-1]):
        raise DatasetError(
            f"{last.where}: the file ends inside a row ({column} {last.cells[column]!r}); get it again"
        )
