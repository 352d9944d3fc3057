"""Progress on a real terminal (a pseudo-terminal of a given width), and where there is none."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import pytest

from irene_build import console

_WORK = """
from irene_build import console
import time
with console.Progress({total}, "measuring") as progress:
    for done in range(5):
        time.sleep(0.11)
        progress.update(done / 5 * {total}, "round 1: encoder.layer.11.attention.self.query", 100.0 - 20 * done)
    progress.say("[close] what else is running")
"""


def on_a_terminal(width: int, total: float = 1.0, **environment: str) -> str:
    """What the work writes to a terminal so wide."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-c", _WORK.format(total=total)], stdin=slave, stderr=slave,
        env={**kept, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(slave)
    found = b""
    with suppress(OSError):  # a terminal without a program is an error to its reader
        while chunk := os.read(master, 4096):
            found += chunk
    os.close(master)
    assert process.wait() == 0
    return found.decode()


def lines(text: str) -> list[str]:
    """What could be seen at one time or another, without colours and movements."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return [line.rstrip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


def test_one_line_with_a_bar_a_share_and_the_time_left() -> None:
    seen = lines(on_a_terminal(110))
    assert any(
        re.fullmatch(r"measuring \S+ +40% 1 min 00 s left · round 1: encoder\.layer.*", line) for line in seen
    )
    assert "[close] what else is running" in seen
    assert all(len(line) <= 110 for line in seen)


@pytest.mark.parametrize("width", [20, 32, 45, 69])
def test_a_narrow_terminal_has_one_line_all_the_same(width: int) -> None:
    seen = [line for line in lines(on_a_terminal(width)) if "close" not in line and "running" not in line]
    assert all(len(line) <= width for line in seen)
    assert any("40%" in line and "1 min" in line for line in seen)


def test_counts_are_told_as_counts() -> None:
    assert any("24/60" in line for line in lines(on_a_terminal(100, total=60)))


def test_no_color_has_no_colour() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*\b(3[0-9]|9[0-7]|38;5;\d+)[0-9;]*m")
    assert colour.search(on_a_terminal(100))
    assert not colour.search(on_a_terminal(100, NO_COLOR="1"))


def test_without_a_terminal_lines_are_plain_and_few() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WORK.format(total=1.0)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "" and done.stderr == "[close] what else is running\n"


def test_the_time_left_waits_for_a_pace_and_does_not_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of the test's own: a first tree that takes 10 s, and 59 that take one each."""
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    progress = console.Progress(60, "tracing")
    told = []
    for done in range(1, 60):
        now[0] += 10.0 if done == 1 else 1.0
        told.append(progress._seconds_left(now[0], done / 60))
    known = [left for left in told if left is not None]
    assert told[0] is None, "one of sixty says nothing yet"
    assert all(later <= earlier + 0.5 for earlier, later in itertools.pairwise(known))
    assert known[-1] == pytest.approx(1.0, abs=1.0)
