"""The fixture ``shifted_clocks``: a child process whose clocks a test moves, and which it sends to sleep.

The process is run with ``env=clocks.environment()``: a small C library is preloaded that stands between it and
libc's clocks. Import the fixtures into a folder's ``conftest.py``.
"""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_SOURCE = Path(__file__).resolve().parent / "clock_shim" / "clock.c"
_NS = 1_000_000_000


class ShiftedClocks:
    """``wall_s``: how far the wall clock is ahead. Boot and wall time count what the machine slept."""

    def __init__(self, library: Path, state: Path) -> None:
        self.library, self.state = library, state
        state.write_bytes(bytes(24))
        with state.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 24)
        self.wall_s = 0.0
        self._held_ns = self._extra_ns = 0
        self._sleeps: list[tuple[int, int]] = []

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LD_PRELOAD": str(self.library), "CLOCK_SHIM_STATE": str(self.state)}

    def set_wall(self, ahead_s: float) -> None:
        """As if somebody had set the clock on the wall."""
        self.wall_s = ahead_s
        self._write()

    def sleep(
        self,
        process: subprocess.Popen[bytes],
        for_s: float,
        really_s: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> float:
        """The machine sleeps: the process group stands still, and so does its monotonic clock.

        ``really_s`` of true time and what ``meanwhile`` takes pass for ``for_s``; gives how long that was, s.
        """
        os.killpg(process.pid, signal.SIGSTOP)
        started = time.monotonic_ns()
        meanwhile()
        time.sleep(really_s)
        really_ns = time.monotonic_ns() - started
        self._sleeps.append((started - self._held_ns, really_ns))
        self._held_ns += really_ns
        self._extra_ns += round(for_s * _NS) - really_ns
        self._write()
        os.killpg(process.pid, signal.SIGCONT)
        return really_ns / 1e9

    def true_ns(self, host_ns: int) -> int:
        """This process' monotonic time at a moment of the other's, in which it did not sleep."""
        return host_ns + sum(held for asleep, held in self._sleeps if asleep < host_ns)

    def _write(self) -> None:
        wall_ns = round(self.wall_s * _NS)
        shifts = (self._extra_ns + wall_ns, -self._held_ns, self._extra_ns)
        self._map[:] = struct.pack("3q", *shifts)

    def close(self) -> None:
        self._map.close()


@pytest.fixture(scope="session")
def clock_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library to preload; skips where there is no C compiler or no way to preload."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler to build a library of clocks, or no LD_PRELOAD")
    library = tmp_path_factory.mktemp("clocks") / "clocks.so"
    options = ["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-pthread"]
    subprocess.run([compiler, *options, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


@pytest.fixture
def shifted_clocks(clock_library: Path, tmp_path: Path) -> Iterator[ShiftedClocks]:
    clocks = ShiftedClocks(clock_library, tmp_path / "clocks.state")
    yield clocks
    clocks.close()
