"""Which figures belong to which result; ``figures`` draws each of them."""

from __future__ import annotations

from typing import Any

from irene_build.report import evaluation as ev
from irene_build.report import figures as draw
from irene_build.report.predictions import TIERS, Prediction, is_simulated


def of_report(report: dict[str, Any], pairs: dict[str, Any], example: Prediction | None) -> list[draw.Figure]:
    """Figures 3 and 5, predicted against measured, coverage and the bottlenecks of a report."""
    simulated = is_simulated(report)
    out = []
    tiers = [t for t in dict.fromkeys((*TIERS, *pairs)) if t in pairs]
    for level in reversed(ev.LEVELS):
        curves = {t: ev.errors_percent(pairs[t][level]) for t in tiers if level in pairs[t]}
        curves = {t: values for t, values in curves.items() if values}
        if curves:
            out.append(draw.error_cdf(curves, level, simulated))
    for tier in tiers:
        points = {
            level: (pairs[tier][level]["measured_j"], pairs[tier][level]["predicted_j"])
            for level in ev.LEVELS
            if level in pairs[tier]
        }
        out.append(draw.predicted_against_measured(points, tier, simulated))
    if report["errors"]["pairs_in_sample"]:
        for figure in out:
            figure.title += " (in sample: the runs that it was trained on)"
    observed: dict[str, dict[str, float]] = {}
    for row in report["errors"]["by_level"]:
        if row["coverage90"] is not None:
            observed.setdefault(row["tier"], {})[row["level"]] = row["coverage90"]
    if observed:
        out.append(draw.coverage(observed, 90.0, simulated))
    if report["bottlenecks"]:
        out.append(draw.bottleneck_bars(next(iter(report["bottlenecks"].values())), simulated))
    if example is not None:
        out.append(draw.tree(example, simulated))
    return out


def of_compare(result: dict[str, Any]) -> list[draw.Figure]:
    """Figure 4 where there are accuracies, and bottlenecks side by side (the first eight models)."""
    simulated = is_simulated(result)
    rated = [t for t in result["totals"] if t["accuracy"] is not None]
    out = []
    if rated:
        names = [t["model"] for t in rated]
        out.append(draw.energy_accuracy(rated, [names.index(m) for m in result["pareto"]], simulated))
    tables = dict(list(result["bottlenecks"].items())[:8])
    out.append(draw.bottleneck_bars(tables, simulated))
    return out


def of_sweep(result: dict[str, Any]) -> list[draw.Figure]:
    """Heat maps of the energy per token and per sequence."""
    cells = {(c["batch_size"], c["length"]): c for c in result["cells"]}
    batches, seqs = sorted({b for b, _ in cells}), sorted({s for _, s in cells})
    return [draw.heat_map(batches, seqs, cells, per, is_simulated(result)) for per in ("token", "sequence")]
