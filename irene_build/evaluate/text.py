"""Evaluations and the paper's tables as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from irene_build.console import duration, table
from irene_build.evaluate.run import rivals_of
from irene_runtime.tree import LEVELS

_WIDTH = 100


def evaluation_text(result: dict[str, Any]) -> str:
    """One line a tier and level, one a baseline, and loudly where a baseline wins."""
    lines = [
        f"{result['hardware']}: method {result['method']}, {result['protocol']}, {result['label_source']} "
        f"({result['boundary']}), {result['provenance']}; {duration(result['seconds'])}"
    ]
    if result.get("labels") == "model":
        lines.append("fits saw the labels of whole models alone; errors below are against all labels")
    if result["provenance"] == "simulated":
        lines.append("SIMULATED labels: these errors say how well a simulation is predicted, nothing more")
    rows = []
    for tier, levels in result["tiers"].items():
        for level in LEVELS:
            found = levels[level]
            if found["n"]:
                rows.append(
                    (tier, level, *(_percent(found[key]) for key in ("mape", "p50", "p95", "p99", "max")),
                     _percent(found["coverage90"], 1), found["n"], found["n_distinct"])
                )  # fmt: skip
    lines += ["error in percent on what was left out (copies counted):", ""]
    lines.append(
        table(rows, ("tier", "level", "mean", "p50", "p95", "p99", "max", "in 90%", "nodes", "distinct"))
    )
    for tier, copies in result.get("copies_of_other_shapes", {}).items():
        if copies is not None:
            lines.append(
                f"{tier}: {copies['n']} ml labels are copies of what was measured on another shape, and compared with "
                f"what is said of that; against their own shapes the mean at ml is {copies['mape_own']:.2f}"
            )
    lines += _failed(result)
    lines += ["", "per model (mean error, percent):", "", _per_model(result), ""]
    lines += ["baselines (mean error, percent):", ""]
    lines.append(
        table(
            [
                (name, b["tier"], *(_percent(b[level]) for level in LEVELS))
                for name, b in result["baselines"].items()
            ],
            ("baseline", "knows", *LEVELS),
        )
    )
    lines += [f"no baseline {name}: {why}" for name, why in result["skipped_baselines"].items()]
    for tier, levels in result["tiers"].items():
        for level in LEVELS:
            silent = levels[level].get("n_unpredicted")
            if silent:
                lines.append(f"{silent} labelled nodes ({level}) have no prediction in tier {tier}")
    lines += ["", *_verdict(result)]
    return "\n".join(lines)


def _failed(result: dict[str, Any]) -> list[str]:
    """Runs that look failed are in no error above; what the errors are with them."""
    found = result.get("failed_runs")
    if not found:
        return []
    out = [f"{found['n']} runs look failed, were not trained on and are in no error here; with them:"]
    out += [f"  {tier}: mean {_percent(e['mape'])}, p50 {_percent(e['p50'])}, max {_percent(e['max'])} of {e['n']}"
            for tier, e in found["with_them"].items()]  # fmt: skip
    return out + [f"  {run['row']}: {run['reason']}" for run in found["runs"]]


def _per_model(result: dict[str, Any]) -> str:
    rows = [
        (model, tier, *(_percent(errors[level]) for level in LEVELS))
        for tier, levels in result["tiers"].items()
        for model, errors in levels["per_model"].items()
    ]
    return table(rows, ("model", "tier", *LEVELS))


def _verdict(result: dict[str, Any]) -> list[str]:
    if not result["beaten_by"]:
        compared = sum(len(rivals_of(result, tier, level)) for tier in result["tiers"] for level in LEVELS)
        return [f"no baseline wins ({compared} comparisons)"] if compared else []
    out = [f"A BASELINE WINS: method {result['method']} is beaten"]
    out += [
        f"  {one['tier']}, {one['level']}: {one['baseline']} {one['mape']:.2f} %, ours {one['ours']:.2f} %"
        for one in result["beaten_by"]
    ]
    return out


def tables_text(result: dict[str, Any]) -> str:
    """Tables 5 to 9 and Figure 3; each number with the paper's in brackets."""
    models, primitives = result["columns"]["models"], result["columns"]["primitives"]
    head = f"{result['hardware']}, recipe {result['recipe']}; leave one model out; ours (the paper's)"
    parts = [head]
    for number, title, columns in (
        (5, "Energy prediction errors at model level", [*models, "Average"]),
        (6, "Errors at module level", [*models, "Average"]),
        (7, "Errors at ML level", [*primitives, "Average"]),
        (8, "Ablated features", ["ML", "Module", "Model"]),
        (9, "Module/model level regressors", ["ML", "Module", "Model"]),
    ):
        rows = [(name, *_cells(cells)) for name, cells in result[f"table_{number}"].items()]
        parts.append(f"Table {number}: {title}\n\n" + table(rows, ("", *columns)))
    parts.append(_figure(result))
    if result["notes"]:
        filled = [textwrap.fill(note, _WIDTH, subsequent_indent="  ") for note in result["notes"]]
        parts.append("Why numbers differ\n\n" + "\n".join(f"- {note}" for note in filled))
    return "\n\n".join(parts)


def _figure(result: dict[str, Any]) -> str:
    errors, shares = result["figure_3"]["error_percent"], result["figure_3"]["share_percent"]
    marks = (1.0, 2.0, 5.0, 10.0, 16.0, 17.0, 20.0, 30.0)
    rows = [
        (
            f"{mark:g}",
            _percent(max((s for e, s in zip(errors, shares, strict=True) if e <= mark), default=0.0), 1),
        )
        for mark in marks
    ]
    text = "Figure 3: share of predictions at model level under an error (percent)\n\n"
    text += table(rows, ("error below", "share"))
    if result["figure_3_paper"]:
        stated = "; ".join(f"{share:g} % under {error:g}" for error, share in result["figure_3_paper"])
        text += f"\nthe paper's text: {stated}"
    return text


def _cells(cells: Iterable[Sequence[float | None]]) -> list[str]:
    return [_percent(ours) + (f" ({paper:g})" if paper is not None else "") for ours, paper in cells]


def _percent(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"
