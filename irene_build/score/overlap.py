"""Requests in flight, where a log says only when each began: found by overlap, in a pass of its own by host and time.

A host is one server (without a column of hosts all rows are one server's). A request is in flight from its time for
its duration: the log's, or else the predicted one at batch 1, and then once more at the batch that this gave. Its
batch is the mean number of requests in flight over its own life, itself counted, 1 at least and ``limit`` at most:

    batch = (A(end) - A(start)) / (end - start),   A(t) = sum over requests of min(max(t - start, 0), duration)

Memory is bounded: rows are laid out on disk by time, and a slice of them is held at once, with those around it that
reach into it.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.errors import InputError
from irene_build.score import readers
from irene_build.score.batches import Scorer
from irene_build.score.columns import column
from irene_build.score.parts import Task, told, write_overlap
from irene_build.score.pieces import Piece
from irene_build.score.values import real_numbers, seconds

#: Rows of a slice.
SLICE_ROWS = 1 << 21
#: Requests that a server takes at once at most: vLLM's default ``max_num_seqs``.
LIMIT = 256
_BINS = 1 << 16
_ROW = np.dtype([
    ("row", "i8"), ("host", "i4"), ("model", "i4"), ("prompt", "i4"), ("output", "i4"), ("start", "f8"),
    ("duration", "f8"), ("known", "?"),
])  # fmt: skip


def find(
    task: Task,
    pieces: Sequence[Piece],
    scorer: Scorer,
    pool: Executor,
    limit: float = LIMIT,
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Find the batch of every row of a log and keep it in the task's folder (``parts.write_overlap``)."""
    folder = task.folder / "_slices"
    shutil.rmtree(folder, ignore_errors=True)
    with told(task.folder):
        folder.mkdir()
        try:
            hosts = _Numbers()
            counts = []
            for index, count in enumerate(
                pool.map(lambda piece: _spill(task, piece, scorer, hosts, folder), pieces)
            ):
                counts.append(count)
                progress(0.5 * (index + 1) / len(pieces))
            offsets = np.cumsum([0, *counts]).tolist()
            result = np.full(offsets[-1], np.nan, dtype=np.float32)
            slices = _by_time(folder, pieces, offsets)
            predicted = any(not np.load(path, mmap_mode="r")["known"].all() for path in slices)
            for turn in range(2 if predicted else 1):
                _turn(slices, result, scorer, limit, turn == 0 and predicted)
            write_overlap(task.folder, {p.number: o for p, o in zip(pieces, offsets, strict=False)}, result)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _Numbers:
    """Names by number, for several threads."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> int:
        with self._lock:
            return self._known.setdefault(name, len(self._known))


def _spill(task: Task, piece: Piece, scorer: Scorer, hosts: _Numbers, folder: Path) -> int:
    """The rows of a piece that can be scored, as ``_ROW`` in a file; the number of all rows."""
    parts, total = [], 0
    for rows in readers.read(piece, task.schema, lambda line, reason: None):
        part = _rows(rows, task, scorer, hosts)
        part["row"] += total
        parts.append(part)
        total += rows.num_rows
    np.save(folder / f"piece-{piece.number}.npy", np.concatenate(parts) if parts else np.empty(0, _ROW))
    return total


def _rows(rows: Any, task: Task, scorer: Scorer, hosts: _Numbers) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = task.settings.columns
    model, prompt, output, reasons = scorer.requests(rows)
    start = seconds(column(rows, columns.time))
    if columns.end:
        duration = seconds(column(rows, columns.end)) - start
    elif columns.duration:
        duration = real_numbers(column(rows, columns.duration))
    else:
        duration = np.full(len(start), np.nan)
    out = np.zeros(rows.num_rows, dtype=_ROW)
    out["row"] = np.arange(rows.num_rows)
    out["model"], out["prompt"], out["output"], out["start"] = model, prompt, output, start
    out["known"] = np.isfinite(duration) & (duration >= 0.0)
    out["duration"] = np.where(out["known"], duration, 0.0)
    if columns.host:
        coded = pc.dictionary_encode(pc.cast(column(rows, columns.host), pa.string()), null_encoding="encode")
        numbers = [hosts.of(str(name)) for name in coded.dictionary.to_pylist()]
        out["host"] = np.array(numbers or [0])[coded.indices.to_numpy(zero_copy_only=False)]
    right, fine = reasons.right(), np.isfinite(start)
    if right is not None:
        fine &= np.isin(np.arange(len(fine)), right)
    out = out[fine]
    guess = np.flatnonzero(~out["known"])
    out["duration"][guess] = _predicted(scorer, out[guess], np.ones(len(guess)))
    return out


def _predicted(scorer: Scorer, rows: np.ndarray, batch_size: np.ndarray) -> np.ndarray:
    """Seconds that these requests take at this batch."""
    whole = [rows[name].astype(np.int64) for name in ("model", "prompt", "output")]
    values, _ = scorer.table.requests(whole[0], batch_size, whole[1], whole[2])
    found = np.asarray(values[:, 3] + values[:, 7])
    known = np.isfinite(values[:, 0] + values[:, 4])  # what is longer than its model takes is rejected later
    if np.isnan(found[known]).any():
        raise InputError(
            "the log has time stamps but no durations, and the estimator predicts no seconds: say --batch N, or "
            "--column duration=NAME, end=NAME or batch=NAME"
        )
    return np.where(known, found, 0.0)


def _by_time(folder: Path, pieces: Sequence[Piece], offsets: Sequence[int]) -> list[Path]:
    """The rows of all pieces in files of about SLICE_ROWS, by their time."""
    files = [folder / f"piece-{piece.number}.npy" for piece in pieces]
    ends = [(np.min(s), np.max(s)) for f in files if len(s := np.load(f, mmap_mode="r")["start"])]
    if not ends:
        return []
    first, last = min(e[0] for e in ends), max(e[1] for e in ends)
    width = max(float(last - first), 1e-9) / _BINS
    counts = np.zeros(_BINS, dtype=np.int64)

    def bins(rows: np.ndarray) -> np.ndarray:
        return np.minimum(((rows["start"] - first) / width).astype(np.int64), _BINS - 1)

    for file in files:
        counts += np.bincount(bins(np.load(file)), minlength=_BINS)
    number = np.minimum((np.cumsum(counts) - counts) // SLICE_ROWS, _BINS)
    slices = np.unique(number)
    for file, offset in zip(files, offsets, strict=False):
        rows = np.load(file)
        rows["row"] += offset
        which = number[bins(rows)]
        for one in np.unique(which).tolist():
            with (folder / f"slice-{one}.raw").open("ab") as raw:
                rows[which == one].tofile(raw)
        file.unlink()
    out = []
    for one in slices.tolist():
        raw_path, path = folder / f"slice-{one}.raw", folder / f"slice-{one}.npy"
        rows = np.fromfile(raw_path, dtype=_ROW)
        raw_path.unlink()
        np.save(path, rows[np.argsort(rows["start"], kind="stable")])
        out.append(path)
    return out


def _turn(slices: Sequence[Path], result: np.ndarray, scorer: Scorer, limit: float, again: bool) -> None:
    """Batches of all rows by the durations in the slices; ``again``: then predict these anew for the next turn."""
    carried = np.empty(0, dtype=_ROW)
    for index, path in enumerate(slices):
        own = np.load(path)
        ends = own["start"] + own["duration"]
        around = [carried, own]
        for later in slices[index + 1 :]:
            rows = np.load(later, mmap_mode="r")
            near = np.searchsorted(rows["start"], ends.max())
            around.append(np.array(rows[:near]))
            if near < len(rows):
                break
        seen = np.concatenate(around)
        batch = np.minimum(in_flight(own, seen), limit)
        result[own["row"]] = batch
        after = np.load(slices[index + 1], mmap_mode="r")["start"][0] if index + 1 < len(slices) else np.inf
        everything = np.concatenate([carried, own])
        carried = everything[everything["start"] + everything["duration"] > after]
        if again:
            guess = np.flatnonzero(~own["known"])
            anew = own.copy()
            anew["duration"][guess] = _predicted(scorer, own[guess], batch[guess])
            np.save(path.with_suffix(".next"), anew)
    if again:
        for path in slices:
            path.with_suffix(".next.npy").replace(path)


def in_flight(rows: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mean number of ``seen`` requests in flight over the life of each of ``rows`` on its host, 1 at least.

    A request of no duration gets the number at its moment.
    """
    out = np.ones(len(rows))
    order, by_host = np.argsort(rows["host"], kind="stable"), np.argsort(seen["host"], kind="stable")
    hosts, first = np.unique(rows["host"][order], return_index=True)
    mine = np.split(order, first[1:])
    start = np.searchsorted(seen["host"][by_host], hosts, side="left")
    end = np.searchsorted(seen["host"][by_host], hosts, side="right")
    for own, left, right in zip(mine, start.tolist(), end.tolist(), strict=True):
        others = seen[by_host[left:right]]
        zero = float(others["start"].min())  # small numbers: sums of moments since 1970 would lose digits
        starts = np.sort(others["start"] - zero)
        ends = np.sort(others["start"] - zero + others["duration"])
        began, ended = np.cumsum(np.append(0.0, starts)), np.cumsum(np.append(0.0, ends))

        def area(
            moment: np.ndarray, starts: np.ndarray = starts, ends: np.ndarray = ends,
            began: np.ndarray = began, ended: np.ndarray = ended,
        ) -> np.ndarray:  # fmt: skip
            here, gone = np.searchsorted(starts, moment, "right"), np.searchsorted(ends, moment, "right")
            return np.asarray((here - gone) * moment - began[here] + ended[gone])

        at = rows["start"][own] - zero
        life = rows["duration"][own]
        here = np.searchsorted(starts, at, "right") - np.searchsorted(ends, at, "left")
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (area(at + life) - area(at)) / life
        out[own] = np.where(life > 0.0, mean, here)
    return np.maximum(out, 1.0)
