"""What commands share when they talk to a person: text, JSON, a progress line with time left."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import typer


def say(text: str = "") -> None:
    """Results go to stdout."""
    typer.echo(text)


def note(text: str) -> None:
    """Notes, banners and warnings go to stderr, so that stdout stays the result."""
    typer.echo(text, err=True)


def emit_json(data: Any) -> None:
    """One JSON document on stdout; NaN is refused, since it is not JSON."""
    typer.echo(json.dumps(data, indent=2, allow_nan=False))


def table(rows: Iterable[Iterable[object]], header: Iterable[str] = ()) -> str:
    """Plain columns; numbers are right-aligned."""
    lines = [[str(cell) for cell in row] for row in rows]
    head = [str(cell) for cell in header]
    every = ([head] if head else []) + lines
    if not every:
        return ""
    widths = [max(len(line[i]) for line in every if i < len(line)) for i in range(max(map(len, every)))]

    def numeric(column: int) -> bool:
        cells = [line[column] for line in lines if column < len(line) and line[column]]
        return bool(cells) and all(cell[0] in "+-.0123456789" for cell in cells)

    right = [numeric(i) for i in range(len(widths))]
    return "\n".join(
        "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=False)
        ).rstrip()
        for line in every
    )


def duration(seconds: float) -> str:
    """``3 s``, ``2 min 05 s``, ``1 h 20 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """``[ 12/80] measuring encoder.layer.0 · 2 min 05 s left`` on stderr.

    Rewrites one line on a terminal; elsewhere it prints at most a line every ten seconds.
    """

    def __init__(self, total: float, what: str, quiet: bool = False) -> None:
        self.total, self.what, self.quiet = total, what, quiet
        self._start = self._last = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and not self.quiet:
            typer.echo("\r\033[K", nl=False, err=True)

    def say(self, text: str) -> None:
        """A note while the line is there; it goes above it."""
        typer.echo(f"\r\033[K{text}" if self._terminal and not self.quiet else text, err=True)

    def update(self, done: float, detail: str = "", left_s: float | None = None) -> None:
        """``done`` of ``total``; ``left_s`` replaces the estimate from the pace so far."""
        now = time.monotonic()
        if self.quiet or now - self._last < (0.1 if self._terminal else 10.0):
            return
        self._last = now
        if left_s is None and done > 0:
            left_s = (now - self._start) / done * (self.total - done)
        left = f" · {duration(left_s)} left" if left_s is not None else ""
        share = f"{done:4.0%}" if self.total == 1 else f"{done:g}/{self.total:g}"
        text = f"[{share}] {self.what} {detail}".rstrip() + left
        typer.echo(f"\r\033[K{text}"[:120] if self._terminal else text, nl=not self._terminal, err=True)
