"""Values of log columns as numbers: whole token counts and moments, and why one is not.

Columns come as whatever the log has (integers, floats, text); a value that is not what its role needs is
marked with a reason, never turned into another number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Reasons by their code in a mask; 0 is right.
MISSING, NO_NUMBER, NEGATIVE = 1, 2, 3
WORDS = {MISSING: "missing", NO_NUMBER: "not a whole number", NEGATIVE: "negative"}

_WHOLE = r"^\s*[+-]?\d{1,18}(\.0*)?\s*$"


def whole_numbers(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """A column as int64[rows], and per row a reason code, uint8[rows]; values with a reason are 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found = _of_text(values)
        if found is not None:
            return found
        fits = pc.match_substring_regex(values, _WHOLE)
        why = np.zeros(len(values), dtype=np.uint8)
        why[_mask(pc.invert(fits))] = NO_NUMBER
        empty = pc.equal(pc.utf8_trim_whitespace(values), "")
        why[_mask(empty)] = MISSING
        plain = pc.replace_substring_regex(pc.utf8_trim_whitespace(values), r"^\+|\.0*$", "")
        number = pc.cast(pc.if_else(fits, plain, "0"), pa.int64())
        why[_mask(pc.is_null(values))] = MISSING
        return _signed(pc.fill_null(number, 0).to_numpy(zero_copy_only=False), why)
    why = np.zeros(len(values), dtype=np.uint8)
    if values.null_count:
        why[_mask(pc.is_null(values))] = MISSING
    if pa.types.is_integer(kind):
        if kind == pa.uint64():
            large = pc.greater(values, pa.scalar(2**62, pa.uint64()))
            why[_mask(large)] = NO_NUMBER
            values = pc.if_else(large, pa.scalar(0, pa.uint64()), values)
        number = pc.cast(values, pa.int64())
        filled = number if not number.null_count else pc.fill_null(number, 0)
        return _signed(filled.to_numpy(zero_copy_only=False), why)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        real = pc.fill_null(pc.cast(values, pa.float64()), 0.0).to_numpy(zero_copy_only=False)
        wrong = ~(np.abs(real) < 2.0**53) | (real != np.floor(real))
        why[wrong & (why == 0)] = NO_NUMBER
        return _signed(np.where(wrong, 0.0, real).astype(np.int64), why)
    why[why == 0] = NO_NUMBER
    return np.zeros(len(values), dtype=np.int64), why


def _of_text(values: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """The fast way, for text that is nothing but digits; None where some of it is not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if values.null_count:
        return None
    try:
        number = pc.cast(values, pa.int64())
    except pa.ArrowInvalid:
        return None
    return _signed(number.to_numpy(zero_copy_only=False), np.zeros(len(values), dtype=np.uint8))


def _signed(number: np.ndarray, why: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    negative = number < 0
    if negative.any():
        why[negative & (why == 0)] = NEGATIVE
    if why.any():
        number = np.where(why == 0, number, 0)
    return number, why


def real_numbers(values: Any) -> np.ndarray:
    """A column as float64[rows]; NaN where it is no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        trimmed = pc.utf8_trim_whitespace(values)
        fits = pc.match_substring_regex(trimmed, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$")
        values = pc.cast(pc.if_else(fits, trimmed, pa.scalar(None, pa.string())), pa.float64())
    elif pa.types.is_duration(values.type):
        values = pc.divide(pc.cast(pc.cast(values, pa.duration("ns"), safe=False), pa.int64()), 1e9)
    elif not (
        pa.types.is_integer(values.type)
        or pa.types.is_floating(values.type)
        or pa.types.is_decimal(values.type)
    ):
        return np.full(len(values), np.nan)
    real: np.ndarray = pc.fill_null(pc.cast(values, pa.float64(), safe=False), float("nan")).to_numpy(
        zero_copy_only=False
    )
    return real


def seconds(values: Any) -> np.ndarray:
    """A column of moments as float64[rows] seconds since 1970 (UTC); NaN where it is none.

    Timestamps, dates, text of ISO 8601 with up to nine decimals and with a zone or none (taken as UTC), and numbers:
    seconds, or milli-, micro- or nanoseconds where they are as large as a moment of our days in that unit is.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        trimmed = pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
        # Some writers leave out the colon or the minutes of a zone (+00), which Arrow takes as well.
        zoned = pc.match_substring_regex(trimmed, r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$")
        plain = pc.match_substring_regex(trimmed, r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?$")
        out = real_numbers(trimmed).copy()
        none = pa.scalar(None, pa.string())
        for fits, to in ((plain, pa.timestamp("ns")), (zoned, pa.timestamp("ns", "UTC"))):
            if _mask(fits).any():
                where = _mask(fits)
                out[where] = _of_stamps(_cast_or_null(pc.if_else(fits, trimmed, none), to))[where]
        return _in_seconds(out)
    if pa.types.is_timestamp(kind):
        return _of_stamps(values)
    if pa.types.is_date(kind):
        return _of_stamps(pc.cast(values, pa.timestamp("ms")))
    return _in_seconds(real_numbers(values))


def _cast_or_null(values: Any, to: Any) -> Any:
    """Text as timestamps; what Arrow cannot read (the 31st of February) is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.cast(values, to)
    except pa.ArrowInvalid:
        good = []
        for text in values.to_pylist():
            try:
                good.append(pc.cast(pa.scalar(text, pa.string()), to).as_py() if text is not None else None)
            except pa.ArrowInvalid:  # noqa: PERF203 (only where some are wrong)
                good.append(None)
        return pa.array(good, to)


def _of_stamps(values: Any) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[values.type.unit]
    number = pc.cast(pc.cast(values, pa.int64()), pa.float64(), safe=False)
    real: np.ndarray = pc.fill_null(number, float("nan")).to_numpy(zero_copy_only=False)
    return real / per_second


def _in_seconds(number: np.ndarray) -> np.ndarray:
    """Seconds of numbers whose unit shows by their size: the year 2001 is 1e9 s, 1e12 ms, 1e15 us, 1e18 ns."""
    size = np.abs(number)
    return np.where(
        size < 1e11,
        number,
        np.where(size < 1e14, number / 1e3, np.where(size < 1e17, number / 1e6, number / 1e9)),
    )


def _mask(values: Any) -> np.ndarray:
    """A boolean column as bool[rows]; null is False."""
    import pyarrow.compute as pc

    real: np.ndarray = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return real
