"""A PC in simulated time, so that whole campaigns, of hours, can be compared within seconds.

The campaign's own code runs, with this clock instead of the host's: it gates, warms up, measures, repeats and
labels as it would, but nothing waits. The power is the virtual PC's formula (irene_build/hardware/virtual_pc.py)
averaged over each frame of its meter, whose noise and steps are added; on top of it lie what real PCs add:

    work of the system's own    an Ornstein-Uhlenbeck process of OTHER_W at the wall, correlated over OTHER_S
    repeatability               each trial's runs take exp(N(0, repeatability)) times their usual time

The truth of a trial is the formula without any of the four, over the very window, for runs of the usual length.
"""

from __future__ import annotations

import bisect
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from irene_build.hardware.virtual_pc import Model
from irene_build.measure import campaign, conditions, journal, recorder, trial
from irene_build.measure.plan import Target
from irene_build.measure.rows import PowerRow
from irene_build.meters.base import MeterInfo, Reading
from irene_runtime.sampler import Sample
from irene_runtime.tree import ModelTree, Node

OTHER_W, OTHER_S = 0.4, 1.0
IDLE, FULL = (0.0, 0.0), (1.0, 0.0)
#: FLOP/s of the simulated device: what a node's cost is said in.
SPEED = 1e9
Load = tuple[float, float]


class Pc:
    """Its clock, its power and its meter's readings. Also stands in for the module ``time``."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
    time_zone_s = 1.7e9

    def __init__(self, settings: dict[str, Any], period_s: float, seed: int) -> None:
        self.period_s = period_s
        self._meter = Model({**settings, "seed": seed})
        self._clean = Model({**settings, "seed": seed})
        self._chance = random.Random(seed)
        self._now = self._frame_start = 1000.0
        self._load, self._pending_s = IDLE, 0.0
        self._frame_j = self._joules = self._other_w = 0.0
        self.times, self.joules = [self._now], [0.0]
        self.readings: list[Reading] = []
        self.listeners: list[Callable[[], None]] = []

    # What the measuring code asks of the module `time`.
    def monotonic(self) -> float:
        return self._now

    def monotonic_ns(self) -> int:
        return round(self._now * 1e9)

    def time(self) -> float:
        return self._now + self.time_zone_s

    def time_ns(self) -> int:
        return round(self.time() * 1e9)

    def clock_gettime_ns(self, which: int) -> int:
        return self.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        self.work(seconds, IDLE)

    def work(self, seconds: float, load: Load) -> None:
        """Lets so much time pass under a load: (user, system) share of the machine."""
        end = self._now + max(0.0, seconds)
        if load != self._load:
            self._settle()
            self._load = load
        while (frame_end := self._frame_start + self.period_s) <= end:
            self._pending_s += frame_end - self._now
            self._now = frame_end
            self._settle()
            self._frame(frame_end)
        self._pending_s += end - self._now
        self._now = end

    def _settle(self) -> None:
        """Books the power of the load that lasted until now."""
        span, self._pending_s = self._pending_s, 0.0
        if span > 0.0:
            self._joules += span * self._clean.wall_w(*self._load, span)
            keep = math.exp(-span / OTHER_S)
            fresh = OTHER_W * math.sqrt(1.0 - keep * keep)
            self._other_w = keep * self._other_w + self._chance.gauss(0.0, fresh)
            self._frame_j += span * self._other_w

    def _frame(self, end: float) -> None:
        self.times.append(end)
        self.joules.append(self._joules)
        wall_w = (self.joules[-1] - self.joules[-2] + self._frame_j) / self.period_s
        volts, amperes = self._meter.meter(wall_w)
        self.readings.append(Reading(round(end * 1e9), volts * amperes, end - 1000.0))
        self._frame_start, self._frame_j = end, 0.0
        for listener in self.listeners:
            listener()

    @property
    def next_frame_s(self) -> float:
        """When the next reading comes."""
        return self._frame_start + self.period_s

    def power_w(self, start_s: float, end_s: float) -> float:
        """Mean of the formula alone between two moments, W."""
        return (self._at(end_s) - self._at(start_s)) / (end_s - start_s)

    def _at(self, when: float) -> float:
        i = min(max(bisect.bisect_left(self.times, when), 1), len(self.times) - 1)
        share = (when - self.times[i - 1]) / (self.times[i] - self.times[i - 1])
        return self.joules[i - 1] + share * (self.joules[i] - self.joules[i - 1])


class Meter:
    """The PC's meter."""

    def __init__(self, pc: Pc, window_s: float) -> None:
        self._pc, self._window_s = pc, window_s

    @property
    def info(self) -> MeterInfo:
        quantum = self._pc._meter.set["current_step_a"] * self._pc._meter.set["voltage_v"]
        return MeterInfo(
            "virtual", "simulated PC in simulated time", "power", "wall", "simulated", self._pc.period_s, quantum,
            "apparent", {}, self._window_s,
        )  # fmt: skip

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def read_new(self, timeout_s: float) -> list[Reading]:
        if not self._pc.readings:
            self._pc.sleep(timeout_s)
        found, self._pc.readings = self._pc.readings, []
        return found

    def counters(self) -> dict[str, int]:
        return {}

    def alerts(self) -> list[Any]:
        return []


