"""Do two campaigns on the same PC give the same joules, and do their stated errors say how far they are apart?

    python benchmarks/bench_repeatability.py [--pc modelled|virtual] [--campaigns 3] [--nodes 24]
        [--precision 0.01] [--json]

The same nodes are measured several times, by `calibrate`'s own campaign with the real emonPi driver on a
pseudo-terminal; each time the seed of the order, the meter's noise, its clock (seconds off, up to 200 ppm of
drift) and the phase of its frames are others. Everything is simulated energy.

``modelled``: nodes only draw power, for set times, on a PC whose leakage grows as it warms (the constants of the
simulated PC: 3 %, 90 s) and whose run times and powers vary from window to window. Campaigns run beside each
other, since nothing computes. ``virtual``: real nodes on this machine's processor, one campaign after the other,
under the simulated PC; what else this machine does is in the disagreement.

Per pair of campaigns and node, the disagreement is 2 |a - b| / (a + b). "Inside" is the share of pairs whose
disagreement is at most sqrt(ha^2 + hb^2), the stated 95 % half-widths; it should be 95 %.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from irene_build.calibrate.targets import parse_grid, trace_target
from irene_build.calibrate.workload import ReplayWorkload, free_bytes
from irene_build.hardware import HardwareProfile, load_profile
from irene_build.hardware.virtual_pc import Model, frame
from irene_build.measure.campaign import Campaign
from irene_build.measure.device import open_device
from irene_build.measure.journal import Journal
from irene_build.measure.plan import PAPER_ROUNDS, PAPER_WINDOW_S, Target, make_plan, protocol_for
from irene_build.measure.start import start_journal
from irene_build.meters import open_meter
from irene_build.meters.assess import idle_noise
from irene_runtime.sampler import Sample, Sampler
from irene_runtime.tree import ModelTree, Node

#: Standard deviation between windows of a node's run time and power, relative.
RUN_TIME_SPREAD, POWER_SPREAD = 0.003, 0.003
#: How far this machine may be behind before the modelled one waits for it.
_STALL_NS = 80_000_000


class ModelledPc:
    """Watts over time. Nodes are set on it by their busy share; it warms and cools as the simulated PC does."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._model = Model(settings)
        self._lock = threading.Lock()
        # Changes of the busy share that the meter has not come to yet, in the order of time.
        self._changes: list[tuple[int, float]] = []
        self._at, self._share = time.monotonic_ns(), 0.0

    def set(self, share: float, at_ns: int) -> None:
        with self._lock:
            self._changes.append((at_ns, share))

    def mean_w(self, until_ns: int) -> float:
        """Mean power since the last call."""
        start, joules = self._at, 0.0
        with self._lock:
            due = [change for change in self._changes if change[0] < until_ns]
            del self._changes[: len(due)]
        for at, share in [*due, (until_ns, -1.0)]:
            seconds = max(0, at - self._at) / 1e9
            joules += self._model.wall_w(self._share, 0.0, seconds) * seconds
            self._at = max(at, self._at)
            if share >= 0.0:
                self._share = share
        return joules / ((until_ns - start) / 1e9)

    def amperes(self, watts: float) -> tuple[float, float]:
        return self._model.meter(watts)


class Line:
    """The meter: frames on a pseudo-terminal, half a frame behind, as any meter is. ``port`` is what to open."""

    def __init__(self, pc: ModelledPc, settings: dict[str, Any], period_s: float) -> None:
        self._pc, self._settings, self._period_ns = pc, settings, round(period_s * 1e9)
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(slave)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Line:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        # What changed in a frame is known for certain a little later; any meter's frames come late.
        start = due = time.monotonic_ns() + round(random.random() * self._period_ns)
        while not self._stop.is_set():
            due += self._period_ns
            time.sleep(max(0.0, (due + _STALL_NS - time.monotonic_ns()) / 1e9))
            drift = 1.0 + 1e-6 * self._settings["clock_drift_ppm"]
            clock = self._settings["clock_offset_s"] + drift * (due - start) / 1e9
            with suppress(BlockingIOError):
                os.write(self._master, frame(clock, *self._pc.amperes(self._pc.mean_w(due))))


class ModelledDevice:
    name = "cpu"

    def __init__(self, pc: ModelledPc) -> None:
        self._pc = pc

    def synchronize(self) -> None:
        pass

    def burn(self, seconds: float) -> None:
        self._pc.set(1.0, time.monotonic_ns())
        time.sleep(seconds)
        self._pc.set(0.0, time.monotonic_ns())

    def speed(self) -> tuple[float, float]:
        return 1e9, 1e9


