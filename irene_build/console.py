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


#: Narrower terminals than this have no bar, and the narrowest no names.
_BAR_WIDTH, _NAME_WIDTH = 70, 40
#: No time left is told before so many seconds, or so small a share: it would be a guess that jumps.
_SETTLED_S, _SETTLED_SHARE = 3.0, 0.02
_EVERY_S, _PLAIN_EVERY_S = 0.1, 10.0


class Progress:
    """``measuring ━━━━━━━╸───── 42 % · 2 min 05 s left · round 1: encoder.layer.0`` on stderr.

    One line that is rewritten on a terminal (by rich: colours unless NO_COLOR is set, cut to the width); elsewhere
    plain lines, one every ten seconds at most. Drawn by whoever calls ``update``: no thread of its own disturbs what
    is being measured.
    """

    def __init__(self, total: float, what: str, quiet: bool = False) -> None:
        self.total, self.what, self.quiet = total, what, quiet
        self._start = self._last = time.monotonic()
        self._terminal = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._left: tuple[float, float] | None = None

    def __enter__(self) -> Progress:
        if self._terminal:
            self._bar = _bar()
            self._task = self._bar.add_task(self.what, total=1.0, note="", left="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """A note while the line is there; it goes above it."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            note(text)

    def update(self, done: float, detail: str = "", left_s: float | None = None) -> None:
        """``done`` of ``total``; ``left_s`` replaces the estimate from the pace so far."""
        now = time.monotonic()
        if self.quiet or now - self._last < (_EVERY_S if self._terminal else _PLAIN_EVERY_S):
            return
        self._last = now
        share = min(1.0, done / self.total) if self.total > 0 else 0.0
        left_s = self._seconds_left(now, share) if left_s is None else left_s
        left = "" if left_s is None else f"{duration(left_s)} left"
        count = f"{share:4.0%}" if self.total == 1 else f"{done:g}/{self.total:g}"
        if self._bar is not None:
            about = " · ".join(part for part in (left, detail) if part)
            self._bar.update(self._task, completed=share, note=about, left=count)
            self._bar.refresh()
        elif not self._terminal:
            note(f"[{count}] {self.what} {detail}".rstrip() + (f" · {left}" if left else ""))

    def _seconds_left(self, now: float, share: float) -> float | None:
        """From the pace so far; what was told before counts as well, so that it does not jump."""
        elapsed = now - self._start
        if elapsed < _SETTLED_S or share < _SETTLED_SHARE:
            return None
        fresh = elapsed / share * (1.0 - share)
        if self._left is not None:
            told, at = self._left
            fresh = 0.7 * max(0.0, told - (now - at)) + 0.3 * fresh
        self._left = fresh, now
        return fresh


def _bar() -> Any:
    """rich's line for this terminal, redrawn when it is told to."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column

    console = Console(stderr=True, highlight=False)
    columns: list[ProgressColumn] = [TextColumn("{task.fields[left]}", markup=False)]
    if console.width >= _BAR_WIDTH:
        columns = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), *columns]
    elif console.width >= _NAME_WIDTH:
        columns = [TextColumn("{task.description}", markup=False), *columns]
    rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns.append(TextColumn("{task.fields[note]}", markup=False, table_column=rest))
    return Progress(*columns, console=console, auto_refresh=False, transient=True, expand=True)
