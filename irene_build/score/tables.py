"""Joules of requests by table: what a prompt costs, and running sums of what a decode step costs.

A step after c cached tokens takes energy that is smooth in c, so its running sum S over c makes every request two
look-ups: decode = S(prompt + output - 1) - S(prompt). Each table is filled octave by octave (2^k to 2^(k+1) tokens)
from sizes that the estimator evaluated; between two of them it is a straight line, and more are put between until the
line meets the estimator within ``TOLERANCE``. A table depends on the bundle, the model and the batch alone,
never on the log, so that every runner reads the same numbers.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from irene_build.errors import OutputError
from irene_build.files import write_bytes_atomic

#: Largest relative difference between table and estimator, looked at between two neighbouring sizes.
TOLERANCE = 1e-3
#: Where between them: no simple fraction, so that steps of 64 or 128 tokens (tiles of products) are not stepped over.
GOLDEN = 0.382
#: Sizes that an octave starts from.
FIRST_SIZES = 4
#: Requests of more tokens are refused.
MAX_TOKENS = 1 << 20
#: Bytes of filled tables that are kept at a time.
BUDGET_BYTES = 192 << 20
#: Columns of a table: energy, low and high end (J) and seconds of the prompt, then sums of the same over decode steps.
COLUMNS = 8
PREFILL, DECODE = slice(0, 4), slice(4, 8)


class EnergySource(Protocol):
    """What tables are filled from: an estimator and a symbolic tree (``sources.TreeSource``)."""

    #: A name for all that the answers depend on; empty: they are not kept.
    key: str

    def passes(self, phase: str, tokens: np.ndarray, batch_size: int) -> np.ndarray:
        """Energy, low end, high end (J of the whole pass), seconds, and flag bits: float64[tokens, 5].

        ``phase`` ``prefill``: prompts of so many tokens; ``decode``: one step after so many cached tokens. NaN:
        more than the model takes; seconds may be NaN alone.
        """


class Curve:
    """One phase of one model at one batch size: straight lines between evaluated sizes, octave by octave.

    ``path``: where what was evaluated is kept for later runs (``Store``).
    """

    def __init__(self, source: EnergySource, phase: str, batch_size: int, path: Path | None = None) -> None:
        self._source, self._phase, self._batch, self._path = source, phase, batch_size, path
        self._octaves: list[tuple[np.ndarray, np.ndarray]] = [] if path is None else _kept(path)

    def dense(self, octaves: int) -> tuple[np.ndarray, np.ndarray]:
        """Values float64[2^octaves + 1, 4] at 0, 1, ... tokens (row 0 is 0), and flag bits uint8 of the same length."""
        if len(self._octaves) < octaves:
            while len(self._octaves) < octaves:
                self._octaves.append(self._fill(len(self._octaves)))
            if self._path is not None:
                _keep(self._path, self._octaves)
        length = (1 << octaves) + 1
        values, flags = np.zeros((length, 4)), np.zeros(length, dtype=np.uint8)
        for number, (sizes, known) in enumerate(self._octaves[:octaves]):
            first, last = 1 << number, 1 << (number + 1)
            at = np.arange(first, last + 1)
            for column in range(4):
                values[first : last + 1, column] = np.interp(at, sizes, known[:, column])
            # Between two sizes hold the flags of both.
            ends = known[:, 4].astype(np.uint8)
            left = np.searchsorted(sizes, at, side="right") - 1
            right = np.searchsorted(sizes, at, side="left")
            flags[first : last + 1] |= ends[left] | ends[right]
        return values, flags

    def _fill(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The sizes of an octave that straight lines need, and what the estimator says of them."""
        first, last = 1 << number, 1 << (number + 1)
        sizes = np.unique(np.linspace(first, last, FIRST_SIZES + 1).astype(np.int64))
        known = self._source.passes(self._phase, sizes, self._batch)
        todo = np.stack([sizes[:-1], sizes[1:]], axis=1)
        while True:
            todo = todo[todo[:, 1] - todo[:, 0] > 1]
            if not len(todo):
                return sizes, known
            between = todo[:, 0] + np.maximum((GOLDEN * (todo[:, 1] - todo[:, 0])).astype(np.int64), 1)
            found = self._source.passes(self._phase, between, self._batch)
            line = np.stack([np.interp(between, sizes, known[:, c]) for c in range(4)], axis=1)
            off = np.abs(line - found[:, :4]) > TOLERANCE * np.abs(found[:, :4])
            # Where the model's sizes end, the end is found to the token.
            ends = known[np.searchsorted(sizes, todo), 0]
            bad = off.any(axis=1) | (np.isnan(ends[:, 0]) != np.isnan(ends[:, 1]))
            order = np.argsort(np.concatenate([sizes, between]))
            sizes = np.concatenate([sizes, between])[order]
            known = np.concatenate([known, found])[order]
            split = np.stack([todo[bad, 0], between[bad], between[bad], todo[bad, 1]], axis=1)
            todo = split.reshape(-1, 2)


