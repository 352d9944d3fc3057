"""Meter time and label error: the paper's fixed protocol against ours, same nodes, on the virtual PC.

    python benchmarks/bench_protocol.py [--scale 0.1] [--model M] [--grid 1x16] [--nodes 6]
        [--precision 0.01] [--json]

The paper runs each node for 20 s in each of five rounds; ``--scale`` shortens its windows (1 = as published).
Ours is what `calibrate` would do. Everything is simulated, so the truth is known: the virtual PC's own
formula, without noise and quantisation, over the same /proc/stat ticks. "label error" is the mean of
|label - truth| / truth over nodes, truth and label from the same windows; "between rounds" is the
standard deviation of a node's rounds, which somebody else's load on this machine widens for both.
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
from statistics import fmean, stdev
from typing import Any

from irene_build.commands import _calibration as parts
from irene_build.hardware import load_profile
from irene_build.hardware.virtual_pc import Model, cpu_shares
from irene_build.measure.campaign import Campaign, start_journal
from irene_build.measure.device import open_device
from irene_build.measure.journal import Journal
from irene_build.measure.plan import PAPER_ROUNDS, PAPER_WINDOW_S, Target, make_plan, protocol_for
from irene_build.meters import open_meter
from irene_runtime.sampler import Sampler


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


def measure(
    name: str, targets: list[Target], nodes: int, folder: Path, scale: float, precision: float
) -> dict[str, Any]:
    """One campaign over the nodes; what it took and how far its labels are from the truth."""
    profile, device = load_profile("virtual"), open_device("cpu")
    settings = dict(profile.meter["model"])
    with Truth(settings, float(profile.meter["period_s"])) as truth, open_meter(profile) as meter:
        noise, level = parts.idle_noise(meter)
        protocol = protocol_for(meter.info, noise, level, precision, seed=1)
        if name == "paper":
            window = PAPER_WINDOW_S * scale
            protocol = replace(
                protocol, window_s=window, max_window_s=window, min_rounds=PAPER_ROUNDS,
                max_rounds=PAPER_ROUNDS, precision=1e-9, guard_s=0.0, warm_s=0.0,
            )  # fmt: skip
        plan = make_plan(targets, parts.trace_target, protocol, device.speed(), labels=nodes)
        with Journal(folder / f"{name}.sqlite") as journal:
            header = {"hardware": "virtual", "boundary": "wall", "provenance": "simulated"}
            start_journal(journal, plan, {**header, "label_source": meter.info.name})
            workload = parts.ReplayWorkload("cpu", parts.free_bytes("cpu"))
            began = time.monotonic()
            quiet = lambda *_: None  # noqa: E731
            Campaign(journal, meter, Sampler(), device, workload, quiet, {}).run()
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--model", default="bert_uncased_L-2_H-128_A-2")
    parser.add_argument("--grid", default="1x16")
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument(
        "--precision", type=float, default=0.01, help="where ours stops; the paper's does not"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    targets = [Target(options.model, b, s) for b, s in parts.parse_grid(options.grid)]
    with tempfile.TemporaryDirectory() as folder:
        settings = (targets, options.nodes, Path(folder), options.scale, options.precision)
        found = [measure(name, *settings) for name in ("paper", "ours")]
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
    paper, ours = found
    print(f"ours takes {100 * ours['meter_s'] / paper['meter_s_unscaled']:.1f} % of the paper's meter time")


if __name__ == "__main__":
    main()
