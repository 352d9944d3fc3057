"""``irene-build doctor``: what this PC can measure, and how well."""

from __future__ import annotations

import contextlib
from typing import Any

import typer

from irene_build import console

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    hardware: str = typer.Option(
        "", "--hardware", help="Profile whose meter must be here (virtual: simulated)."
    ),
    seconds: float = typer.Option(10.0, "--seconds", min=1.0, max=3600.0, help="Length of the idle window."),
    pulses: bool = typer.Option(
        True,
        "--pulses/--no-pulses",
        help="Load the PC by turns for as long again, to find each meter's duty.",
    ),
    json_: bool = typer.Option(False, "--json", help="One JSON document."),
) -> None:
    """What this PC can measure, and how well.

    Leave the PC alone while it runs: every meter is read side by side over one idle window, then under load pulses.
    """
    from irene_build.hardware import load_profile
    from irene_build.meters.doctor import examine

    profile = load_profile(hardware) if hardware else None
    burns = _burns() if pulses else {}
    whole_s = seconds * (2.0 if burns else 1.0)
    with console.Progress(1.0, "listening", quiet=json_) as progress:

        def report(done_s: float) -> None:
            detail = "idle: leave the PC alone" if done_s < seconds else "load pulses"
            progress.update(done_s / whole_s, detail, whole_s - done_s)

        found = examine(profile, seconds, report, burns)
    if json_:
        console.emit_json(found)
        return
    _show_meters(found)
    rows = [(c["status"], c["name"], c["found"]) for c in found["checks"]]
    console.say("\n" + console.table(rows))
    advice = [f"{m['name']}: {m['advice']}" for m in found["meters"] if m["advice"]]
    advice += [f"{c['name']}: {c['advice']}" for c in found["checks"] if c["advice"] and c["status"] != "ok"]
    if advice:
        console.say("\nWhat to change:\n" + "\n".join(f"  {line}" for line in advice))
    console.say("\n" + _verdict(found))


def _burns() -> dict[str, Any]:
    """What loads the processor and, where a driver and torch are, the GPU: not before it is asked to."""
    import functools
    import importlib.util

    from irene_build.errors import IreneError
    from irene_build.measure.device import CpuDevice, open_device
    from irene_build.meters.nvml import nvml_session

    opened = functools.cache(open_device)
    burns: dict[str, Any] = {"cpu": CpuDevice().burn}
    with contextlib.suppress(IreneError):
        nvml_session().nvmlShutdown()
        if importlib.util.find_spec("torch") is not None:
            burns["gpu"] = lambda seconds: opened("cuda").burn(seconds)
    return burns


def _verdict(found: dict[str, Any]) -> str:
    """What `calibrate` would do here, in one line."""
    meters = found["meters"]
    if not meters:
        return (
            "No energy can be measured here: `irene-build calibrate` would simulate it (--hardware virtual)."
        )
    best = meters[0]
    doubts = [c["name"] for c in found["checks"] if c["status"] in ("warn", "fail")]
    ready = f"first see to: {', '.join(doubts)}" if doubts else "the PC is fit to be measured on"
    simulated = "simulated energy" if best["provenance"] == "simulated" else "energy"
    where = f" --hardware {found['hardware']}" if found["hardware"] else ""
    source = f"{best['name']} ({best['boundary']})"
    return f"`irene-build calibrate{where}` would take its {simulated} from {source}; {ready}."


def _show_meters(found: dict[str, Any]) -> None:
    meters = found["meters"]
    idle = all(c["status"] != "warn" for c in found["checks"] if c["name"] == "other load")
    if not meters:
        console.say("No meter was found on this PC:")
    for meter in meters:
        if meter["provenance"] == "simulated":
            console.note(
                "SIMULATED: the joules of this meter come from a model and say nothing about this PC."
            )
        console.say(f"{meter['name']}: {meter['source']} ({meter['boundary']}, {meter['provenance']})")
        unit = "J" if meter["kind"] == "energy" else "W"
        rows = [
            ("frame period", _number(meter["period_s"], "s"), f"jitter {_number(meter['jitter_s'], 's')}"),
            ("duty", *_duty(meter)),
            ("coverage", _number(meter["coverage"], ""), "share of the time that readings claim to cover"),
            ("quantisation", _number(meter["quantum"], unit), f"{meter['power_kind']} power"),
            (
                "idle power",
                _number(meter["power_w"], "W"),
                f"noise {_number(meter['noise_w'], 'W')} a reading"
                + ("" if idle else "; the PC was not idle"),
            ),
            (
                "shortest window",
                _number(meter["shortest_window_s"], "s"),
                "for 1 % error at 95 %, at idle power, of a steady load",
            ),
        ]
        if meter["duty"] is not None and meter["duty"] < 0.95:
            window = _number(meter["shortest_window_swinging_s"], "s")
            rows.append(("", window, "of one that swings within a frame, begun at changing moments"))
        if meter["faults"]:
            rows.append(("faults", ", ".join(f"{n} {name}" for name, n in meter["faults"].items()), ""))
        console.say("\n".join(f"  {name:<16} {value:<12} {note}".rstrip() for name, value, note in rows))
    counter = found.get("nvml_counter", {})
    if "step_s" in counter:
        ratio = _number(counter.get("counter_to_power"), "")
        console.say(
            f"  counter step     {_number(counter['step_s'], 's')}, {_number(counter['step_j'], 'J')}; "
            f"counter / integrated power {ratio} (kept in {counter['stored_in']})"
        )
    if found["wall_less_parts_w"] is not None:
        console.say(f"  wall less parts  {found['wall_less_parts_w']:.1f} W that neither RAPL nor NVML sees")
    for extra in found["sums"]:
        console.say(f"{extra['name']}: both together ({extra['boundary']}), with --meter {extra['name']}")
    for missing in found["missing"]:
        console.say(f"no {missing['name']}: {missing['reason']}")


def _duty(meter: dict[str, Any]) -> tuple[str, str]:
    """The share, and what it is or why it is not known."""
    if meter["duty"] is None:
        return "unknown", meter["duty_reason"]
    low, high = meter["duty_interval"]
    note = f"share of the time that its sensor looks, {low:.2f} to {high:.2f}"
    window = f"; {_number(meter['sensor_window_s'], 's')} at a time"
    return f"{meter['duty']:.2f}", note + window + (
        f"; {meter['duty_reason']}" if meter["duty_reason"] else ""
    )


def _number(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:.3g} {unit}".rstrip()
