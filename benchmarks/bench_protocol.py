"""Meter time and label error: the paper's fixed protocol against ours, same nodes, on a simulated PC.

    python benchmarks/bench_protocol.py [--nodes 200] [--precision 0.004,0.005,0.006,0.007,0.01,0.02] [--json]
        [--repeatability 0.005]
    python benchmarks/bench_protocol.py --real [--scale 0.1] [--model M] [--grid 1x16] [--nodes 6]
        [--precision 0.01] [--json]

The paper runs each node for 20 s in each of five rounds. Ours is what `calibrate` would do. Everything is
simulated, so the truth is known. "label error": mean of |label - truth| / truth over nodes; "inside": the share of
nodes whose truth lies within the 95 % half-width that is stated with the label; "stated": its median.

By default time is simulated as well (benchmarks/virtual_time.py): hours of both protocols, whole, in a minute.

``--real`` measures real nodes by the virtual PC's meter in real time, the paper's windows shortened by
``--scale``. The truth is then the virtual PC's formula, without noise and quantisation, over the same /proc/stat
ticks and the same windows: "label error" is the meter's alone, and "between rounds", the standard deviation of a
node's rounds, tells what somebody else's load on this machine did to both.
"""

from __future__ import annotations

import argparse
import bisect
import json
import math
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, pstdev, stdev
from typing import Any

from irene_build.calibrate.targets import parse_grid, trace_target
from irene_build.calibrate.workload import ReplayWorkload, free_bytes
from irene_build.hardware import load_profile
from irene_build.hardware.virtual_pc import Model, cpu_shares
from irene_build.measure.campaign import Campaign
from irene_build.measure.device import open_device
from irene_build.measure.journal import Journal
from irene_build.measure.plan import (
    PAPER_ROUNDS,
    PAPER_WINDOW_S,
    MeasurementProtocol,
    Target,
    make_plan,
    protocol_for,
)
from irene_build.measure.start import start_journal
from irene_build.meters import open_meter
from irene_build.meters.assess import idle_noise
from irene_runtime.sampler import Sampler

try:
    from benchmarks import virtual_time
except ImportError:  # run as a file
    import virtual_time  # type: ignore[import-not-found,no-redef]


class Truth:
    """Integrates the virtual PC's formula over this machine's ticks, without noise and quantisation."""

    def __init__(self, settings: dict[str, Any], period_s: float) -> None:
        self._model, self._period = Model(settings), period_s
        self.times: list[float] = [time.monotonic()]
        self.joules: list[float] = [0.0]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Truth:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        ticks = cpu_shares()
        while not self._stop.wait(self._period):
            now, before, ticks = time.monotonic(), ticks, cpu_shares()
            total = max(1, ticks[2] - before[2])
            user, system = ((b - a) / total for a, b in zip(before[:2], ticks[:2], strict=True))
            seconds = now - self.times[-1]
            watts = self._model.wall_w(min(1.0, max(0.0, user)), min(1.0, max(0.0, system)), seconds)
            self.times.append(now)
            self.joules.append(self.joules[-1] + watts * seconds)

    def between(self, start_s: float, end_s: float) -> float:
        return self._at(end_s) - self._at(start_s)

    def _at(self, when: float) -> float:
        i = min(max(bisect.bisect_left(self.times, when), 1), len(self.times) - 1)
        share = (when - self.times[i - 1]) / (self.times[i] - self.times[i - 1])
        return self.joules[i - 1] + share * (self.joules[i] - self.joules[i - 1])


def as_in_the_paper(protocol: MeasurementProtocol, scale: float = 1.0) -> MeasurementProtocol:
    """Five rounds of its windows, straight from standby, with nothing around them."""
    window = PAPER_WINDOW_S * scale
    return replace(
        protocol, window_s=window, max_window_s=window, min_rounds=PAPER_ROUNDS, max_rounds=PAPER_ROUNDS,
        precision=1e-9, guard_s=0.0, warm_s=0.0,
    )  # fmt: skip


_HEADER = {"hardware": "virtual", "boundary": "wall", "provenance": "simulated"}


