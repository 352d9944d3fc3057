"""A busy machine is told before anything is measured: a real process that burns a core."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from irene_build.calibrate import run


def test_a_core_that_somebody_else_uses_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        deadline = time.monotonic() + 30.0
        while (run.tell_if_busy(0.5) or 0.0) <= run.BUSY_CORES and time.monotonic() < deadline:
            pass
    finally:
        burner.kill()
        burner.wait()
    assert "this machine is busy: other programs use" in capsys.readouterr().err
