"""The numbers of the law: unit, meaning, and what a datasheet says of them before anything was measured.

Widths are those of a log-normal prior, in natural-log units. Where the values come from: efficiencies and launch
costs from public microbenchmarks of GEMMs and streams; joules from the power laws of H200 and B200 kernels (0.78 and
0.50 pJ a 16-bit FLOP: about the board's limit at peak FLOP/s; 58 to 70 pJ a byte of HBM) and of whole passes on
other boards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from irene_build.hardware.datasheets import Datasheet

#: Joules a byte that reaches memory, by kind of memory, longest name first: HBM 40 to 70 pJ, GDDR 150 to 310 pJ.
_BYTE_J = {"GDDR6X": 2.5e-10, "GDDR7": 2.2e-10, "GDDR": 1.7e-10, "HBM": 6e-11, "LPDDR": 5e-11}
#: By make of device: what tensor work at its peak would take, static power and that of clocks, over the board's
#: limit. GeForce has half the rate with sums in 32 bits, and clocks that rest while it waits.
_SHARES = {"GeForce": (0.65, 0.10, 0.07), "Apple": (1.0, 0.09, 0.06), "": (1.3, 0.16, 0.11)}


class Number(NamedTuple):
    """One number of the law before it is fitted: ``prior`` in ``unit``, ``width`` in natural-log units."""

    prior: float
    width: float
    unit: str
    meaning: str


def numbers(sheet: Datasheet) -> dict[str, Number]:
    """The law's numbers for a device, with priors from its datasheet."""
    limit = sheet.power_limit_w
    kind = next((k for k in _BYTE_J if sheet.memory_kind.startswith(k)), "GDDR")
    full, static, clock = next(v for make, v in _SHARES.items() if make in sheet.name)
    return {
        "efficiency_16": Number(0.6, 0.4, "1", "share of the peak that large 16-bit products reach"),
        "efficiency_float32": Number(0.7, 0.3, "1", "the same for float32"),
        "efficiency_attention": Number(0.5, 0.5, "1", "fused attention's efficiency over that of a product"),
        "efficiency_batched": Number(0.5, 0.5, "1", "batched products' efficiency over that of one product"),
        "efficiency_vector": Number(0.2, 0.7, "1", "share of the float32 peak that other operations reach"),
        "tile": Number(48.0, 0.7, "1", "rows and columns that a tile adds at the edge of a product"),
        "fill": Number(100.0, 0.7, "1", "inner length that starting and ending a tile costs"),
        "tail": Number(0.4, 0.7, "1", "share of the multiprocessors that wait in a product's last wave"),
        "cache": Number(1.0, 0.7, "1", "last cache that a kernel's activations can use, over its size"),
        "bandwidth": Number(0.75, 0.25, "1", "share of the memory bandwidth that kernels reach"),
        "clock_of_memory": Number(0.2, 0.7, "1", "share of the time for bytes that follows the core clock"),
        "launch_s": Number(2e-6, 0.6, "s", "time of a kernel before and after its work"),
        "voltage_floor": Number(0.65, 0.2, "1", "clock below which the voltage stays, over the highest"),
        "voltage_power": Number(1.0, 0.5, "1", "joules of an operation grow with the clock to this power"),
        "static_w": Number(static * limit, 0.5, "W", "power that flows whatever the clock"),
        "clock_w": Number(clock * limit, 0.7, "W", "power of clocks that run at their highest"),
        "flop_16_j": Number(full * limit / sheet.peak("float16"), 0.5, "J", "one FLOP of 16-bit products"),
        "flop_float32_j": Number(0.6 * limit / sheet.peak("float32"), 0.5, "J", "one FLOP in float32"),
        "flop_attention": Number(1.5, 0.5, "1", "a FLOP of fused attention over one of a product"),
        "byte_j": Number(_BYTE_J[kind], 0.5, "J", "one byte that reaches memory"),
        "limit": Number(1.0, 0.05, "1", "power that the board settles at, over its limit"),
        "host_s": Number(1.5e-5, 0.7, "s", "host time of one kernel, and of one operation"),
        "pass_s": Number(5e-4, 0.7, "s", "host time of one pass, whatever it launches"),
        "gap": Number(0.9, 0.1, "1", "static power while the device waits for its host, over that at work"),
    }  # fmt: skip


def device_of(sheet: Datasheet) -> dict[str, Any]:
    """The device as the law's file holds it."""
    return {
        "name": sheet.name,
        "peak_flops_per_s": dict(sheet.peak_flops_per_s),
        "bandwidth_bytes_per_s": sheet.bandwidth_bytes_per_s,
        "l2_bytes": sheet.l2_bytes,
        "sms": sheet.sms,
        "memory_bytes": sheet.memory_bytes,
        "max_clock_hz": sheet.max_clock_hz,
        "power_limit_w": sheet.power_limit_w,
        "idle_w": sheet.idle_w,
    }


def written(
    values: Mapping[str, float], sheet: Datasheet, source: str, prior: Mapping[str, Number] | None = None
) -> dict[str, dict[str, Any]]:
    """The numbers as the law's file holds them: ``{name: {value, unit, meaning, prior, width, source}}``."""
    return {
        name: {
            "value": float(f"{values[name]:.8g}"),
            "unit": number.unit,
            "meaning": number.meaning,
            "prior": float(f"{number.prior:.8g}"),
            "width": number.width,
            "source": source,
        }
        for name, number in (prior or numbers(sheet)).items()
    }
