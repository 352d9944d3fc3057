"""The plan of a campaign: which distinct nodes to run, how long each takes, and what a budget allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from irene_build.errors import InputError
from irene_build.measure.clock import PATTERN
from irene_build.meters.base import MeterInfo
from irene_runtime.tree import ModelTree, Node

#: Readings that a window holds at least: below, its ends are worth more than its middle.
MIN_READINGS = 3
#: The paper's window and rounds (section 4): their product is the cap of what a node is measured.
PAPER_WINDOW_S, PAPER_ROUNDS = 20.0, 5
#: Rounds that a meter's own noise is to be averaged over: fewer windows, but longer ones, or more with more around
#: them, take longer where nodes repeat within half a percent or so.
NOISE_ROUNDS = 4
#: A plan fills this share of a budget; the rest is for trials that have to be repeated.
BUDGET_SHARE = 0.9
#: A sensor of a larger duty (share of the time that it looks, as doctor found it) is taken to look all the time.
ALWAYS = 0.95
PARTS = ("all", "leaves")


@dataclass(frozen=True)
class Target:
    """A model at one input size. ``parts``: ``all`` nodes, or ``leaves`` for cheap primitives alone."""

    model: str
    batch_size: int
    seq_len: int
    phase: str = "forward"
    past_len: int = 0
    dtype: str = "float32"
    attention: str = "sdpa"
    parts: str = "all"

    def __str__(self) -> str:
        phase = f"{self.phase} after {self.past_len}" if self.past_len else self.phase
        extra = [] if phase == "forward" else [phase]
        extra += [v for v, usual in ((self.dtype, "float32"), (self.attention, "sdpa")) if v != usual]
        extra += ["leaves"] if self.parts == "leaves" else []
        size = f"{self.model} {self.batch_size}x{self.seq_len}"
        return f"{size} ({', '.join(extra)})" if extra else size


@dataclass(frozen=True)
class MeasurementProtocol:
    """How a node is measured. Times in s, shares relative.

    A trial: a pause of up to ``jitter_s`` (random, so that windows begin at changing phases of a sensor that does
    not always look), settle, idle window (the standby gate), warm-up, window, guard (the node goes on running, so
    that the window's end lies on a plateau). Rounds go over all nodes, in random order, ``min_rounds`` to
    ``max_rounds`` times, until a node's 95 % half-width is at most ``precision``, and no longer than the
    paper's five windows of ``max_window_s``. A meter that says nothing for ``silence_s`` ends the campaign.
    Windows stay short: what differs between rounds (heat, clocks,
    memory, what else runs) is averaged by rounds, hardly by longer windows (benchmarks/bench_protocol.py).
    """

    precision: float = 0.01
    window_s: float = 2.0
    least_window_s: float = 0.5
    max_window_s: float = PAPER_WINDOW_S
    min_rounds: int = 2
    max_rounds: int = 10
    settle_s: float = 0.5
    idle_s: float = 0.5
    warm_s: float = 0.5
    guard_s: float = 0.5
    jitter_s: float = 0.0
    gate_share: float = 0.05
    gate_timeout_s: float = 30.0
    gate_budget: float = 0.15
    max_temperature_c: float = 85.0
    foreign_cores: float = 0.15
    foreign_gpu: float = 0.05
    max_attempts: int = 3
    retry_share: float = 0.25
    standby_s: float = 3.0
    pulse_unit_s: float = 0.5
    pulse_every_s: float = 300.0
    max_leaf_s: float = 0.25
    silence_s: float = 90.0
    seed: int = 0

    @property
    def pulse_s(self) -> float:
        """Length of one load pulse."""
        return self.pulse_unit_s * sum(length for _, length in PATTERN)

    @property
    def most_rounds(self) -> int:
        """``max_rounds``, or as many windows as are within the paper's time for a node."""
        return max(
            1, min(self.max_rounds, math.floor(PAPER_ROUNDS * self.max_window_s / self.window_s + 1e-9))
        )

    def trial_s(self, latency_s: float) -> float:
        """Expected length of a trial of a node that takes ``latency_s``; some runs lie outside the window."""
        runs = max(self.window_s, latency_s)
        return (
            self.jitter_s / 2.0
            + self.settle_s
            + self.idle_s
            + max(self.warm_s, 2.0 * latency_s)
            + runs
            + max(self.guard_s, latency_s)
        )


def protocol_for(
    meter: MeterInfo, noise: float, level: float, precision: float = 0.01, seed: int = 0
) -> MeasurementProtocol:
    """The shortest windows that this meter allows.

    ``noise``: standard deviation of idle readings, ``level``: their mean, both W. The windows of NOISE_ROUNDS
    hold so many readings that noise and quantisation leave half of ``precision``; warm-up and guard last a
    reading and a tenth, so that those at a window's ends see the node alone, and settling until a reading,
    which may arrive a little late, sees it no more.
    """
    period = meter.period_s
    # Somebody else's work on the processor is no part of what a GPU's own meter sees.
    foreign = float(1 << 20) if meter.boundary == "gpu" else MeasurementProtocol.foreign_cores
    spread = math.hypot(noise, meter.quantum / math.sqrt(12.0) if meter.kind == "power" else 0.0)
    wanted = (1.96 * spread / (0.5 * precision * level)) ** 2 if level > 0.0 else 0.0
    least = MIN_READINGS * period if meter.kind == "power" else max(0.4, 5.0 * period)
    window = min(PAPER_WINDOW_S, max(least, wanted * period / NOISE_ROUNDS))
    reading_s = max(period, meter.window_s)
    return MeasurementProtocol(
        precision=precision,
        window_s=window,
        least_window_s=least,
        settle_s=1.25 * reading_s,
        idle_s=0.25 * period if meter.kind == "power" else max(4.0 * period, 0.2),
        warm_s=max(1.1 * reading_s, 0.2),
        guard_s=1.1 * reading_s,
        jitter_s=reading_s if float(meter.details.get("duty", 1.0)) < ALWAYS else 0.0,
        standby_s=max(0.6, 12.0 * period),
        pulse_unit_s=max(0.35 if meter.kind == "energy" else 0.1, 2.0 * reading_s),
        foreign_cores=foreign,
        seed=seed,
    )


def least_seconds(protocol: MeasurementProtocol) -> float:
    """What a campaign of a single trial takes, however fast the node."""
    return (
        protocol.standby_s
        + 2.0 * protocol.pulse_s
        + replace(protocol, window_s=protocol.least_window_s).trial_s(0.0)
    )


@dataclass(frozen=True)
class Work:
    """A distinct node. ``places``: (tree, node) of all the nodes that it stands for; the first is run."""

    key: str
    name: str
    estimate_s: float
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Plan:
    """Everything that a campaign needs to know. ``notes``: what was cut, in plain words."""

    targets: tuple[Target, ...]
    trees: tuple[ModelTree, ...]
    works: tuple[Work, ...]
    protocol: MeasurementProtocol
    budget_s: float | None = None
    notes: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        return sum(len(work.places) for work in self.works)

    def seconds(self, rounds: int | None = None) -> float:
        """Expected measuring time of ``rounds`` rounds (default: the least), pulses and standby included."""
        count = self.protocol.min_rounds if rounds is None else rounds
        trials = count * sum(self.protocol.trial_s(work.estimate_s) for work in self.works)
        pulses = 2 + int(trials / self.protocol.pulse_every_s)
        return trials + pulses * self.protocol.pulse_s + self.protocol.standby_s

    def as_dict(self) -> dict[str, Any]:
        """What ``--dry-run`` says, as plain data."""
        return {
            "targets": [str(target) for target in self.targets],
            "nodes": self.nodes,
            "works": len(self.works),
            "seconds": round(self.seconds(), 1),
            "seconds_at_most": round(self.seconds(self.protocol.most_rounds), 1),
            "budget_s": self.budget_s,
            "protocol": asdict(self.protocol),
            "notes": list(self.notes),
        }


T = TypeVar("T")

#: Gives the tree of a target and, per node, the key under which equal work is measured once (None: not run).
Tracer = Callable[[Target], tuple[ModelTree, Sequence["str | None"]]]


def node_seconds(node: Node, flops_per_s: float, bytes_per_s: float) -> float:
    """A guess at one run, good enough to plan with."""
    kernels = node.features.get("kernels", 1.0)
    compute = node.features.get("flops", 0.0) * 1e6 / flops_per_s
    return 20e-6 * max(1.0, kernels) + compute + node.features.get("mem_bytes", 0.0) * 2**20 / bytes_per_s


def memory_bytes(tree: ModelTree) -> int:
    """What a model needs while its nodes are run, roughly: its parameters and what flows through it."""
    features = tree.nodes[0].features
    width = {"float16": 2, "bfloat16": 2}.get(str(tree.header["dtype"]), 4)
    return int(width * features.get("num_parameters", 0.0) + features.get("mem_bytes", 0.0) * 2**20)


def make_plan(
    targets: Sequence[Target],
    tracer: Tracer,
    protocol: MeasurementProtocol,
    speed: tuple[float, float],
    budget_s: float | None = None,
    arguments: Mapping[str, Any] | None = None,
    labels: int = 0,
) -> Plan:
    """Trace the targets, find the distinct work, and fit the budget.

    ``speed``: (FLOP/s, B/s) of the device, roughly. ``labels``: measure so many nodes only, spread
    over what they do (``_spread``). Raises InputError where there is nothing to measure or the budget does
    not hold even one target.
    """
    if not targets:
        raise InputError("nothing to measure: give a --model and a --grid, or a --plan file")
    unique = tuple(dict.fromkeys(targets))
    for target in unique:
        check_target(target)
    traced = [tracer(target) for target in unique]
    plan = _assemble(unique, traced, protocol, speed, budget_s, arguments or {})
    if not plan.works:
        raise InputError("nothing to measure: no node of these models can be run on its own")
    if labels:
        return replace(plan, works=_spread(plan, labels, speed))
    if budget_s is None or plan.seconds() <= BUDGET_SHARE * budget_s:
        return plan
    return _fit(plan, traced, speed, budget_s)


def compute_share(node: Node, flops_per_s: float, bytes_per_s: float) -> float:
    """The share of a run that computes rather than moves bytes or launches: what sets a run's mean power."""
    compute = node.features.get("flops", 0.0) * 1e6 / flops_per_s
    return compute / node_seconds(node, flops_per_s, bytes_per_s)


def evenly(ranked: Sequence[T], count: int) -> list[T]:
    """``count`` of them, evenly over their rank, the first and the last among them; the last where it is one."""
    if count >= len(ranked):
        return list(ranked)
    last = len(ranked) - 1
    return [ranked[round(k * last / (count - 1)) if count > 1 else last] for k in range(count)]


def _spread(plan: Plan, count: int, speed: tuple[float, float]) -> tuple[Work, ...]:
    """``count`` works, evenly from those that move bytes to those that compute; in the plan's order.

    An estimator that is carried over learns watts and joules a joule of the GPU from them, which only nodes of
    different mean power tell apart.
    """

    def rank(work: Work) -> tuple[float, float]:
        tree, index = work.places[0]
        return compute_share(plan.trees[tree].nodes[index], *speed), work.estimate_s

    chosen = {work.key for work in evenly(sorted(plan.works, key=rank), count)}
    return tuple(work for work in plan.works if work.key in chosen)


def check_target(target: Target) -> None:
    """Raises InputError that names the size that is wrong."""
    for name, low in (("batch_size", 1), ("seq_len", 1), ("past_len", 0)):
        value = getattr(target, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= 2**20:
            raise InputError(
                f"{target.model}: {name} is {value!r}, expected a whole number from {low} to {2**20}"
            )
    if target.parts not in PARTS:
        raise InputError(f"{target.model}: parts is {target.parts!r}, expected one of {', '.join(PARTS)}")


def _assemble(
    targets: Sequence[Target],
    traced: Sequence[tuple[ModelTree, Sequence[str | None]]],
    protocol: MeasurementProtocol,
    speed: tuple[float, float],
    budget_s: float | None,
    arguments: Mapping[str, Any],
) -> Plan:
    places: dict[str, list[tuple[int, int]]] = {}
    names: dict[str, tuple[str, float]] = {}
    for number, (target, (tree, keys)) in enumerate(zip(targets, traced, strict=True)):
        for index, (node, key) in enumerate(zip(tree.nodes, keys, strict=True)):
            if key is None:
                continue
            seconds = node_seconds(node, *speed)
            cheap = node.level == "ml" and seconds <= protocol.max_leaf_s
            if target.parts == "leaves" and not cheap:
                continue
            places.setdefault(key, []).append((number, index))
            names.setdefault(key, (f"{target.model} {node.name}", seconds))
    works = tuple(Work(key, *names[key], tuple(where)) for key, where in places.items())
    trees = tuple(tree for tree, _ in traced)
    return Plan(tuple(targets), trees, works, protocol, budget_s, (), dict(arguments))


def _fit(
    plan: Plan,
    traced: Sequence[tuple[ModelTree, Sequence[str | None]]],
    speed: tuple[float, float],
    budget_s: float,
) -> Plan:
    """First fewer rounds, then shorter windows, then fewer grid points, dearest first.

    The last target of a model goes last.
    """
    notes = []
    room_s = BUDGET_SHARE * budget_s
    protocol = plan.protocol
    if protocol.min_rounds > 1:
        protocol = replace(protocol, min_rounds=1)
        notes.append(
            f"{budget_s:g} s are enough to measure every node once, not {plan.protocol.min_rounds} times; "
            "what time remains is used to repeat"
        )
    if replace(plan, protocol=protocol).seconds() > room_s and protocol.window_s > protocol.least_window_s:
        notes.append(
            f"windows are cut to {protocol.least_window_s:.2f} s; this meter needs {protocol.window_s:.2f} s "
            f"for +/- {100.0 * protocol.precision:g} %"
        )
        protocol = replace(protocol, window_s=protocol.least_window_s)
    kept = list(range(len(plan.targets)))

    def build(indices: Sequence[int]) -> Plan:
        targets = [plan.targets[i] for i in indices]
        return _assemble(targets, [traced[i] for i in indices], protocol, speed, budget_s, plan.arguments)

    fitted = build(kept)
    dropped = []
    while fitted.seconds() > room_s:
        if len(kept) == 1:
            raise InputError(
                f"a budget of {budget_s:g} s is too short: {plan.targets[kept[0]]} alone needs "
                f"{fitted.seconds() / BUDGET_SHARE:.0f} s; give more time or smaller sizes"
            )
        models = [plan.targets[i].model for i in kept]
        spare = [i for i in kept if models.count(plan.targets[i].model) > 1] or kept
        without = {i: build([j for j in kept if j != i]) for i in spare}
        # Of equal savings the later one goes: a grid is written with what matters first.
        worst = min(spare, key=lambda i: (without[i].seconds(), -i))
        kept.remove(worst)
        dropped.append(str(plan.targets[worst]))
        fitted = without[worst]
    if dropped:
        notes.append(f"left out to fit {budget_s:g} s: {', '.join(dropped)}")
    return replace(fitted, notes=tuple(notes))
