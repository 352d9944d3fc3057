"""`irene-build relabel`: all labels of a campaign, derived again from its raw samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from irene_build.measure.journal import Journal
    from irene_build.measure.rows import ResultRow

app = typer.Typer()


@app.command()
def relabel(
    hardware: str = typer.Option(..., "--hardware", help="The PC whose campaign is meant."),
    check: bool = typer.Option(False, "--check", help="Change nothing; fail where a stored label differs."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Derive clocks, labels and the dataset of a campaign from its raw samples."""
    from irene_build import console
    from irene_build.dataset.from_campaign import dataset_from_campaign
    from irene_build.dataset.store import save_dataset
    from irene_build.errors import InputError, ParityError
    from irene_build.measure.journal import Journal
    from irene_build.measure.relabel import derive, stored
    from irene_build.paths import find_artifact

    path = find_artifact(hardware, "campaign.sqlite")
    with Journal(path, must_exist=True) as journal:
        if not journal.has_campaign:
            raise InputError(f"{path} holds no campaign of one's own: there are no raw samples to label from")
        with _damage_named(path):
            before, after = stored(journal), derive(journal)
        changed = sum(a != b for a, b in zip(before.label, after.label, strict=False))
        changed += abs(len(before.label) - len(after.label))
        # Clocks are on the way to labels, which carry their figures.
        same = (before.label, before.result) == (after.label, after.result)
        if check and not same and not journal.get("finished"):
            raise ParityError(
                f"{path}: the campaign was broken off and has samples that are newer than its labels; go on with "
                "`irene-build calibrate`, or bring them up to date by `irene-build relabel` without --check"
            )
        if check and not same:
            raise ParityError(
                f"{path}: {changed} of {len(after.label)} labels differ from what the raw samples say; "
                "`irene-build relabel` without --check replaces them"
            )
        if not check:
            journal.replace_derived(after.tables())
        result = {
            "hardware": hardware, "journal": str(path), "trials": len(after.label),
            "nodes": len(after.result), "changed": changed, "identical": same,
            "clocks": [row._asdict() for row in after.clock],
            "results": _results(journal, after.result),
        }  # fmt: skip
    if not check and after.result:
        save_dataset(dataset_from_campaign(path), path)
    if as_json:
        console.emit_json(result)
        return
    verdict = "to the bit what was stored" if same else f"{changed} labels changed"
    console.say(f"{len(after.label)} windows, {len(after.result)} nodes: {verdict}")


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """What a damaged journal makes of the arithmetic, as one line."""
    from irene_build.errors import DatasetError

    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: {type(error).__name__}: {error!s:.120}") from None


def _results(journal: Journal, rows: list[ResultRow]) -> list[dict[str, Any]]:
    """Total and above-idle energy of one run of each distinct node, J; None where it is not known."""
    names = dict(journal.rows("SELECT id, name FROM work"))
    return [
        {
            "node": names[row.work],
            "energy_j": row.energy_j,
            "std_j": row.std_j,
            "above_idle_j": row.above_idle_j,
            "half_width": row.half_width,
            "windows": row.trials,
        }
        for row in rows
    ]
