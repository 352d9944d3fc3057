"""Request logs: which files, in what format, of what schema, and in which pieces they are read.

A piece is what one worker reads at a time and what becomes one part of the output: some row groups of a Parquet file,
or some megabytes of whole lines of a text file. The pieces of a log depend on its files alone, so that every runner,
and a run that goes on after a break, makes the same parts.
"""

from __future__ import annotations

import glob
import gzip
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from irene_build.errors import DatasetError, InputError
from irene_build.score.pieces import Piece, chunks, open_text

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of a Parquet file that are one piece.
ROWS = 1 << 20

_FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl",
}  # fmt: skip


@dataclass(frozen=True)
class Log:
    """``schema``: of all files together, with the columns of their paths. ``stamp``: files, sizes, times of change."""

    pieces: tuple[Piece, ...]
    schema: pa.Schema
    stamp: tuple[tuple[str, int, int], ...]


def open_log(names: Sequence[str]) -> Log:
    """Find the files of a log, check each, and cut them into pieces.

    ``names``: files, patterns, folders (with ``day=...`` folders in them). Raises InputError where there is none,
    DatasetError where a file is not whole or files do not fit together.
    """
    import pyarrow as pa

    found = list(_files(names))
    formats = {format_of(path) for path, _ in found}
    if len(formats) > 1:
        raise InputError(f"the files are {' and '.join(sorted(formats))}: score one format at a time")
    pieces: list[Piece] = []
    schemas: list[pa.Schema] = []
    stamp = []
    for path, keys in found:
        status = path.stat()
        stamp.append((str(path), status.st_size, status.st_mtime_ns))
        own, more = _planned(path, keys, len(pieces))
        pieces += more
        for key, _ in keys:
            if key not in own.names:
                own = own.append(pa.field(key, pa.string()))
        if not any(own.equals(schema) for schema in schemas):
            schemas = [_together(own, schemas, path)]
    return Log(tuple(pieces), schemas[0], tuple(stamp))


def _together(own: pa.Schema, before: Sequence[pa.Schema], path: Path) -> pa.Schema:
    """The schema of this file and those before it; in JSON a column of two types is text."""
    import pyarrow as pa

    own = pa.schema([_plain(field) for field in own])
    for schema in before:
        for field in schema if format_of(path) == "jsonl" else ():
            index = own.get_field_index(field.name)
            try:
                pa.unify_schemas(
                    [pa.schema([field]), pa.schema([own.field(index)] if index >= 0 else [])],
                    promote_options="permissive",
                )
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                text = pa.field(field.name, pa.string())
                own = own.set(index, text)
                schema = schema.set(schema.get_field_index(field.name), text)
        try:
            own = pa.unify_schemas([schema, own], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DatasetError(f"{path} does not fit the files before it: {_first(error)}") from None
    return own


def format_of(path: Path) -> str:
    """``parquet``, ``csv`` or ``jsonl``, by the end of the name. Raises InputError."""
    suffixes = [s.lower() for s in path.suffixes]
    last = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes[-1:] or [""])[0]
    if last not in _FORMATS or (suffixes[-1:] == [".gz"] and _FORMATS[last] == "parquet"):
        raise InputError(
            f"{path}: the name says no format; logs end in .parquet, .csv, .jsonl (or .csv.gz, .jsonl.gz)"
        )
    return _FORMATS[last]


def _files(names: Sequence[str]) -> Iterator[tuple[Path, tuple[tuple[str, str], ...]]]:
    """Every file once, in the order of its name, with the columns that its path tells."""
    seen: set[Path] = set()
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _visible(p.relative_to(path)))
            known = [p for p in inside if _is_log(p)]
            if not known:
                raise InputError(f"{path} holds no log (files that end in .parquet, .csv or .jsonl)")
            found = [(p, _keys(p.relative_to(path))) for p in known]
        elif path.exists():
            found = [(path, ())]
        elif glob.has_magic(name):
            found = [
                (Path(p), _keys(Path(p)))
                for p in sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (absolute patterns as well)
                if Path(p).is_file()
            ]
            if not found:
                raise InputError(f"no file matches {name}")
        else:
            raise InputError(f"{name}: no such file or folder")
        for file, keys in found:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file.absolute(), keys  # workers stand elsewhere


def _visible(path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.parts)


def _is_log(path: Path) -> bool:
    try:
        return bool(format_of(path))
    except InputError:
        return False


def _keys(path: Path) -> tuple[tuple[str, str], ...]:
    """``day=2024-05-10`` folders above a file, as Hive, Spark and Arrow write them."""
    pairs = [part.partition("=") for part in path.parts[:-1] if "=" in part]
    return tuple((key, unquote(value)) for key, _, value in pairs if key)


def _planned(path: Path, keys: tuple[tuple[str, str], ...], first: int) -> tuple[pa.Schema, list[Piece]]:
    try:
        if format_of(path) == "parquet":
            return _parquet(path, keys, first)
        return _text(path, keys, first)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or _first(error)}") from None


def _parquet(path: Path, keys: tuple[tuple[str, str], ...], first: int) -> tuple[pa.Schema, list[Piece]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            meta, schema = file.metadata, file.schema_arrow
            sizes = [
                (meta.row_group(i).num_rows, meta.row_group(i).total_byte_size)
                for i in range(meta.num_row_groups)
            ]
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise DatasetError(
            f"{path} is not a whole Parquet file ({_first(error)}): write or copy it again"
        ) from None
    pieces: list[Piece] = []
    chosen: list[int] = []
    rows = size = 0
    for index, (count, bytes_) in enumerate(sizes):
        if chosen and rows + count > ROWS:
            pieces.append(Piece(first + len(pieces), str(path), "parquet", keys, size, tuple(chosen)))
            chosen, rows, size = [], 0, 0
        chosen.append(index)
        rows, size = rows + count, size + bytes_
    if chosen:
        pieces.append(Piece(first + len(pieces), str(path), "parquet", keys, size, tuple(chosen)))
    return schema.remove_metadata(), pieces


def _text(path: Path, keys: tuple[tuple[str, str], ...], first: int) -> tuple[pa.Schema, list[Piece]]:
    from irene_build.score import readers

    kind = format_of(path)
    with open_text(str(path)) as file:
        try:
            schema, start = readers.schema_of(file, kind, path)
        except (EOFError, gzip.BadGzipFile) as error:
            raise DatasetError(f"{path} is not a whole gzip file ({_first(error)})") from None
    if path.suffix == ".gz":
        return schema, [Piece(first, str(path), kind, keys, path.stat().st_size)]
    pieces: list[Piece] = []
    with path.open("rb") as raw:
        raw.seek(start)
        for text in chunks(raw, kind == "csv"):
            pieces.append(
                Piece(first + len(pieces), str(path), kind, keys, len(text), (), start, start + len(text))
            )
            start += len(text)
    return schema, pieces


def _plain(field: pa.Field) -> pa.Field:
    """Dictionaries as their values, nulls as text: types that every runner carries."""
    import pyarrow as pa

    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind):
        kind = pa.string()
    return pa.field(field.name, kind)


def _first(error: BaseException) -> str:
    """The first line of what a library said."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
