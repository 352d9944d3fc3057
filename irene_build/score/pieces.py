"""Pieces of a log: what one worker reads at a time, and whole lines of text files."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

#: Bytes of a text file that are one piece.
TEXT_BYTES = 16 << 20


@dataclass(frozen=True)
class Piece:
    """Part ``number`` of a log. ``groups``: row groups of a Parquet file; ``start``, ``end``: bytes of a text file
    (both 0: all of a compressed one). ``keys``: columns that the path tells (``day=2024-05-10``). ``size``: in bytes,
    for progress."""

    number: int
    path: str
    format: str
    keys: tuple[tuple[str, str], ...]
    size: int
    groups: tuple[int, ...] = ()
    start: int = 0
    end: int = 0


def open_text(path: str) -> IO[bytes]:
    """A text file as bytes, unpacked where its name ends in .gz."""
    return gzip.open(path, "rb") if path.endswith(".gz") else Path(path).open("rb")  # type: ignore[return-value]


def chunks(file: IO[bytes], quoted: bool) -> Iterator[bytes]:
    """Whole lines, about TEXT_BYTES of them at a time. ``quoted``: a line end within quotation marks ends no line."""
    rest = b""
    while True:
        block = file.read(TEXT_BYTES)
        if not block:
            if rest:
                yield rest
            return
        text = rest + block
        cut = _cut(text, quoted)
        if cut:
            yield text[:cut]
        rest = text[cut:]


def _cut(text: bytes, quoted: bool) -> int:
    """After the last line end that lies outside of quotation marks; 0 where there is none."""
    at = text.rfind(b"\n") + 1
    if not quoted or b'"' not in text:
        return at
    for _ in range(1000):
        if at == 0 or text.count(b'"', 0, at) % 2 == 0:
            return at
        at = text.rfind(b"\n", 0, at - 1) + 1
    return 0