class ModelledNodes:
    """Node ``i``: a run time between 1 and 200 ms and a busy share between 0.1 and 1, set by its number."""

    def __init__(self, pc: ModelledPc, chance: random.Random) -> None:
        self._pc, self._chance = pc, chance

    def holds(self, sizes: Sequence[int]) -> bool:
        return True

    def runner(self, target: Target, node: int, wanted: list[int]) -> Callable[[], None]:
        fixed = random.Random(node)
        seconds = 0.001 * 200.0 ** fixed.random() * self._chance.gauss(1.0, RUN_TIME_SPREAD)
        share = (0.1 + 0.9 * fixed.random()) * self._chance.gauss(1.0, POWER_SPREAD)
        free_ns = 0

        def run() -> None:
            nonlocal free_ns
            now = time.monotonic_ns()
            # Runs follow each other without a gap, unless this machine held them up.
            start = free_ns if 0 <= now - free_ns < _STALL_NS else now
            free_ns = start + round(seconds * 1e9)
            self._pc.set(share, start)
            time.sleep(max(0.0, (free_ns - time.monotonic_ns()) / 1e9))
            self._pc.set(0.0, free_ns)

        return run


class Looking(Sampler):
    """Without processor ticks: what else runs here is no load of the modelled PC."""

    def sample(self) -> Sample:
        return super().sample()._replace(cpu_busy_ticks=None, cpu_total_ticks=None)


def modelled_tree(target: Target, nodes: int) -> tuple[ModelTree, list[str | None]]:
    size = {"batch_size": 1.0, "seq_len": 8.0}
    tree = [Node("", "Modelled", "model", -1, features=dict(size))]
    tree += [Node(f"n{i}", "Linear", "ml", 0, "Linear", features=dict(size)) for i in range(nodes - 1)]
    header = {"model": target.model, "batch_size": 1, "seq_len": 8}
    return ModelTree(tree, header), [f"node{i}" for i in range(nodes)]


def meter_settings(number: int) -> dict[str, Any]:
    """The simulated PC's constants with the noise and the clock of one campaign."""
    chance = random.Random(f"meter {number}")
    clock = {
        "clock_offset_s": 3.0 * chance.random() + 0.1,
        "clock_drift_ppm": chance.uniform(-200.0, 200.0),
    }
    return {**load_profile("virtual").meter["model"], "seed": 1000 + number, **clock}


def campaign(options: argparse.Namespace, number: int) -> dict[str, Any]:
    """One campaign; nodes' joules and half-widths, and what it took."""
    virtual, settings = load_profile("virtual"), meter_settings(number)
    if options.pc == "virtual":
        profile = replace(virtual, meter={**virtual.meter, "model": settings})
        workload = ReplayWorkload("cpu", free_bytes("cpu"))
        targets = [Target(options.model, b, s) for b, s in parse_grid(options.grid)]
        device = open_device("cpu")
        return measure(options, number, profile, device, workload, Sampler(), targets, trace_target)
    pc = ModelledPc(settings)
    with Line(pc, settings, float(virtual.meter["period_s"])) as line:
        meter = {**virtual.meter, "driver": "emonpi", "port": line.port, "baud": 115200}
        del meter["model"]
        profile = HardwareProfile("modelled", "a PC that only draws power", "cpu", meter=meter)
        workload, device = ModelledNodes(pc, random.Random(f"runs {number}")), ModelledDevice(pc)
        tracer = lambda target: modelled_tree(target, options.nodes)  # noqa: E731
        targets = [Target("modelled", 1, 8)]
        return measure(options, number, profile, device, workload, Looking(), targets, tracer)


