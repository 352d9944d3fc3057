"""A PC whose true energy is known: runners, a device and a meter that share one power curve.

Run as a program (``python -m tests.measure.doubles FILE``) it is a campaign to be killed: it makes or
resumes FILE and prints ``finished`` at its end.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irene_build.measure.campaign import Campaign
from irene_build.measure.journal import Journal
from irene_build.measure.outcome import Outcome
from irene_build.measure.plan import MeasurementProtocol, Plan, Target, make_plan
from irene_build.measure.start import start_journal
from irene_build.meters.base import Alert, MeterInfo, Reading
from irene_runtime.sampler import Sample
from irene_runtime.tree import ModelTree, Node

IDLE_W = 40.0


class Power:
    """Watts over time, integrated exactly. ``extra_w`` comes on top of whatever is set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watts, self._joules, self._at = IDLE_W, 0.0, time.monotonic()
        self.extra_w = 0.0

    def set(self, watts: float) -> None:
        with self._lock:
            now = time.monotonic()
            self._joules += self._watts * (now - self._at)
            self._watts, self._at = watts + self.extra_w, now

    def joules(self) -> float:
        with self._lock:
            return self._joules + self._watts * (time.monotonic() - self._at)


class DoubleDevice:
    """Burns at 100 W by sleeping. After work it stays warm for a moment, as a busy loop does."""

    name = "double"

    def __init__(self, power: Power) -> None:
        self.power = power

    def synchronize(self) -> None:
        pass

    def burn(self, seconds: float) -> None:
        self.power.set(100.0)
        time.sleep(seconds)
        self.power.set(IDLE_W)

    def speed(self) -> tuple[float, float]:
        return 1e10, 1e9


class PowerlessDevice(DoubleDevice):
    """One whose load the meter does not show."""

    def burn(self, seconds: float) -> None:
        time.sleep(seconds)


class DoubleWorkload:
    """Node ``i`` of a tree takes its ``latency`` and draws IDLE_W + 5 i watts meanwhile."""

    def __init__(self, power: Power, broken: frozenset[int] = frozenset()) -> None:
        self.power, self.broken = power, broken
        self.roomy = True

    def holds(self, sizes: Sequence[int]) -> bool:
        return self.roomy

    def watts(self, node: int) -> float:
        return IDLE_W + 5.0 * (node + 1)

    def runner(self, target: Target, node: int, wanted: list[int]) -> Callable[[], None]:
        assert node in wanted

        def run() -> None:
            if node in self.broken:
                raise RuntimeError("out of memory")
            self.power.set(self.watts(node))
            time.sleep(0.004)
            self.power.set(IDLE_W)

        return run


class DoubleMeter:
    """Averages the power curve over each frame."""

    def __init__(
        self,
        power: Power,
        period_s: float = 0.01,
        noise_w: float = 0.05,
    ) -> None:
        self.power, self.period_s = power, period_s
        self._random, self._noise = random.Random(5), noise_w
        self._at, self._joules = time.monotonic(), power.joules()
        self.silent = False

    @property
    def info(self) -> MeterInfo:
        # Nominally slower than it is: on a busy machine its thread is late, which is no fault of a meter.
        return MeterInfo(
            "double", "double", "power", "wall", "simulated", 2.5 * self.period_s, 0.01, "real", {}
        )

    def __enter__(self) -> DoubleMeter:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def read_new(self, timeout_s: float) -> list[Reading]:
        due = self._at + self.period_s
        time.sleep(max(0.0, min(due - time.monotonic(), timeout_s)))
        if time.monotonic() < due:
            return []
        # One clock reading for both: a late thread makes a longer frame, not a wrong one.
        joules, now = self.power.joules(), time.monotonic()
        watts = (joules - self._joules) / (now - self._at) + self._random.gauss(0.0, self._noise)
        self._at, self._joules = now, joules
        if self.silent:
            return []
        return [Reading(time.monotonic_ns(), watts)]

    def counters(self) -> Mapping[str, int]:
        return {"torn": 0}

    def alerts(self) -> list[Alert]:
        return []


class DoubleSampler:
    """Samples without CPU ticks, so that the machine's real load spoils no test."""

    def __init__(self) -> None:
        self._kept: list[Sample] = []

    def start(self) -> None:
        self.sample()

    def stop(self) -> None:
        pass

    def sample(self) -> Sample:
        self._kept.append(Sample(time.monotonic_ns(), None, None, None, 25.0))
        return self._kept[-1]

    def samples(self, start_ns: int = 0, end_ns: int | None = None) -> list[Sample]:
        return [s for s in self._kept if s.host_time_ns >= start_ns]


def double_tree(target: Target, leaves: int = 3) -> tuple[ModelTree, list[str | None]]:
    """A root with leaves; leaf ``i`` is the same work in each model, the root is not."""
    size = {"batch_size": float(target.batch_size), "seq_len": float(target.seq_len)}
    nodes = [Node("", "Toy", "model", -1, features=dict(size))]
    nodes += [
        Node(f"l{i}", "Linear", "ml", 0, "Linear", features={**size, "flops": 1.0 + i, "mem_bytes": 0.1})
        for i in range(leaves)
    ]
    header = {"model": target.model, "batch_size": target.batch_size, "seq_len": target.seq_len}
    shape = f"{target.batch_size}x{target.seq_len}"
    keys: list[str | None] = [f"{target.model}:{shape}", *(f"leaf{i}:{shape}" for i in range(leaves))]
    return ModelTree(nodes, header), keys


FAST = MeasurementProtocol(
    precision=2.0, window_s=0.05, max_window_s=0.2, settle_s=0.015, idle_s=0.02, warm_s=0.015, guard_s=0.015,
    gate_timeout_s=0.2, standby_s=0.08, pulse_unit_s=0.02, pulse_every_s=5.0, min_rounds=2, max_rounds=3,
    seed=3, max_attempts=20,  # a machine that is too busy for a while spoils trials that no test is about
)  # fmt: skip
HEADER = {"hardware": "double", "boundary": "wall", "provenance": "simulated", "label_source": "double"}


def double_plan(
    models: int = 2, leaves: int = 1, protocol: MeasurementProtocol = FAST, budget_s: float | None = None
) -> Plan:
    targets = [Target(f"toy{m}", 1, 8) for m in range(models)]
    return make_plan(targets, lambda t: double_tree(t, leaves), protocol, (1e10, 1e9), budget_s)


def run_campaign(
    path: Path,
    plan: Plan | None = None,
    power: Power | None = None,
    meter: DoubleMeter | None = None,
    workload: DoubleWorkload | None = None,
    sampler: Any = None,
    stop_after_s: float | None = None,
    report: Callable[..., None] = lambda *_: None,
    device: DoubleDevice | None = None,
    header: Mapping[str, Any] | None = None,
) -> Outcome:
    """Make the campaign where there is none, and run it."""
    power = power or Power()
    with Journal(path) as journal:
        if not journal.has_campaign:
            start_journal(journal, plan or double_plan(), {**HEADER, **(header or {})})
        with meter or DoubleMeter(power) as opened:
            campaign = Campaign(
                journal,
                opened,
                sampler or DoubleSampler(),
                device or DoubleDevice(power),
                workload or DoubleWorkload(power),
                report,
                {},
            )
            return campaign.run(stop_after_s)


if __name__ == "__main__":
    outcome = run_campaign(Path(sys.argv[1]), double_plan(models=2, leaves=4))
    sys.stdout.write("finished\n" if outcome.finished else "unfinished\n")
