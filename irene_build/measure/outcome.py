"""What a campaign has come to, from its journal alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import median

from irene_build.measure.journal import Journal


@dataclass(frozen=True)
class Outcome:
    """What a call of ``run`` left: ``finished`` campaigns have their labels in the journal.

    ``disturbed``: labels that rest on a window with foreign load in it, because no better one was had;
    ``foreign_cores``: what others used in the median window that counts.
    """

    finished: bool
    works: int
    labelled: int
    trials: int
    rejected: int
    disturbed: int
    foreign_cores: float | None
    failed: tuple[str, ...]
    notes: tuple[str, ...]


def outcome(journal: Journal) -> Outcome:
    """The state of a campaign, from its journal alone."""
    works = journal.rows("SELECT COUNT(*) FROM work")[0][0]
    labelled = journal.rows("SELECT COUNT(*) FROM result")[0][0]
    trials, accepted = journal.rows("SELECT COUNT(*), COALESCE(SUM(accepted), 0) FROM trial")[0]
    failed = journal.rows("SELECT name, failed FROM work WHERE failed IS NOT NULL ORDER BY id")
    disturbed = journal.rows(
        "SELECT COUNT(DISTINCT work) FROM trial JOIN label ON label.trial = trial.id"
        " WHERE reasons LIKE '%foreign load%'"
    )[0][0]
    query = "SELECT foreign_cores FROM trial WHERE accepted AND foreign_cores IS NOT NULL"
    cores = [value for (value,) in journal.rows(query)]
    return Outcome(
        bool(journal.get("finished")),
        works,
        labelled,
        trials,
        trials - accepted,
        disturbed,
        median(cores) if cores else None,
        tuple(f"{name}: {why}" for name, why in failed),
        (*journal.get("notes", []), *_supply(journal), *_doubts(journal)),
    )


def _supply(journal: Journal) -> list[str]:
    """The line from parts to the wall that the last session found, where it watched both."""
    query = (
        "SELECT json_extract(detail, '$.supply') FROM event WHERE kind = 'stop' ORDER BY rowid DESC LIMIT 1"
    )
    found = journal.rows(query)
    if not found or found[0][0] is None:
        return []
    supply = json.loads(found[0][0])
    return [
        f"the wall meter shows {supply['board_w']:.1f} W and the parts' power / {supply['efficiency']:.3f}, "
        f"to within {supply['residual_w']:.1f} W (fitted)"
    ]


def _doubts(journal: Journal) -> list[str]:
    """What the journal's events and clocks say against its labels, in plain words."""
    found = []
    jumps = journal.rows(
        "SELECT COUNT(*), json_extract(detail, '$.text') FROM event WHERE kind = 'residual jump'"
    )
    if jumps[0][0]:
        found.append(f"{jumps[0][0]} times while measuring: {jumps[0][1]}")
    slept = journal.rows(
        "SELECT COUNT(*), SUM(json_extract(detail, '$.for_s')) FROM event WHERE kind = 'suspended'"
    )[0]
    if slept[0]:
        times = "once" if slept[0] == 1 else f"{slept[0]} times"
        found.append(
            f"the machine slept {times}, {slept[1]:.0f} s in all; what it was measuring was repeated"
        )
    stepped = journal.rows("SELECT COUNT(*) FROM event WHERE kind = 'meter clock stepped'")[0][0]
    if stepped > slept[0]:
        found.append(
            f"the meter's clock stepped {stepped - slept[0]} times without a sleep of the machine (it was restarted, "
            "or readings were held up): it was found again by a load pulse each time"
        )
    lost = journal.rows("SELECT SUM(sent), MAX(residual_s) FROM clock WHERE pulses = 0 AND sent > 0")[0]
    if lost[0]:
        found.append(
            f"none of {lost[0]} load pulses was seen in the meter's readings (other load hides them): its clock "
            f"is taken from when readings arrive, good to {1e3 * lost[1]:.0f} ms"
        )
    waited = journal.rows("SELECT COUNT(*), SUM(reasons LIKE '%standby gate%') FROM trial")[0]
    if waited[1]:
        found.append(f"{waited[1]} of {waited[0]} trials began above standby power")
    return found