def simulate(
    name: str, precision: float, count: int, repeatability: float, folder: Path, seed: int
) -> dict[str, Any]:
    """One campaign in simulated time; what it took, how far its labels are off, and what they state."""
    profile = load_profile("virtual")
    nodes = virtual_time.draw_nodes(count, seed)
    pc = virtual_time.Pc(dict(profile.meter["model"]), float(profile.meter["period_s"]), seed)
    meter = virtual_time.Meter(pc, float(profile.meter["window_s"]))
    pc.sleep(3.0)
    idle = sorted(reading.value for reading in meter.read_new(0.0)[-10:])[:5]
    protocol = protocol_for(meter.info, pstdev(idle), fmean(idle), precision, seed)
    if name == "paper":
        protocol = as_in_the_paper(protocol)
    plan = make_plan(
        [Target("simulated", 1, 1)], virtual_time.tree_of(nodes), protocol, (virtual_time.SPEED, 1e9)
    )
    with virtual_time.instead_of_time(pc), Journal(folder / f"{name}{precision}.sqlite") as journal:
        start_journal(journal, plan, {**_HEADER, "label_source": "virtual"})
        began = pc.monotonic()
        workload = virtual_time.Workload(pc, nodes, repeatability, seed)
        args = (virtual_time.Sampler(pc), virtual_time.Device(pc), workload)
        Campaign(journal, meter, *args, lambda *_: None, {}).run()
        seconds = pc.monotonic() - began
        rows = journal.rows(
            "SELECT trial.work, trial.start_ns, trial.end_ns FROM label JOIN trial ON trial.id = label.trial"
        )
        result = journal.rows("SELECT work, energy_j, half_width, trials FROM result ORDER BY work")
        spent = journal.rows("SELECT SUM(end_ns - start_ns) / 1e9, COUNT(*) FROM trial")[0]
    watts: dict[int, list[float]] = {}
    for work, start, end in rows:
        watts.setdefault(work, []).append(pc.power_w(start / 1e9, end / 1e9))
    errors = [energy / (fmean(watts[work]) * nodes[work][0]) - 1.0 for work, energy, _, _ in result]
    widths = [half for _, _, half, _ in result]
    return {
        "protocol": name, "precision": None if name == "paper" else precision, "nodes": len(result),
        "trials": spent[1], "meter_s": seconds, "window_s": spent[0], "rounds": fmean(row[3] for row in result),
        "label_error": fmean(map(abs, errors)), "worst_label_error": max(map(abs, errors)),
        "bias": fmean(errors), "stated_half_width": median(widths),
        "reached": fmean(half <= precision for half in widths),
        "inside": fmean(abs(e) <= half for e, half in zip(errors, widths, strict=True)),
    }  # fmt: skip


def measure(
    name: str, targets: list[Target], nodes: int, folder: Path, scale: float, precision: float
) -> dict[str, Any]:
    """One campaign over real nodes in real time; what it took and how far its labels are from the truth."""
    profile, device = load_profile("virtual"), open_device("cpu")
    settings = dict(profile.meter["model"])
    with Truth(settings, float(profile.meter["period_s"])) as truth, open_meter(profile) as meter:
        noise, level = idle_noise(meter)
        protocol = protocol_for(meter.info, noise, level, precision, seed=1)
        if name == "paper":
            protocol = as_in_the_paper(protocol, scale)
        plan = make_plan(targets, trace_target, protocol, device.speed(), labels=nodes)
        with Journal(folder / f"{name}.sqlite") as journal:
            start_journal(journal, plan, {**_HEADER, "label_source": meter.info.name})
            workload = ReplayWorkload("cpu", free_bytes("cpu"))
            began = time.monotonic()
            Campaign(journal, meter, Sampler(), device, workload, lambda *_: None, {}).run()
            seconds = time.monotonic() - began
            time.sleep(0.5)
            rows = journal.rows(
                "SELECT trial.work, trial.start_ns, trial.end_ns, trial.runs, label.energy_j FROM label"
                " JOIN trial ON trial.id = label.trial ORDER BY trial.id"
            )
            windows = journal.rows("SELECT SUM(end_ns - start_ns) / 1e9, COUNT(*) FROM trial")[0]
    by_work: dict[int, list[tuple[float, float]]] = {}
    for work, start, end, runs, label in rows:
        by_work.setdefault(work, []).append((label, truth.between(start / 1e9, end / 1e9) / runs))
    pairs = [tuple(zip(*found, strict=True)) for found in by_work.values()]
    errors = [abs(fmean(labels) / fmean(true) - 1.0) for labels, true in pairs]
    spread = [stdev(labels) / fmean(labels) for labels, _ in pairs if len(labels) > 1]
    full = None
    if name == "paper":
        full = seconds + windows[1] * PAPER_WINDOW_S * (1.0 - scale)
    return {
        "protocol": name, "nodes": len(by_work), "trials": windows[1], "meter_s": seconds,
        "window_s": windows[0], "meter_s_unscaled": full or seconds, "label_error": fmean(errors),
        "worst_label_error": max(errors), "between_rounds": fmean(spread) if spread else math.nan,
    }  # fmt: skip


