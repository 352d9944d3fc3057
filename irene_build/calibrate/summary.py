"""What `calibrate` says: the plan before it, and what came of it after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from irene_build import console
from irene_runtime.tree import LEVELS

if TYPE_CHECKING:
    from irene_build.measure.plan import Plan


def describe(plan: Plan) -> str:
    """A plan for a person."""
    rows = []
    for number, target in enumerate(plan.targets):
        own = [work for work in plan.works if work.places[0][0] == number]
        rows.append(
            (str(target), len(own), sum(1 for w in plan.works for tree, _ in w.places if tree == number))
        )
    p = plan.protocol
    lines = [
        console.table(rows, ("model and input", "to measure", "nodes covered")),
        f"{len(plan.works)} distinct nodes stand for {plan.nodes}; windows of {p.window_s:.2f} s, "
        f"{p.min_rounds} to {p.most_rounds} rounds, fewer where +/- {100 * p.precision:g} % is reached",
        _length(plan),
        *(f"note: {note}" for note in plan.notes),
    ]
    return "\n".join(lines)


def _length(plan: Plan) -> str:
    p = plan.protocol
    least, most = (console.duration(plan.seconds(rounds)) for rounds in (p.min_rounds, p.most_rounds))
    rounds = f"{p.min_rounds} {'round' if p.min_rounds == 1 else 'rounds'}"
    if plan.budget_s is None:
        return f"measuring takes {least} ({rounds}), {most} where all {p.most_rounds} rounds are needed"
    if plan.seconds(p.most_rounds) <= plan.budget_s:
        return f"measuring takes {least} to {most}"
    budget = console.duration(plan.budget_s)
    return (
        f"measuring ends after {budget}, the budget; {rounds} of every node: {least}, the rest repeats them"
    )


def campaign_summary(result: dict[str, Any]) -> str:
    """The end of a calibration, for a person."""
    simulated = "simulated " if result.get("provenance") == "simulated" else ""
    lines = [
        f"{result['labelled']} of {result['works']} distinct nodes have {simulated}labels, "
        f"from {result['trials']} trials ({result['rejected']} rejected)"
    ]
    lines += [f"could not run {text}" for text in result["failed"]]
    lines += [f"note: {note}" for note in result["notes"]]
    if not result["finished"]:
        how = "it again with --resume instead of --new" if result.get("new") else "the same command again"
        lines.append(f"not finished: run {how} to go on")
        return "\n".join(lines)
    known = result["half_width_nodes"]
    if 2 * known < result["labelled"]:
        lines.append(
            "most nodes were measured once: a longer --budget repeats them and tells how well that goes"
        )
    else:
        of = "" if known == result["labelled"] else f" ({known} nodes; the others have a single round)"
        lines.append(f"typical 95 % half-width of a label: {100 * result['half_width_median']:.2f} %{of}")
    if result.get("above_idle_share") is not None:
        lines.append(
            f"above idle: {100 * result['above_idle_share']:.0f} % of the {simulated}energy of these nodes"
        )
    if "transfer" in result:
        errors = [
            (tier, f"{found['no_label']:.2f}", f"{found['carried']:.2f}" if "carried" in found else "")
            for tier, found in result["transfer"].items()
        ]
        lines += ["", f"error of the estimator of {result['carried_from']} here, % of {simulated}energy"]
        lines.append(
            console.table(errors, ("tier", "no label", f"carried by {result['labelled'] - 1} labels"))
        )
    rows = []
    for tier, protocols in result.get("evaluation", {}).items():
        for level, found in protocols.get("model-out", {}).items():
            cover = "" if found["coverage90"] is None else f"{found['coverage90']:.1f}"
            rows.append((tier, level, f"{found['mape']:.2f}", cover, found["n"]))
    if rows:
        lines += ["", f"error on models left out, % of {simulated}energy"]
        lines.append(console.table(rows, ("tier", "level", "mean", "in 90 % interval", "nodes")))
    if result["disturbed"]:
        lines.append(
            f"{result['disturbed']} of {result['labelled']} labels were disturbed by other programs "
            f"({result['foreign_cores']:.1f} cores busy): errors are as large as that makes them; "
            "leave the PC alone and use --new"
        )
    if "estimator" in result:
        lines.append(f"wrote {result['estimator']}")
    return "\n".join(lines)


def transfer_summary(result: Mapping[str, Any]) -> str:
    """The end of it, for a person."""
    labels = "1 label" if result["labels"] == 1 else f"{result['labels']} labels"
    heads = ("tier", "level", "no label", labels, "all labels, models left out")
    rows = [
        (
            tier,
            level,
            *(
                f"{result[key][tier][level]:.2f}" if result[key] else ""
                for key in ("no_label", "carried", "full")
            ),
        )
        for tier in result["carried"]
        for level in LEVELS
    ]
    lines = [
        f"error of the estimator of {result['carried_from']} on the other measurements of {result['hardware']}, %"
    ]
    lines.append(console.table(rows, heads))
    if "estimator" in result:
        lines.append(f"wrote {result['estimator']}")
    return "\n".join(lines)