def _keep(path: Path, octaves: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write the evaluated sizes of a curve; a folder that takes no files costs later runs time, nothing else."""
    rows = [
        np.column_stack([np.full(len(sizes), k), sizes, known]) for k, (sizes, known) in enumerate(octaves)
    ]
    content = io.BytesIO()
    np.save(content, np.concatenate(rows), allow_pickle=False)
    with contextlib.suppress(OutputError):
        write_bytes_atomic(path, content.getvalue())


def _kept(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """What ``_keep`` wrote; nothing where that is not there or damaged."""
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return []
    if rows.ndim != 2 or rows.shape[1] != 7 or not len(rows):
        return []
    octaves = [rows[rows[:, 0] == number] for number in range(int(rows[:, 0].max()) + 1)]
    ends = [(part[0, 1], part[-1, 1]) if len(part) else (0.0, 0.0) for part in octaves]
    if ends != [(2.0**k, 2.0 ** (k + 1)) for k in range(len(octaves))]:
        return []
    return [(part[:, 1].astype(np.int64), part[:, 2:]) for part in octaves]


@dataclass(frozen=True)
class _Filled:
    """A table of one model and batch. ``values`` float64[tokens, COLUMNS], ``flags`` uint8[tokens, 2]."""

    octaves: int
    values: np.ndarray
    flags: np.ndarray


class RequestTable:
    """Tables of several models over batch sizes; what one request of a batch of b requests costs is 1/b of a pass.

    ``sources``: per model what fills its tables. ``store``: where what they said is kept for later runs, by a name that
    says all that it depends on (``EnergySource.key``). Safe to share between threads.
    """

    def __init__(self, sources: Mapping[str, EnergySource], store: Path | None = None) -> None:
        self._store = store
        self.models = list(sources)
        self._sources = list(sources.values())
        self._curves: dict[tuple[int, int], tuple[Curve, ...]] = {}
        self._filled: dict[tuple[int, int], _Filled] = {}
        self._lock = threading.Lock()

    def requests(
        self, model: np.ndarray, batch_size: np.ndarray, prompt: np.ndarray, output: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prefill and decode of every request, float64[requests, COLUMNS], and flag bits, uint8[requests].

        ``model``: its number in ``models``; ``batch_size``: 1 or more, may be broken (7.3 requests in flight on
        average: between the nearest sizes of ``grid`` energy a request is a line in 1 / batch); ``prompt``,
        ``output``: tokens, 0 to MAX_TOKENS together. The first token is the prefill's, each other one a decode step.
        """
        count = len(prompt)
        out, flags = np.zeros((count, COLUMNS)), np.zeros(count, dtype=np.uint8)
        if not count:
            return out, flags
        lower, upper, weight = _between(batch_size)
        self._add(out, flags, model, lower, prompt, output, 1.0 - weight)
        inside = np.flatnonzero(weight > 0.0)
        if len(inside):
            part, part_flags = np.zeros((len(inside), COLUMNS)), np.zeros(len(inside), dtype=np.uint8)
            chosen = (array[inside] for array in (model, upper, prompt, output, weight))
            self._add(part, part_flags, *chosen)
            out[inside] += part
            flags[inside] |= part_flags
        return out, flags

    def _add(
        self, out: np.ndarray, flags: np.ndarray, model: np.ndarray, batch_size: np.ndarray,
        prompt: np.ndarray, output: np.ndarray, weight: np.ndarray,
    ) -> None:  # fmt: skip
        """Look the requests up at whole batch sizes, and add ``weight`` of each."""
        last = prompt + np.maximum(output - 1, 0)
        key = model * (1 << 32) + batch_size
        if (key == key[0]).all():
            table = self._table(int(key[0]), int(last.max()))
            _look_up(out, flags, slice(None), table, prompt, last, weight)
            return
        groups, which = np.unique(key, return_inverse=True)
        kind = np.uint16 if len(groups) < 1 << 16 else np.int64  # the former is sorted in two sweeps
        order = np.argsort(which.astype(kind), kind="stable")
        ends = np.cumsum(np.bincount(which, minlength=len(groups)))
        for group, rows in zip(groups.tolist(), np.split(order, ends[:-1]), strict=True):
            own = last[rows]
            table = self._table(group, int(own.max()))
            _look_up(out, flags, rows, table, prompt[rows], own, weight[rows])

    def _table(self, key: int, tokens: int) -> _Filled:
        """The filled table of a group, up to so many tokens."""
        octaves, group = _octaves(tokens), (key >> 32, key & ((1 << 32) - 1))
        with self._lock:
            found = self._filled.pop(group, None)
            if found is None or found.octaves < octaves:
                found = self._fill(group, octaves)
            self._filled[group] = found  # the latest used stands last
            total = sum(t.values.nbytes for t in self._filled.values())
            for old in list(self._filled):
                if total <= BUDGET_BYTES or old == group:
                    break
                total -= self._filled.pop(old).values.nbytes
            return found

    def _path(self, source: EnergySource, phase: str, batch_size: int) -> Path | None:
        if self._store is None or not source.key:
            return None
        return self._store / f"{source.key}-{phase}-{batch_size}.npy"

    def _fill(self, group: tuple[int, int], octaves: int) -> _Filled:
        model, batch_size = group
        if group not in self._curves:
            source = self._sources[model]
            self._curves[group] = tuple(
                Curve(source, phase, batch_size, self._path(source, phase, batch_size))
                for phase in ("prefill", "decode")
            )
        (prefill, prefill_flags), (step, step_flags) = (c.dense(octaves) for c in self._curves[group])
        values = np.zeros((len(prefill), COLUMNS))
        values[:, PREFILL] = prefill
        values[1:, DECODE] = np.cumsum(step, axis=0)[
            :-1
        ]  # before the step after c tokens: those after 0 ... c - 1
        values[:, [0, 1, 2, 4, 5, 6]] /= batch_size
        return _Filled(octaves, values, np.stack([prefill_flags, step_flags], axis=1))


def _look_up(
    out: np.ndarray, flags: np.ndarray, rows: Any, table: _Filled, prompt: np.ndarray, last: np.ndarray,
    weight: np.ndarray,
) -> None:  # fmt: skip
    values, marks = table.values, table.flags
    start, end = np.take(values, prompt, axis=0), np.take(values, last, axis=0)
    end[:, DECODE] -= start[:, DECODE]
    end[:, PREFILL] = start[:, PREFILL]
    if (weight != 1.0).any():
        end *= weight[:, None]
    flag = marks[prompt, 0]
    steps = last > prompt
    flag |= np.where(steps, marks[prompt, 1] | marks[np.maximum(last - 1, 0), 1], 0).astype(np.uint8)
    if isinstance(rows, slice):
        out += end
        flags |= flag
    else:
        out[rows] += end
        flags[rows] |= flag


def _octaves(tokens: int) -> int:
    """Octaves that reach so many tokens; 1,024 tokens at least, since tables of every size would be many."""
    return max(10, (max(tokens, 1) - 1).bit_length())


def grid(largest: int) -> list[int]:
    """The batch sizes that tables are made for: every one up to 8, then four an octave."""
    sizes = [1, 2, 3, 4]
    while sizes[-1] < largest:
        sizes.append(sizes[-1] + max(1, (1 << (sizes[-1].bit_length() - 1)) // 4))
    return sizes


def _between(batch_size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest grid sizes below and above, and the weight of the one above (a line in 1 / batch)."""
    if (batch_size == batch_size[0]).all():
        one = _between_of(batch_size[:1])
        return tuple(np.broadcast_to(part, batch_size.shape) for part in one)  # type: ignore[return-value]
    return _between_of(batch_size)


def _between_of(batch_size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sizes = np.array(grid(int(np.ceil(batch_size.max())) + 1))
    index = np.searchsorted(sizes, batch_size, side="right") - 1
    lower, upper = sizes[index], sizes[np.minimum(index + 1, len(sizes) - 1)]
    weight = np.where(
        batch_size > lower,
        (1.0 / lower - 1.0 / batch_size) / np.maximum(1.0 / lower - 1.0 / upper, 1e-300),
        0.0,
    )
    return lower, upper, weight


def flag_names(mask: int, names: Sequence[tuple[int, str]]) -> str:
    """The names of the bits of a mask, with spaces between."""
    return " ".join(name for bit, name in names if mask & bit)
