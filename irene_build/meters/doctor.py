"""What a PC can measure, and how well: all meters side by side over one idle window, and the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from irene_build.errors import IreneError
from irene_build.hardware import HardwareProfile, machine
from irene_build.meters.assess import assess
from irene_build.meters.base import Finding, Meter
from irene_build.meters.nvml import characterise, store_counter
from irene_build.meters.registry import find_meters, open_finding, open_meter
from irene_runtime.sampler import Sampler

#: What a meter counts that is no fault of it.
_HARMLESS = ("banner", "bunched")


def examine(
    profile: HardwareProfile | None, seconds: float, progress: Callable[[float], None] = lambda done: None
) -> dict[str, Any]:
    """Plain data for ``doctor``: ``meters``, ``missing``, ``checks``, ``best``, ``seconds``.

    With a profile, its own meter must be here (HardwareError); other meters are looked at beside it.
    """
    findings = find_meters(listen_s=min(12.0, max(2.0, seconds)))
    single = [f for f in findings if f.available and "+" not in f.name]
    if profile is not None:
        single = [f for f in single if f.name != profile.meter["driver"]]
    with ExitStack() as stack:
        opened: dict[str, Meter] = {}
        if profile is not None:
            opened[str(profile.meter["driver"])] = stack.enter_context(open_meter(profile))
        for finding in single:
            opened[finding.name] = stack.enter_context(open_finding(finding))
        sampler = stack.enter_context(Sampler(min(0.17, seconds / 10)))
        before, start = machine.process_times(), time.monotonic_ns()
        if opened:
            figures = assess(opened, seconds, progress)
        else:
            figures = {}
            _wait(seconds, progress)
        after, end = machine.process_times(), time.monotonic_ns()
        load = sampler.summary(start, end).get("cpu_util")
        meters = [
            {
                **meter.info.as_dict(),
                **figures[name].as_dict(),
                "faults": {k: n for k, n in meter.counters().items() if n and k not in _HARMLESS},
                "advice": _advice(meter, figures[name].shortest_window_s),
            }
            for name, meter in opened.items()
        ]
    busiest = machine.busiest_processes(before, after, (end - start) / 1e9)
    best = meters[0] if meters else None
    standby = best["power_w"] if best else None
    label = f" ({best['boundary']}, {best['provenance']})" if best else ""
    checks = [
        machine.check_load(load, busiest),
        machine.check_standby(standby, profile.standby_power_w if profile else None, label),
        *machine.check_machine(),
    ]
    found = {
        "hardware": profile.name if profile else None,
        "seconds": seconds,
        "best": best["name"] if best else None,
        "meters": meters,
        "missing": [_missing(f) for f in findings if not f.available and f.name not in opened],
        "sums": [{"name": f.name, "boundary": f.boundary} for f in findings if f.available and "+" in f.name],
        "checks": [check.as_dict() for check in checks],
        "wall_less_parts_w": _unseen(meters),
    }
    if "nvml" in opened:
        found["nvml_counter"] = _counter(seconds)
    return found


def _counter(seconds: float) -> dict[str, Any]:
    try:
        figures = characterise({}, min(seconds, 10.0))
    except IreneError as error:
        return {"error": str(error)}
    figures["stored_in"] = str(store_counter(figures))
    return figures


def _missing(finding: Finding) -> dict[str, str]:
    return {"name": finding.name, "boundary": finding.boundary, "reason": finding.reason}


def _unseen(meters: list[dict[str, Any]]) -> float | None:
    """Idle watts at the wall that neither RAPL nor NVML sees, where all are here."""
    power = {m["name"]: m["power_w"] for m in meters}
    wall = [m["power_w"] for m in meters if m["boundary"] == "wall" and m["provenance"] != "simulated"]
    parts = [power[name] for name in ("rapl", "nvml") if power.get(name) is not None]
    return wall[0] - sum(parts) if wall and wall[0] is not None and parts else None


def _advice(meter: Meter, window_s: float | None) -> str:
    info, faults = meter.info, meter.counters()
    lines = []
    if window_s is None:
        lines.append("too few readings: give --seconds more than ten of its periods")
    elif window_s > 60.0:
        lines.append(f"slow: a trial takes {window_s:.0f} s for 1 %; a faster meter or firmware saves time")
    if info.power_kind == "apparent" and info.provenance != "simulated":
        lines.append(
            "it gives apparent power (V x I): real power is less where the supply has no power factor of 1"
        )
    if info.name == "emonpi" and int(info.details.get("ct_turns", 1)) == 1:
        lines.append("below 10 A a clamp is out of its range: pass the conductor through N times (ct_turns)")
    if any(name in str(info.details.get("gpu", "")) for name in ("A100", "H100", "H200")):
        lines.append(
            "its power is sampled a quarter of the time (arXiv 2312.02741): repeat, and shift the window"
        )
    lost = sum(faults.get(name, 0) for name in ("missing", "torn", "undecodable"))
    if lost:
        lines.append(f"{lost} frames were lost or torn: look at the cable and its length")
    return "; ".join(lines)


def _wait(seconds: float, progress: Callable[[float], None]) -> None:
    start = time.monotonic()
    while (done := time.monotonic() - start) < seconds:
        time.sleep(min(0.1, seconds - done))
        progress(done)
