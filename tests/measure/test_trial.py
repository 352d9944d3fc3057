"""One trial by itself: where its window begins and ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from irene_build.measure.conditions import Conditions
from irene_build.measure.journal import Journal
from irene_build.measure.recorder import MeterRecorder
from irene_build.measure.start import start_journal
from irene_build.measure.trial import Window, run_window
from tests.measure.doubles import FAST, HEADER, DoubleDevice, DoubleMeter, DoubleSampler, Power, double_plan


class QueueDevice(DoubleDevice):
    """As a GPU: ``run`` gives it work and returns, ``synchronize`` returns when all of it has been done."""

    def __init__(self) -> None:
        super().__init__(Power())
        self.log: list[tuple[int, str]] = []
        self._pending = 0

    def run(self) -> None:
        self._pending += 1
        self.log.append((time.monotonic_ns(), "given"))

    def synchronize(self) -> None:
        time.sleep(0.004 * self._pending)
        self._pending = 0
        self.log.append((time.monotonic_ns(), "done"))

    def before(self, moment_ns: int) -> list[str]:
        """What happened until then."""
        return [what for when, what in self.log if when <= moment_ns]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[MeterRecorder]:
    with Journal(tmp_path / "campaign.sqlite") as journal:
        start_journal(journal, double_plan(), HEADER)
        with MeterRecorder(DoubleMeter(Power(), 0.04), DoubleSampler(), journal, lambda: 1) as open_recorder:
            yield open_recorder


def measured(recorder: MeterRecorder, device: QueueDevice, guard_s: float) -> Window:
    protocol = replace(FAST, guard_s=guard_s)
    return run_window(device.run, device, recorder, Conditions(DoubleSampler().sample), protocol, 0.05)


def test_work_of_a_device_that_returns_at_once_is_waited_for_at_both_ends(recorder: MeterRecorder) -> None:
    device = QueueDevice()
    window = measured(recorder, device, guard_s=0.03)
    before, until = device.before(window.start_ns), device.before(window.end_ns)
    assert before[-1] == until[-1] == "done", "nothing is under way when the window begins or ends"
    assert until.count("given") - before.count("given") == window.runs
    assert len(device.log) > len(until), "and it goes on behind the end"


def test_a_trial_is_kept_with_the_reading_that_its_label_needs(recorder: MeterRecorder) -> None:
    """Whatever happens after it was written down: the window ends before the middle of its last reading."""
    for _ in range(4):
        window = measured(recorder, QueueDevice(), guard_s=0.0)
        last_ns = recorder.between(window.end_ns, time.monotonic_ns())[-1][0]
        assert last_ns - window.end_ns > 0.5e9 * recorder.period_s
