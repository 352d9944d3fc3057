"""The totals of `irene-build score --by`: as a table, CSV, and a page with charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irene_build import console
from irene_build.report import figures as draw
from irene_build.report.html import joules, render
from irene_build.report.predictions import is_simulated
from irene_build.report.write import csv_text

#: Groups that a chart shows; the table has all.
_SHOWN = 20
#: Keys that are drawn as a course over time.
_TIMES = ("day", "hour", "month")


def table(result: dict[str, Any]) -> str:
    """Plain columns, the dearest group first, the sum of all last."""
    by = result["by"]
    rows = [[*(row[key] or "-" for key in by), *_cells(row)] for row in result["rows"]]
    rows.append([*(["all"] + [""] * (len(by) - 1) if by else []), *_cells(result["total"])])
    heads = [*by, "requests", "tokens in", "tokens out", "energy", "low", "high", "J/token", "kWh"]
    heads += ["g CO2"] if "co2_g" in result["total"] else []
    heads += [f"cost ({result['currency']})"] if "cost" in result["total"] else []
    return console.table(rows, heads)


def _cells(row: dict[str, Any]) -> list[str]:
    per_token = row["energy_per_output_token_j"]
    cells = [f"{row[key]:,}" for key in ("requests", "prompt_tokens", "output_tokens")]
    cells += [joules(row[key]) for key in ("energy_j", "energy_low_j", "energy_high_j")]
    cells += ["-" if per_token is None else f"{per_token:.4g}", f"{row['energy_kwh']:.4g}"]
    return cells + [f"{row[key]:.4g}" for key in ("co2_g", "cost") if key in row]


def as_csv(result: dict[str, Any]) -> str:
    """One line a group; without groups one line."""
    return csv_text(result["rows"] or [result["total"]])


def page(result: dict[str, Any]) -> str:
    """A page that loads nothing, with the table of all groups and charts of them."""
    return render(
        "report_scored.html.j2",
        title=f"What {result['total']['requests']:,} requests took on {result['hardware']}",
        simulated=is_simulated(result), result=result, figures={f.name: f for f in charts(result)},
    )  # fmt: skip


def charts(result: dict[str, Any]) -> list[draw.Figure]:
    """Per key the joules of its values with intervals: bars, or a course over time."""
    out = []
    for key in result["by"]:
        groups: dict[str, list[float]] = {}
        for row in result["rows"]:
            sums = groups.setdefault(row[key] or "-", [0.0, 0.0])
            for index, name in enumerate(("prefill_energy_j", "decode_energy_j")):
                sums[index] += row[name]
        over_time = key in _TIMES
        order = sorted(groups) if over_time else sorted(groups, key=lambda name: -sum(groups[name]))[:_SHOWN]
        out.append(_bars(key, [(name, groups[name]) for name in order], over_time, is_simulated(result)))
    return out


@draw.styled
def _bars(
    key: str, groups: Sequence[tuple[str, Sequence[float]]], upright: bool, simulated: bool
) -> draw.Figure:
    drawing, axes = draw.drawing_with_axes(simulated)
    names = [name if len(name) <= 28 else f"…{name[-27:]}" for name, _ in groups]
    before = [0.0] * len(groups)
    for index, (part, colour) in enumerate(zip(("prefill", "decode"), draw.SERIES, strict=False)):
        values = [sums[index] / 3.6e6 for _, sums in groups]
        at = range(len(groups))
        if upright:
            axes.bar(at, values, bottom=before, color=colour, label=part)
        else:
            axes.barh(at, values, left=before, color=colour, label=part)
        before = [b + v for b, v in zip(before, values, strict=True)]
    if upright:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axes.set_ylabel("kWh")
    else:
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("kWh")
    axes.legend()
    words = "; ".join(f"{name}: {joules(sum(sums))}" for name, sums in groups[:5])
    return draw.Figure(f"by-{key}", f"Energy by {key}", f"{words}.", drawing, {})
