"""``irene-build devices``: what devices can do, by their datasheets."""

from __future__ import annotations

from typing import Any

import typer

from irene_build.console import emit_json, say, table

app = typer.Typer()


@app.command(name="devices")
def devices(
    name: str = typer.Argument("", help="Show this device alone, by any usual name.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List the devices whose datasheets are known, or show one."""
    from dataclasses import asdict

    from irene_build.hardware.datasheets import Datasheet, all_datasheets, datasheet

    found = [datasheet(name)] if name else all_datasheets()
    if as_json:
        emit_json(asdict(found[0]) if name else [asdict(sheet) for sheet in found])
        return

    def row(sheet: Datasheet) -> tuple[Any, ...]:
        peak = sheet.peak_flops_per_s
        return (
            sheet.name, sheet.sms, f"{peak['float32'] / 1e12:.1f}",
            f"{sheet.peak('float16') / 1e12:.0f}" if "float16" in peak else "",
            f"{sheet.bandwidth_bytes_per_s / 1e9:.0f}", f"{sheet.memory_bytes / 2**30:.0f}", sheet.memory_kind,
            f"{sheet.l2_bytes / 2**20:g}", f"{sheet.max_clock_hz / 1e6:.0f}", f"{sheet.idle_w:g}",
            f"{sheet.power_limit_w:.0f}",
        )  # fmt: skip

    header = (
        "device",
        "SMs",
        "fp32 TFLOP/s",
        "fp16",
        "GB/s",
        "GiB",
        "memory",
        "L2 MiB",
        "MHz",
        "idle W",
        "limit W",
    )
    say(table([row(sheet) for sheet in found], header))
    if name:
        peaks = ", ".join(f"{d} {v / 1e12:g}" for d, v in found[0].peak_flops_per_s.items())
        say(f"\npeak TFLOP/s: {peaks}")
        for what, text in found[0].source.items():
            say(f"{'source' if what == 'all' else what + ': '} {text}")