class MeterRecorder(recorder.MeterRecorder):
    """Takes readings as simulated time passes, not in a thread."""

    def __enter__(self) -> MeterRecorder:
        self.meter._pc.listeners.append(self._hear)  # type: ignore[attr-defined]
        return self

    def __exit__(self, *exc: object) -> None:
        self.meter._pc.listeners.clear()  # type: ignore[attr-defined]
        self.flush()

    def _hear(self) -> None:
        self._take([PowerRow(r.host_time_ns, r.value, r.meter_time_s) for r in self.meter.read_new(0.0)])

    def wait_past(self, host_ns: int, timeout_s: float) -> bool:
        pc = self.meter._pc  # type: ignore[attr-defined]
        end = pc.monotonic() + timeout_s
        while not self._rows or self._rows[-1].host_ns <= host_ns:
            if pc.monotonic() >= end:
                return False
            pc.sleep(min(pc.next_frame_s - pc.monotonic(), end - pc.monotonic()))
        return True


class Sampler:
    """Nobody else's work is seen, and no resource feature."""

    def __init__(self, pc: Pc) -> None:
        self._pc = pc

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def sample(self) -> Sample:
        return Sample(self._pc.monotonic_ns())

    def samples(self, start_ns: int = 0, end_ns: int | None = None) -> list[Sample]:
        return []


class Device:
    name = "simulated"

    def __init__(self, pc: Pc) -> None:
        self._pc = pc

    def synchronize(self) -> None:
        pass

    def burn(self, seconds: float) -> None:
        self._pc.work(seconds, FULL)

    def speed(self) -> tuple[float, float]:
        return SPEED, 1e9


class Workload:
    """Nodes of known length and load."""

    def __init__(self, pc: Pc, nodes: Sequence[tuple[float, Load]], repeatability: float, seed: int) -> None:
        self._pc, self._nodes, self._repeatability = pc, nodes, repeatability
        self._chance = random.Random(seed)

    def holds(self, sizes: Sequence[int]) -> bool:
        return True

    def runner(self, target: Target, node: int, wanted: list[int]) -> Callable[[], None]:
        usual_s, load = self._nodes[node - 1]
        seconds = usual_s * math.exp(self._chance.gauss(0.0, self._repeatability))
        return lambda: self._pc.work(seconds, load)


def draw_nodes(count: int, seed: int) -> list[tuple[float, Load]]:
    """(s, load) of nodes of 0.5 ms to 0.1 s, of a fifth of the machine to all of it.

    On the paper's PC1 half of all nodes take less than 0.6 ms and 95 % less than 10 ms.
    """
    chance = random.Random(seed)
    return [
        (math.exp(chance.uniform(math.log(5e-4), math.log(0.1))), (chance.uniform(0.2, 1.0), 0.02))
        for _ in range(count)
    ]


def tree_of(nodes: Sequence[tuple[float, Load]]) -> Callable[[Target], tuple[ModelTree, list[str | None]]]:
    """A tracer whose tree has these nodes as leaves; the root is not run."""

    def tracer(target: Target) -> tuple[ModelTree, list[str | None]]:
        size = {"batch_size": 1.0, "seq_len": 1.0}
        leaves = [
            Node(f"n{i}", "Linear", "ml", 0, "Linear", features={**size, "flops": seconds * SPEED / 1e6})
            for i, (seconds, _) in enumerate(nodes)
        ]
        header = {"model": target.model, "batch_size": 1, "seq_len": 1, "dtype": "float32"}
        keys: list[str | None] = [None, *(f"n{i}" for i in range(len(nodes)))]
        return ModelTree([Node("", "Simulated", "model", -1, features=size), *leaves], header), keys

    return tracer


@contextmanager
def instead_of_time(pc: Pc) -> Iterator[None]:
    """The measuring code's clock and recorder are the PC's."""
    with ExitStack() as stack:
        for module in (campaign, conditions, journal, recorder, trial):
            stack.enter_context(mock.patch.object(module, "time", pc))
        stack.enter_context(mock.patch.object(campaign, "MeterRecorder", MeterRecorder))
        yield
