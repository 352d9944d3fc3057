"""The one place that computes: an Arrow batch of requests in, the same rows with their joules out.

Every runner (local, Spark, Ray) calls a ``Scorer``; it holds no state but its tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irene_build.errors import InputError
from irene_build.score.columns import Columns, column, has
from irene_build.score.tables import MAX_TOKENS, EnergySource, RequestTable, flag_names
from irene_build.score.values import WORDS, real_numbers, whole_numbers
from irene_runtime.equations import FLAGS

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns that are added, with their meaning; energies in joules, ``batch`` in requests.
ADDED = {
    "energy_j": "joules of the request, its share of the batch",
    "energy_low_j": "lower end of the 90 % interval",
    "energy_high_j": "upper end of the 90 % interval",
    "prefill_energy_j": "of them the prompt's pass, which gives the first token",
    "decode_energy_j": "of them the steps of all other tokens",
    "batch_used": "requests in flight that the request shared its passes with, itself counted",
    "flags": "extrapolates, uncalibrated, simulated, ...; failed: it gave no token",
    "estimator_digest": "SHA-256 of the estimator",
}
#: Why a row was not scored; null where it was.
REJECTED = "rejected"
#: The column that a runner adds where it found the concurrency by overlap.
DERIVED_BATCH = "__irene_batch"
#: More requests in flight than this are taken for a mistake.
MAX_BATCH = 1 << 16
#: The bit of a request without an output token, above those of the estimator.
FAILED = 64
_FLAGS = [*FLAGS.items(), (FAILED, "failed")]


@dataclass(frozen=True)
class Settings:
    """How rows are read. ``model``: of all rows (empty: a column says it); ``aliases``: names in the log -> names of
    trees; ``batch_size``: of rows that say none; ``failed``: ``prefill`` charges requests without an output token
    their prompt, ``nothing`` charges them 0 J."""

    columns: Columns = field(default_factory=Columns)
    model: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    batch_size: float = 1.0
    failed: str = "prefill"


class Scorer:
    """Scores Arrow batches: a call gives all rows and columns of one, then ``ADDED``, then ``REJECTED``.

    ``sources``: per model what its tables are filled from. Rows that are wrong keep null in ``ADDED`` and say why in
    ``REJECTED``. ``store``: where tables are kept for later runs.
    May be called from several threads. Raises InputError where the settings cannot be.
    """

    def __init__(
        self, sources: Mapping[str, EnergySource], digest: str, settings: Settings, store: Path | None = None
    ) -> None:
        if settings.failed not in ("prefill", "nothing"):
            raise InputError(f"--failed {settings.failed!r}: prefill or nothing")
        if not 1.0 <= settings.batch_size <= MAX_BATCH:
            raise InputError(f"--batch {settings.batch_size:g}: a number from 1 to {MAX_BATCH:,}")
        names = {settings.model, *settings.aliases.values()} - {""}
        for name in sorted(names - set(sources)):
            raise InputError(no_tree(name, sources))
        if not settings.model and not settings.columns.model:
            raise InputError("the log has no column of models: say --model NAME, or --column model=COLUMN")
        self.settings, self.digest, self.table = settings, digest, RequestTable(sources, store)

    def __call__(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return _scored(rows, self.table, self.digest, self.settings)

    def requests(self, rows: pa.RecordBatch) -> tuple[Any, Any, Any, Reasons]:
        """Model numbers, prompt and output tokens, int64[rows] each, and the reasons of rows that are wrong."""
        return _requests(rows, self.table, self.settings)


def added_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of what a batch function returns for rows of this one. Raises InputError where names collide."""
    import pyarrow as pa

    own = [f for f in schema if f.name != DERIVED_BATCH]
    for taken in {*ADDED, REJECTED}.intersection(f.name for f in own):
        raise InputError(f"the log has a column {taken!r} already, which scoring adds: rename or drop it")
    kinds = {name: pa.float64() for name in ADDED} | {"flags": pa.string(), "estimator_digest": pa.string()}
    return pa.schema(
        [*own, *(pa.field(name, kinds[name]) for name in ADDED), pa.field(REJECTED, pa.string())]
    )


def _scored(rows: pa.RecordBatch, table: RequestTable, digest: str, settings: Settings) -> pa.RecordBatch:
    import pyarrow as pa

    model, prompt, output, reasons = _requests(rows, table, settings)
    size = _batch_sizes(rows, settings, reasons)
    good = reasons.right()
    chosen = slice(None) if good is None else good
    prompt, output, model, size = (part[chosen] for part in (prompt, output, model, size))
    values, flags = table.requests(model, size, prompt, output)
    too_long = np.isnan(values[:, 0] + values[:, 4])
    if too_long.any():
        wrong = np.zeros(rows.num_rows, dtype=bool)
        wrong[np.arange(rows.num_rows)[chosen][too_long]] = True
        reasons.add(wrong, "more tokens than the model's tree goes to")
        good, prompt, output = reasons.right(), prompt[~too_long], output[~too_long]
        size, values, flags = size[~too_long], values[~too_long], flags[~too_long]
    failed = output == 0
    if failed.any():
        flags = flags | np.where(failed, FAILED, 0).astype(np.uint8)
        values[(failed & (settings.failed == "nothing")) | (prompt == 0)] = 0.0
    prefill, decode = values[:, 0:3], values[:, 4:7]
    total = prefill + decode
    parts = [total[:, 0], total[:, 1], total[:, 2], prefill[:, 0], decode[:, 0], size]
    arrays = [_spread(np.ascontiguousarray(part), good, rows.num_rows) for part in parts]
    words = pa.array([flag_names(mask, _FLAGS) for mask in range(2 * FAILED)], pa.string())
    codes = pa.DictionaryArray.from_arrays(_spread(flags.astype(np.int16), good, rows.num_rows), words)
    arrays.append(codes.cast(pa.string()))
    ours = pa.DictionaryArray.from_arrays(
        _spread(np.zeros(len(flags), dtype=np.int8), good, rows.num_rows), pa.array([digest])
    )
    arrays.append(ours.cast(pa.string()))
    arrays.append(reasons.column())
    schema = added_schema(rows.schema)
    own = [rows.column(f.name) for f in rows.schema if f.name != DERIVED_BATCH]
    return pa.RecordBatch.from_arrays([*own, *arrays], schema=schema)