def show_simulated(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fixed = (options.nodes, options.repeatability, Path(folder), options.seed)
        cases = [("paper", 0.01), *(("ours", p) for p in sorted(options.precision))]
        found = [simulate(name, precision, *fixed) for name, precision in cases]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"simulated PC in simulated time, {options.nodes} nodes whose trials repeat within "
        f"{100 * options.repeatability:g} %"
    )
    print(
        f"{'':14}{'meter time':>11}{'of paper':>9}{'rounds':>8}{'label error':>12}{'worst':>8}{'bias':>8}"
        f"{'stated':>8}{'inside':>8}{'reached':>9}"
    )
    for row in found:
        precision = "" if row["precision"] is None else f" +/- {100 * row['precision']:g} %"
        reached = "" if row["precision"] is None else f"{100 * row['reached']:7.0f} %"
        print(
            f"{row['protocol'] + precision:14}{row['meter_s']:9.0f} s"
            f"{100 * row['meter_s'] / found[0]['meter_s']:7.1f} %{row['rounds']:8.1f}"
            f"{100 * row['label_error']:10.2f} %{100 * row['worst_label_error']:6.2f} %"
            f"{100 * row['bias']:6.2f} %{100 * row['stated_half_width']:6.2f} %{100 * row['inside']:6.0f} %{reached}"
        )


def show_real(options: argparse.Namespace) -> None:
    targets = [Target(options.model, b, s) for b, s in parse_grid(options.grid)]
    with tempfile.TemporaryDirectory() as folder:
        settings = (targets, min(options.nodes, 6), Path(folder), options.scale)
        found = [measure("paper", *settings, 0.01)]
        found += [measure("ours", *settings, precision) for precision in options.precision]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"simulated PC, {found[0]['nodes']} nodes of {options.model}, paper's windows x {options.scale:g}")
    print(
        f"{'':8}{'meter time':>12}{'unscaled':>12}{'trials':>8}{'label error':>13}{'worst':>8}{'rounds':>9}"
    )
    for row in found:
        print(
            f"{row['protocol']:8}{row['meter_s']:10.1f} s{row['meter_s_unscaled']:10.1f} s{row['trials']:8d}"
            f"{100 * row['label_error']:11.2f} %{100 * row['worst_label_error']:6.2f} %"
            f"{100 * row['between_rounds']:7.2f} %"
        )
    for row in found[1:]:
        print(
            f"ours takes {100 * row['meter_s'] / found[0]['meter_s_unscaled']:.1f} % of the paper's meter time"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=200, help="at most 6 in real time")
    parser.add_argument("--precision", default="", help="where ours stops; the paper's does not")
    parser.add_argument("--repeatability", type=float, default=0.005, help="1 sigma between trials")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="real nodes in real time")
    parser.add_argument("--scale", type=float, default=0.1, help="of the paper's windows, in real time")
    parser.add_argument("--model", default="bert_uncased_L-2_H-128_A-2")
    parser.add_argument("--grid", default="1x16")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    precision = options.precision or ("0.01" if options.real else "0.004,0.005,0.006,0.007,0.01,0.02")
    options.precision = [float(word) for word in precision.split(",")]
    (show_real if options.real else show_simulated)(options)


if __name__ == "__main__":
    main()
