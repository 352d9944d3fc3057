"""Pieces of a log as Arrow batches of one schema; lines that cannot be read go to ``bad`` with the reason.

Text stays text: a CSV column is kept as it stands in the file (``00123`` is no number to us); what a role needs is
read out of it by ``values``. JSON keeps the types of its first megabytes, and a later line that does not fit is bad.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from irene_build.errors import DatasetError
from irene_build.score.pieces import Piece, chunks, open_text

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of a batch.
BATCH_ROWS = 1 << 17
#: Bytes of a JSON file that its schema is told from.
_SCHEMA_BYTES = 4 << 20

#: Takes the text of a line that cannot be read, and why.
Bad = Callable[[str, str], None]


def read(piece: Piece, schema: pa.Schema, bad: Bad) -> Iterator[pa.RecordBatch]:
    """The rows of a piece, at most BATCH_ROWS at a time. Raises DatasetError where the file is damaged."""
    import pyarrow as pa

    try:
        for rows in _parquet(piece) if piece.format == "parquet" else _text(piece, schema, bad):
            yield _fitted(rows, schema, piece)
    except (pa.ArrowException, EOFError, gzip.BadGzipFile) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DatasetError(f"{piece.path} is damaged ({said[:160]}): write or copy it again") from None
    except OSError as error:
        raise DatasetError(f"cannot read {piece.path}: {error.strerror or str(error)[:160]}") from None


def schema_of(file: IO[bytes], kind: str, path: Path) -> tuple[pa.Schema, int]:
    """The schema of a text file, and where its first row begins. Raises DatasetError."""
    import pyarrow as pa

    if kind == "csv":
        header = file.readline()
        names = _names(header)
        if not any(names):
            raise DatasetError(f"{path} is empty: a CSV log starts with a line of column names")
        if len(set(names)) < len(names):
            double = next(n for n in names if names.count(n) > 1)
            raise DatasetError(f"{path} has two columns {double!r}: rename one")
        return pa.schema([(name, pa.string()) for name in names]), len(header)
    head = file.read(_SCHEMA_BYTES)
    if len(head) == _SCHEMA_BYTES:
        head = head[: head.rfind(b"\n") + 1] or head
    if head.lstrip().startswith(b"["):
        raise DatasetError(f"{path} is one JSON array: write one object a line (jq -c '.[]')")
    lines = [found for line in head.splitlines() if isinstance(found := _object(line), dict)]
    if not lines:
        raise DatasetError(f"{path} holds no JSON object: a JSON log has one a line")
    return _json_schema(lines), 0


def _parquet(piece: Piece) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(piece.path, pre_buffer=False) as file:
        yield from file.iter_batches(BATCH_ROWS, row_groups=list(piece.groups), use_threads=False)


def _text(piece: Piece, schema: pa.Schema, bad: Bad) -> Iterator[pa.RecordBatch]:
    parse = _csv if piece.format == "csv" else _json
    with open_text(piece.path) as file:
        header = file.readline() if piece.format == "csv" else b""
        if piece.end:
            file.seek(piece.start)
            texts: Iterator[bytes] = iter([file.read(piece.end - piece.start)])
        else:
            texts = chunks(file, piece.format == "csv")
        for text in texts:
            yield from parse(text, header, schema, bad)


def _names(header: bytes) -> list[str]:
    text = header.decode("utf-8-sig", "replace").strip("\r\n")
    return next(csv.reader([text], delimiter=_delimiter(header)), [])


def _delimiter(header: bytes) -> str:
    return max(",;\t|", key=header.decode("utf-8", "replace").count)


def _csv(text: bytes, header: bytes, schema: pa.Schema, bad: Bad) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    names = _names(header)

    def skip(row: Any) -> str:
        bad(row.text, f"{row.actual_columns} columns, expected {row.expected_columns}")
        return "skip"

    def table(content: bytes) -> pa.Table:
        return pa_csv.read_csv(
            io.BytesIO(content),
            pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=1 << 20),
            pa_csv.ParseOptions(
                delimiter=_delimiter(header), newlines_in_values=True, invalid_row_handler=skip
            ),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )

    if not text.strip():
        return
    try:
        found = table(text)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        found = table(text.decode("utf-8", "replace").encode("utf-8"))
    yield from found.combine_chunks().to_batches(BATCH_ROWS)


def _json(text: bytes, header: bytes, schema: pa.Schema, bad: Bad) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import json as pa_json

    if not text.strip():
        return
    options = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        found = pa_json.read_json(io.BytesIO(text), pa_json.ReadOptions(False, 1 << 22), options)
    except pa.ArrowInvalid:
        found = _line_by_line(text, schema, bad)
    yield from found.combine_chunks().to_batches(BATCH_ROWS)


def _line_by_line(text: bytes, schema: pa.Schema, bad: Bad) -> pa.Table:
    """The lines that fit the schema; where one of them does not, Arrow refuses its whole block."""
    import pyarrow as pa

    good: list[dict[str, Any]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        row = _object(line)
        if not isinstance(row, dict):
            bad(line.decode("utf-8", "replace"), "not a JSON object" if row is not None else "not JSON")
            continue
        reason = ""
        for field in schema:
            value = row.get(field.name)
            try:
                pa.array([value], field.type)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                if pa.types.is_string(field.type) and not isinstance(value, (dict, list)):
                    row[field.name] = json.dumps(value)
                else:
                    reason = reason or f"{field.name}: {json.dumps(value)[:40]} is not {field.type}"
        if reason:
            bad(line.decode("utf-8", "replace"), reason)
        else:
            good.append(row)
    return pa.Table.from_pylist(good, schema=schema)


def _object(line: bytes) -> Any:
    """What a line of JSON holds; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _json_schema(rows: list[dict[str, Any]]) -> pa.Schema:
    """Types that all first rows share; where they do not, a column is text (numbers with and without a dot: float)."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    fields = []
    for name in names:
        values = [row[name] for row in rows if row.get(name) is not None]
        try:
            kind = pa.array(values).type
        except (pa.ArrowException, OverflowError):
            kind = pa.string()
        fields.append(pa.field(name, pa.string() if pa.types.is_null(kind) else kind))
    return pa.schema(fields)


def _fitted(rows: pa.RecordBatch, schema: pa.Schema, piece: Piece) -> pa.RecordBatch:
    """The columns of the schema in its order and types; a column that this file lacks is null."""
    import pyarrow as pa

    if rows.schema.equals(schema):
        return rows
    keys = dict(piece.keys)
    columns = []
    for field in schema:
        index = rows.schema.get_field_index(field.name)
        if index >= 0:
            column = rows.column(index)
            columns.append(column if column.type == field.type else column.cast(field.type))
        elif field.name in keys:
            columns.append(pa.repeat(pa.scalar(keys[field.name], pa.string()), rows.num_rows))
        else:
            columns.append(pa.nulls(rows.num_rows, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
