"""``irene-build diff OUT1 OUT2``: what a new calibration changes, in joules."""

from __future__ import annotations

from pathlib import Path

import typer

from irene_build import console

app = typer.Typer()


@app.command()
def diff(
    old: Path = typer.Argument(..., help="A bundle."),
    new: Path = typer.Argument(..., help="Another bundle."),
    nodes: int = typer.Option(
        3, "--nodes", help="How many nodes of each tree to show, largest change first."
    ),
    as_json: bool = typer.Option(False, "--json", help="Every node, as JSON."),
) -> None:
    """Compare two exported estimators: what they are, and the joules of every golden and example tree."""
    from irene_build.export.diff import compare_bundles
    from irene_build.export.verify import a_few

    found = compare_bundles(old, new)
    if as_json:
        console.emit_json(found)
        return
    if found["same_estimator"]:
        console.say(f"the same estimator: digest {found['digest'][0]}")
    for key, (before, after) in found["changed"].items():
        console.say(f"{key}: {before} -> {after}")
    for reason, trees in found["not_compared"].items():
        which = f"{a_few(trees)}: " if trees else ""
        console.note(f"not compared: {which}{reason}")
    rows = []
    for case in found["trees"]:
        before, after = case["energy_j"]
        rows.append(
            [
                case["tree"],
                case["tier"] + ("*" if case["readings"] else ""),
                f"{before:.6g}",
                f"{after:.6g}",
                f"{after - before:+.3g}",
                case["change"],
            ]
        )
        for node in case["nodes"][:nodes]:
            if node["energy_j"][0] != node["energy_j"][1] and node["index"]:
                one, other = node["energy_j"]
                rows.append(
                    [
                        f"  {node['name']}",
                        "",
                        f"{one:.6g}",
                        f"{other:.6g}",
                        f"{other - one:+.3g}",
                        node["change"],
                    ]
                )
    if any(case["readings"] for case in found["trees"]):
        console.note(
            "* on readings that are made up: the change counts, the joules mean nothing by themselves"
        )
    if rows:
        console.say(console.table(rows, ["tree", "tier", "before J", "after J", "change J", "change"]))
