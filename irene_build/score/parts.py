"""Parts of the output, each whole or not there: rows, rejected rows, and sums, in a folder that is moved into place at
the end. A run that was broken off finds the parts that stand, and goes on.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irene_build.errors import InputError, OutputError, RunError
from irene_build.score import readers, totals
from irene_build.score.batches import ADDED, DERIVED_BATCH, REJECTED, Scorer, Settings, added_schema
from irene_build.score.pieces import Piece

if TYPE_CHECKING:
    import pyarrow as pa

REJECTS, TOTALS = "_rejects.jsonl", "_totals.json"
_RUN, _OVERLAP, _OFFSETS = "_run.json", "_overlap.f32", "_overlap.json"


@dataclass(frozen=True)
class Task:
    """What a worker needs beside the scorer. ``folder``: of the unfinished output; ``about``: of the estimator, kept in
    every file; ``overlap``: whether the concurrency found by overlap lies there."""

    schema: pa.Schema
    settings: Settings
    by: tuple[str, ...]
    folder: Path
    about: Mapping[str, str] = field(default_factory=dict)
    overlap: bool = False

    def part(self, number: int, suffix: str) -> Path:
        return self.folder / f"part-{number:06d}.{suffix}"

    def is_done(self, number: int) -> bool:
        """Whether a part stands; its sums are written last."""
        return self.part(number, "json").is_file()


def unfinished(out: Path) -> Path:
    """Where parts lie until all of them stand."""
    return out.with_name(f"{out.name}.unfinished")


def open_folder(out: Path, run: Mapping[str, Any], force: bool) -> Path:
    """The folder of unfinished parts: that of a run with the same ``run``, which is gone on with, or a new one.

    Raises InputError where ``out`` is there already, OutputError where nothing can be written there.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not force:
            raise InputError(f"{out} is there already: name another folder, or use --force")
        if not (out / TOTALS).is_file():
            raise InputError(
                f"{out} is not what `irene-build score` wrote, and is left alone: name another folder"
            )
    folder, text = unfinished(out), json.dumps(run, sort_keys=True, default=str)
    known = folder / _RUN
    with told(out):
        if known.is_file() and known.read_text(encoding="utf-8") == text:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        known.write_text(text, encoding="utf-8")
    return folder


def score_piece(task: Task, piece: Piece, scorer: Scorer, stop: threading.Event | None = None) -> None:
    """Read, score and write one part. Nothing of it is there until all of it is; a part that stands is left alone."""
    if task.is_done(piece.number):
        return
    out_schema = added_schema(task.schema)
    out_schema = out_schema.remove(out_schema.get_field_index(REJECTED))
    out_schema = out_schema.with_metadata({"irene": json.dumps(dict(task.about), sort_keys=True)})
    with told(task.folder):
        writer = _Writer(task, piece, out_schema)
        try:
            offset = 0
            for rows in readers.read(piece, task.schema, writer.bad):
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt
                count = rows.num_rows
                if task.overlap:
                    rows = _with_overlap(task, piece.number, rows, offset)
                offset += count
                writer.write(scorer(rows))
            writer.commit()
        finally:
            writer.discard()


class _Writer:
    """The three files of a part, under names of their own until ``commit``."""

    def __init__(self, task: Task, piece: Piece, schema: pa.Schema) -> None:
        self._task, self._piece, self._schema = task, piece, schema
        self._rows, self._rejects, self._json = (
            task.part(piece.number, s) for s in ("parquet", "jsonl", "json")
        )
        self._drafts = [
            path.with_name(f".{path.name}.draft") for path in (self._rows, self._rejects, self._json)
        ]
        self._parquet: Any = None
        self._lines: Any = None
        self._sums: totals.Sums = {}
        self._reasons: dict[str, int] = {}

    def write(self, scored: pa.RecordBatch) -> None:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        why = scored.column(REJECTED)
        totals.add(self._sums, totals.sums_of(scored, self._task.by, self._task.settings))
        good = scored
        if why.null_count < len(why):
            wrong = pc.is_valid(why)
            good = scored.filter(pc.invert(wrong))
            self._reject(scored.filter(wrong))
        if good.num_rows:
            if self._parquet is None:
                text = [f.name for f in self._schema if str(f.type) in ("string", "large_string")]
                self._parquet = pq.ParquetWriter(
                    self._drafts[0],
                    self._schema,
                    use_dictionary=text,
                    write_statistics=True,
                    compression="snappy",
                )
            self._parquet.write_batch(
                good.select(self._schema.names).replace_schema_metadata(self._schema.metadata)
            )

    def bad(self, line: str, reason: str) -> None:
        """A line that could not be read."""
        self._line(reason, line)

    def _reject(self, rows: pa.RecordBatch) -> None:
        own = rows.drop_columns([*ADDED, REJECTED]) if hasattr(rows, "drop_columns") else rows.select(
            [n for n in rows.schema.names if n not in ADDED and n != REJECTED]
        )  # fmt: skip
        for row, reason in zip(own.to_pylist(), rows.column(REJECTED).to_pylist(), strict=True):
            self._line(reason, row)

    def _line(self, reason: str, row: Any) -> None:
        if self._lines is None:
            self._lines = self._drafts[1].open("w", encoding="utf-8")
        self._reasons[reason] = self._reasons.get(reason, 0) + 1
        entry = {"reason": reason, "file": self._piece.path, "row": row}
        self._lines.write(json.dumps(entry, default=str) + "\n")

    def commit(self) -> None:
        for stream, draft, path in ((self._parquet, *self._pair(0)), (self._lines, *self._pair(1))):
            if stream is not None:
                stream.close()
                draft.replace(path)
        sums = [[list(key), values] for key, values in self._sums.items()]
        self._drafts[2].write_text(json.dumps({"sums": sums, "rejected": self._reasons}), encoding="utf-8")
        self._drafts[2].replace(self._json)

    def _pair(self, index: int) -> tuple[Path, Path]:
        return self._drafts[index], (self._rows, self._rejects, self._json)[index]

    def discard(self) -> None:
        for stream in (self._parquet, self._lines):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        for draft in self._drafts:
            draft.unlink(missing_ok=True)