def measure(
    options: argparse.Namespace, number: int, profile: HardwareProfile, device: Any, workload: Any,
    sampler: Any, targets: list[Target], tracer: Any,
) -> dict[str, Any]:  # fmt: skip
    path = Path(options.folder or ".") / f"campaign-{number}.sqlite"
    with open_meter(profile) as meter, Journal(path) as journal:
        noise, level = idle_noise(meter)
        protocol = protocol_for(meter.info, noise, level, options.precision, seed=number)
        plan = make_plan(targets, tracer, protocol, device.speed(), labels=options.nodes)
        header = {"hardware": "virtual", "boundary": "wall", "provenance": "simulated", "label_source": "x"}
        start_journal(journal, plan, header)
        began = time.monotonic()
        Campaign(journal, meter, sampler, device, workload, lambda *_: None, {}).run()
        seconds = time.monotonic() - began
        names = dict(journal.rows("SELECT id, key FROM work"))
        results = journal.rows("SELECT work, energy_j, half_width, trials FROM result")
    return {
        "seconds": seconds,
        "trials": sum(row[3] for row in results),
        "nodes": {names[work]: [energy, half] for work, energy, half, _ in results},
    }


def compare(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Disagreement of all pairs of campaigns over the nodes that both have."""
    apart, inside, by_node = [], [], {}
    for a, b in itertools.combinations(found, 2):
        for name in a["nodes"].keys() & b["nodes"].keys():
            (first, first_half), (second, second_half) = a["nodes"][name], b["nodes"][name]
            gap = 2.0 * abs(first - second) / (first + second)
            apart.append(gap)
            by_node.setdefault(name, []).append(gap)
            if first_half is not None and second_half is not None:
                inside.append(gap <= math.hypot(first_half, second_half))
    apart.sort()
    halves = [half for one in found for _, half in one["nodes"].values() if half is not None]
    paper_s = len(by_node) * PAPER_ROUNDS * PAPER_WINDOW_S
    return {
        "campaigns": len(found),
        "nodes": len(by_node),
        "pairs": len(apart),
        "within_1_percent": sum(gap <= 0.01 for gap in apart) / len(apart),
        "nodes_within_1_percent": sum(max(gaps) <= 0.01 for gaps in by_node.values()) / len(by_node),
        "median": median(apart),
        "p95": apart[min(len(apart) - 1, math.ceil(0.95 * len(apart)) - 1)],
        "worst": apart[-1],
        "inside": sum(inside) / len(inside) if inside else math.nan,
        "half_width_median": median(halves) if halves else math.nan,
        "seconds": [one["seconds"] for one in found],
        "trials": [one["trials"] for one in found],
        "paper_windows_s": paper_s,
        "share_of_paper": sum(one["seconds"] for one in found) / len(found) / paper_s,
    }


def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Modelled campaigns beside each other, virtual ones one after the other; a process each."""
    with tempfile.TemporaryDirectory() as folder:
        found, waiting = [], []
        for number in range(1, options.campaigns + 1):
            command = [sys.executable, __file__, *sys.argv[1:], "--one", str(number), "--folder", folder]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            waiting.append(process)
            if options.pc == "virtual":
                process.wait()
        for process in waiting:
            out = process.communicate()[0]
            if process.returncode:
                raise SystemExit(f"a campaign failed with code {process.returncode}")
            found.append(json.loads(out))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pc", choices=("modelled", "virtual"), default="modelled")
    parser.add_argument("--campaigns", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=24)
    parser.add_argument("--precision", type=float, default=0.01)
    parser.add_argument("--model", default="bert_uncased_L-2_H-128_A-2", help="of --pc virtual")
    parser.add_argument("--grid", default="1x16", help="of --pc virtual")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        # What the modelled PC and its meter do must not depend on what else runs here, where that can be had.
        if options.pc == "modelled":
            with suppress(OSError):
                os.nice(-10)
        print(json.dumps(campaign(options, options.one)))
        return
    result = compare(run_all(options))
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{options.pc} PC (simulated energy), {result['campaigns']} campaigns of {result['nodes']} nodes")
    print(f"labels that agree within 1 %   {100 * result['within_1_percent']:8.1f} % of pairs")
    print(f"nodes whose labels all do      {100 * result['nodes_within_1_percent']:8.1f} %")
    print(f"disagreement median/p95/worst  {100 * result['median']:8.2f} / {100 * result['p95']:.2f} /"
          f" {100 * result['worst']:.2f} %")  # fmt: skip
    print(f"stated half-width, median      {100 * result['half_width_median']:8.2f} %")
    print(f"inside the stated half-widths  {100 * result['inside']:8.1f} % of pairs (95 % is right)")
    seconds = ", ".join(f"{s:.0f} s" for s in result["seconds"])
    print(f"meter time                     {seconds}: {100 * result['share_of_paper']:.1f} % of the paper's "
          f"{result['paper_windows_s']:.0f} s of windows")  # fmt: skip


if __name__ == "__main__":
    main()
