"""What a PC can measure, and how well: all meters side by side over one idle window, and the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

from irene_build.errors import HardwareError, IreneError, OutputError
from irene_build.hardware import HardwareProfile, machine
from irene_build.meters.assess import Assessment, assess, shortest_window_s
from irene_build.meters.base import Finding, Meter
from irene_build.meters.duty_cycle import Duty, known_duty, measure_duty, store_duty
from irene_build.meters.nvml import characterise, store_counter
from irene_build.meters.registry import find_meters, open_finding, open_meter
from irene_runtime.sampler import Sampler

#: What a meter counts that is no fault of it.
_HARMLESS = ("banner", "bunched")
#: A sensor that looks at least so much is taken to look all the time.
_ALWAYS = 0.95
#: Loads the processor, or the GPU, for some seconds.
Burn = Callable[[float], None]


def examine(
    profile: HardwareProfile | None,
    seconds: float,
    progress: Callable[[float], None] = lambda done: None,
    burns: Mapping[str, Burn] | None = None,
) -> dict[str, Any]:
    """Plain data for ``doctor``: ``meters``, ``missing``, ``checks``, ``best``, ``seconds``.

    With a profile, its own meter must be here (HardwareError); other meters are looked at beside it.
    ``progress`` is given the seconds of the idle window that are over; when all are, load pulses begin.
    ``burns``: what load pulses are made with, ``cpu`` and ``gpu``, to find each meter's duty; nothing is loaded by
    default.
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
        (before, own_before), start = machine.process_times(), time.monotonic_ns()
        if opened:
            figures = assess(opened, seconds, progress)
        else:
            figures = {}
            _wait(seconds, progress)
        (after, own_after), end = machine.process_times(), time.monotonic_ns()
        load = sampler.summary(start, end).get("cpu_util")
        if load is not None:
            # What this process takes to look is not somebody else's.
            core_s = (end - start) / 1e9 * (os.cpu_count() or 1)
            load = max(0.0, load - 100.0 * (own_after - own_before) / os.sysconf("SC_CLK_TCK") / core_s)
        progress(seconds)
        duties = {
            name: _duty_figures(figures[name], opened[name], duty)
            for name, duty in _duties(opened, seconds, burns or {}).items()
        }
        meters = [
            {
                **meter.info.as_dict(),
                **figures[name].as_dict(),
                **duties[name],
                "faults": {k: n for k, n in meter.counters().items() if n and k not in _HARMLESS},
                "advice": _advice(meter, figures[name].shortest_window_s, duties[name]["duty"]),
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


def _duties(meters: Mapping[str, Meter], seconds: float, burns: Mapping[str, Burn]) -> dict[str, Duty]:
    """Each meter's duty, from load pulses that it sees; kept in the artifacts where it was found."""
    found: dict[str, Duty] = {}
    for kind in ("cpu", "gpu"):
        group = {name: m for name, m in meters.items() if (m.info.boundary == "gpu") == (kind == "gpu")}
        if group and kind in burns:
            try:
                found |= measure_duty(group, burns[kind], seconds)
            except HardwareError as error:  # nothing here can load it
                found |= {name: Duty(None, reason=str(error)) for name in group}
    for name, meter in meters.items():
        if name not in found:
            found[name] = Duty(None, reason="nothing loaded what it meters")
        if found[name].duty is not None:
            with suppress(OutputError):  # where nothing can be kept, what was found is told all the same
                store_duty(meter.info, found[name])
    return found


def _duty_figures(figures: Assessment, meter: Meter, duty: Duty) -> dict[str, Any]:
    """Keys of a meter's duty; where it could not be found now, what was kept of an earlier look."""
    reason, earlier = duty.reason, None
    if duty.duty is None:
        earlier = known_duty(meter.info)
        duty = earlier or duty
    swinging = None
    if duty.duty is not None and figures.power_w is not None and figures.period_s is not None:
        noise = 0.0 if meter.info.kind == "energy" else figures.noise_w or 0.0
        share = 1.0 if duty.duty >= _ALWAYS else duty.duty
        swinging = shortest_window_s(figures.power_w, noise, figures.period_s, duty=share)
    return {
        "duty": duty.duty,
        "duty_interval": None if duty.duty is None else [duty.low, duty.high],
        "duty_reason": f"kept from an earlier look; now {reason}" if earlier else reason,
        "sensor_window_s": duty.window_s,
        "sensor_delay_s": duty.delay_s,
        "shortest_window_swinging_s": swinging,
    }


def _counter(seconds: float) -> dict[str, Any]:
    try:
        figures = characterise({}, min(seconds, 10.0))
    except IreneError as error:
        return {"error": str(error)}
    try:
        figures["stored_in"] = str(store_counter(figures))
    except OutputError as error:
        figures["stored_in"] = f"nothing: {error}"
    return figures


def _missing(finding: Finding) -> dict[str, str]:
    return {"name": finding.name, "boundary": finding.boundary, "reason": finding.reason}


def _unseen(meters: list[dict[str, Any]]) -> float | None:
    """Idle watts at the wall that neither RAPL nor NVML sees, where all are here."""
    power = {m["name"]: m["power_w"] for m in meters}
    wall = [m["power_w"] for m in meters if m["boundary"] == "wall" and m["provenance"] != "simulated"]
    parts = [power[name] for name in ("rapl", "nvml") if power.get(name) is not None]
    return wall[0] - sum(parts) if wall and wall[0] is not None and parts else None


def _advice(meter: Meter, window_s: float | None, duty: float | None) -> str:
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
    if duty is not None and duty < _ALWAYS:
        lines.append(
            f"its sensor looks {100.0 * duty:.0f} % of the time: what swings faster than its period is seen in "
            "part, so repeat, and let windows begin at changing moments"
        )
    elif duty is None and any(name in str(info.details.get("gpu", "")) for name in ("A100", "H100", "H200")):
        lines.append(
            "its power may be sampled a quarter of the time (arXiv 2312.02741): repeat, and shift the window"
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