def finish(task: Task, pieces: Sequence[Piece], out: Path, rates: totals.Rates) -> dict[str, Any]:
    """Totals and rejects of all parts, then the folder moves to ``out``; the totals as they are in ``_totals.json``.

    Raises InputError where no row could be scored; then nothing is left behind.
    """
    sums: totals.Sums = {}
    rejected: dict[str, int] = {}
    with told(out):
        for piece in pieces:
            found = json.loads(task.part(piece.number, "json").read_text(encoding="utf-8"))
            totals.add(sums, {tuple(key): values for key, values in found["sums"]})
            for reason, count in found["rejected"].items():
                rejected[reason] = rejected.get(reason, 0) + count
        if not sums:
            shutil.rmtree(task.folder, ignore_errors=True)
            raise InputError(_nothing(rejected))
        result = {**task.about, **totals.totals(sums, task.by, rates)}
        result["rejected"] = dict(sorted(rejected.items(), key=lambda item: -item[1]))
        if rejected:
            with (task.folder / REJECTS).open("wb") as every:
                for path in sorted(task.folder.glob("part-*.jsonl")):
                    with path.open("rb") as one:
                        shutil.copyfileobj(one, every)
        (task.folder / TOTALS).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        spent = [*task.folder.glob("part-*.json"), *task.folder.glob("part-*.jsonl")]
        for path in [*spent, *(task.folder / name for name in (_RUN, _OVERLAP, _OFFSETS))]:
            path.unlink(missing_ok=True)
        if out.exists():
            shutil.rmtree(out)
        task.folder.rename(out)
    return result


def _nothing(rejected: Mapping[str, int]) -> str:
    if not rejected:
        return "the log holds no row"
    reason, count = max(rejected.items(), key=lambda item: item[1])
    return f"no row could be scored: {reason} ({count:,} of {sum(rejected.values()):,} rows)"


def write_overlap(folder: Path, offsets: Mapping[int, int], batch_size: np.ndarray) -> None:
    """Keep the concurrency of all rows; ``offsets``: where the rows of a piece begin."""
    batch_size.astype("<f4").tofile(folder / _OVERLAP)
    (folder / _OFFSETS).write_text(json.dumps(offsets), encoding="utf-8")


def has_overlap(folder: Path) -> bool:
    return (folder / _OFFSETS).is_file()


def _with_overlap(task: Task, number: int, rows: pa.RecordBatch, offset: int) -> pa.RecordBatch:
    import pyarrow as pa

    start = json.loads((task.folder / _OFFSETS).read_text(encoding="utf-8"))[str(number)] + offset
    found = np.fromfile(task.folder / _OVERLAP, dtype="<f4", count=rows.num_rows, offset=4 * start)
    return pa.RecordBatch.from_arrays(
        [*rows.columns, pa.array(found.astype(np.float64))],
        schema=rows.schema.append(pa.field(DERIVED_BATCH, pa.float64())),
    )


@contextlib.contextmanager
def told(out: Path) -> Iterator[None]:
    """Turns what the disk says into one line. Raises RunError for a full disk, OutputError else."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0][:160]
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise RunError(
                f"cannot write {out}: {reason}; make room and run the same command again, whole parts are kept"
            ) from None
        raise OutputError(f"cannot write {out}: {reason}; name another place") from None
