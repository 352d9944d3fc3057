"""A process that is stopped, by the signal that Ctrl-Z sends, sees how long nothing of it ran."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from irene_build.measure.conditions import Conditions
from irene_build.measure.heartbeat import Heartbeat
from irene_build.measure.recorder import MeterRecorder
from irene_build.measure.trial import run_window
from tests.measure.doubles import FAST, DoubleSampler
from tests.measure.test_trial import QueueDevice, recorder

__all__ = ["recorder"]
_STOPPER = (
    "import os, signal, sys, time\n"
    "time.sleep(float(sys.argv[1])); os.kill(os.getppid(), signal.SIGSTOP)\n"
    "time.sleep(float(sys.argv[2])); os.kill(os.getppid(), signal.SIGCONT)\n"
)


def stop_me(after_s: float, for_s: float) -> subprocess.Popen[bytes]:
    """Stops this very process, once: all of its threads, as a terminal or the host of a virtual machine would."""
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", _STOPPER, str(after_s), str(for_s)])


@pytest.mark.parametrize("busy", [True, False])
def test_a_stop_is_told_apart_from_work_and_from_sleep(busy: bool) -> None:
    with Heartbeat() as heartbeat:
        start = time.monotonic_ns()
        with stop_me(0.15, 0.2):
            while time.monotonic_ns() < start + 600_000_000:
                if not busy:
                    time.sleep(0.005)
        end = time.monotonic_ns()
    assert heartbeat.stopped_s(start, end) >= 0.15
    assert heartbeat.stopped_s(end, end + 1) == 0.0


def test_a_stop_of_a_tenth_of_a_second_spoils_its_window(recorder: MeterRecorder) -> None:
    """It would be 40 % of the label, and was less than what a slow run may take."""
    device = QueueDevice()
    conditions = Conditions(DoubleSampler().sample)
    with stop_me(0.15, 0.1):
        window = run_window(device.run, device, recorder, conditions, FAST, 0.5)
    assert "stalled" in window.reasons