def _requests(rows: pa.RecordBatch, table: RequestTable, settings: Settings) -> tuple[Any, Any, Any, Reasons]:
    reasons = Reasons(rows.num_rows)
    prompt = reasons.whole("prompt tokens", column(rows, settings.columns.prompt))
    output = reasons.whole("output tokens", column(rows, settings.columns.output))
    model = _models(rows, table, settings, reasons)
    reasons.add((output > 0) & (prompt == 0), "output tokens without a prompt")
    reasons.add((prompt > MAX_TOKENS) | (output > MAX_TOKENS - prompt), f"more than {MAX_TOKENS:,} tokens")
    return model, prompt, output, reasons


def _spread(values: np.ndarray, good: np.ndarray | None, count: int) -> Any:
    """An Arrow array of all rows; null where a row was rejected."""
    import pyarrow as pa

    if good is None:
        return pa.array(values)
    full, mask = np.zeros(count, dtype=values.dtype), np.ones(count, dtype=bool)
    full[good], mask[good] = values, False
    return pa.array(full, mask=mask)


def _models(rows: pa.RecordBatch, table: RequestTable, settings: Settings, reasons: Reasons) -> np.ndarray:
    """Per row the number of its model in the table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = {name: number for number, name in enumerate(table.models)}
    if settings.model:
        return np.full(rows.num_rows, known[settings.model], dtype=np.int64)
    values = pc.cast(column(rows, settings.columns.model), pa.string())
    coded = pc.dictionary_encode(values, null_encoding="encode")
    names = coded.dictionary.to_pylist()
    numbers = np.array(
        [known.get(settings.aliases.get(name, name), -1) for name in names] or [0], dtype=np.int64
    )
    codes = coded.indices.to_numpy(zero_copy_only=False)
    for code in np.flatnonzero(numbers[: len(names)] < 0).tolist():
        name = names[code]
        reasons.add(
            codes == code, "model: missing" if name is None else f"model {name!r:.100} has no symbolic tree"
        )
    return np.maximum(numbers, 0)[codes]


def _batch_sizes(rows: pa.RecordBatch, settings: Settings, reasons: Reasons) -> np.ndarray:
    """Per row how many requests share its passes, 1.0 or more."""
    name = DERIVED_BATCH if DERIVED_BATCH in rows.schema.names else settings.columns.batch
    if not name or not has(rows.schema, name):
        return np.full(rows.num_rows, float(settings.batch_size))
    size = real_numbers(column(rows, name))
    if name == DERIVED_BATCH:
        reasons.add(np.isnan(size), "time: no moment that can be read")
    reasons.add(~((size >= 1.0) & (size <= MAX_BATCH)), f"batch: not a number from 1 to {MAX_BATCH:,}")
    return size


class Reasons:
    """Why rows are rejected; the first reason of a row stands."""

    def __init__(self, rows: int) -> None:
        self._code = np.zeros(rows, dtype=np.int32)
        self._texts: list[str] = []

    def add(self, wrong: np.ndarray, text: str) -> None:
        if wrong.any():
            self._texts.append(text)
            self._code[wrong & (self._code == 0)] = len(self._texts)

    def whole(self, what: str, values: Any) -> np.ndarray:
        number, why = whole_numbers(values)
        if why.any():
            for code, word in WORDS.items():
                self.add(why == code, f"{what}: {word}")
        return number

    def right(self) -> np.ndarray | None:
        """The rows without a reason; None where that is all of them."""
        return np.flatnonzero(self._code == 0) if self._texts else None

    def column(self) -> Any:
        import pyarrow as pa

        if not self._texts:
            return pa.nulls(len(self._code), pa.string())
        codes = pa.array(np.maximum(self._code - 1, 0), mask=self._code == 0)
        return pa.DictionaryArray.from_arrays(codes, pa.array(self._texts, pa.string())).cast(pa.string())


def no_tree(model: str, sources: Mapping[str, EnergySource]) -> str:
    known = ", ".join(list(sources)[:8]) or "none"
    return (
        f"model {model!r} has no symbolic tree here (there are: {known}): "
        f"`irene-build trace {model} --symbolic -o FILE` makes one, --tree FILE adds it"
    )
