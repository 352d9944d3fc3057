"""Rounds of a campaign: their order, when they stop, and what a budget cuts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from irene_build.measure import campaign as module
from irene_build.measure.plan import Target, make_plan
from tests.measure.doubles import FAST, DoubleWorkload, Power, double_plan, double_tree, run_campaign
from tests.measure.test_campaign import query


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "campaign.sqlite"


def test_the_order_is_random_and_its_seed_is_kept(path: Path, tmp_path: Path) -> None:
    plan = double_plan(models=1, leaves=7)
    run_campaign(path, plan, stop_after_s=0.0)
    run_campaign(tmp_path / "again.sqlite", plan, stop_after_s=0.0)
    orders = [json.loads(row[0]) for row in query(path, "SELECT works FROM round ORDER BY number")]
    again = [
        json.loads(row[0])
        for row in query(tmp_path / "again.sqlite", "SELECT works FROM round ORDER BY number")
    ]
    assert orders == again and len(orders[0]) == 8
    assert orders[0] != sorted(orders[0])
    assert query(path, "SELECT json_extract(value, '$.seed') FROM campaign WHERE key = 'protocol'") == [(3,)]


def test_models_that_do_not_fit_together_come_one_after_the_other(path: Path) -> None:
    power = Power()
    workload = DoubleWorkload(power)
    workload.roomy = False
    targets = [Target(f"toy{number}", number, 8) for number in (1, 2, 3)]
    plan = make_plan(targets, double_tree, FAST, (1e10, 1e9))
    run_campaign(path, plan, power, workload=workload, stop_after_s=0.0)
    tree = dict(query(path, "SELECT work, tree FROM node"))
    order = [tree[work] for work in json.loads(query(path, "SELECT works FROM round")[0][0])]
    assert len(order) == 12 and len(list(groupby(order))) == 3


def test_rounds_stop_at_the_precision_and_at_the_cap(path: Path, tmp_path: Path) -> None:
    run_campaign(path, double_plan(protocol=replace(FAST, precision=5.0)))
    assert query(path, "SELECT MAX(number) FROM round") == [(2,)]
    strict = tmp_path / "strict.sqlite"
    run_campaign(strict, double_plan(protocol=replace(FAST, precision=1e-6)))
    assert query(strict, "SELECT MAX(number) FROM round") == [(3,)]
    # What is not precise enough is measured again, by windows as short: rounds average what differs between them.
    shortest = query(strict, "SELECT MIN(end_ns - start_ns) / 1e9 FROM trial GROUP BY round")
    assert all(FAST.window_s <= seconds < FAST.max_window_s for (seconds,) in shortest)


def test_where_a_sensor_does_not_always_look_windows_begin_at_changing_phases_of_it(path: Path) -> None:
    """A trial ends with a reading: without the pause, the next would begin as long after one each time."""
    plan = double_plan(models=1, leaves=5, protocol=replace(FAST, jitter_s=0.2))
    run_campaign(path, plan, stop_after_s=30.0)
    starts = query(path, "SELECT idle_start_ns / 1e9, end_ns / 1e9 FROM trial ORDER BY id")
    pauses = [later[0] - earlier[1] for earlier, later in pairwise(starts)]
    assert max(pauses) - min(pauses) > 0.08


def test_the_budget_always_lets_one_round_end(path: Path) -> None:
    plan = replace(double_plan(protocol=replace(FAST, precision=1e-6)), budget_s=0.7)
    outcome = run_campaign(path, plan)
    assert outcome.finished and outcome.labelled == outcome.works
    assert query(path, "SELECT MAX(number) FROM round") == [(1,)]


def test_a_round_that_the_budget_cuts_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second: list[str] = []

    def spend(done: float, total: float, what: str, left_s: float) -> None:
        assert 0.0 <= done <= total == 1.0 and left_s >= 0.0
        if what.startswith("round 2"):
            second.append(what)

    monkeypatch.setattr(module.Campaign, "_spent", lambda self: len(second) > 1)
    plan = replace(double_plan(protocol=replace(FAST, precision=1e-6)), budget_s=1000.0)
    outcome = run_campaign(path, plan, report=spend)
    assert outcome.finished and outcome.labelled == outcome.works == 3
    assert outcome.notes == ("the budget ended in round 2, after 2 of 3 nodes",)


def test_a_node_without_a_label_gets_one_after_the_budget_has_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a process was killed before the readings of its last trial were written."""
    spent: list[bool] = []

    def spend(done: float, total: float, what: str, left_s: float) -> None:
        if what.startswith("round 2"):
            spent.append(True)

    def all_but_the_last(campaign: module.Campaign) -> set[int]:
        known = labelled(campaign)
        return known - {json.loads(works)[-1] for (works,) in query(path, SECOND)} if known else known

    SECOND, labelled = "SELECT works FROM round WHERE number = 2", module.Campaign._labelled
    monkeypatch.setattr(module.Campaign, "_spent", lambda self: bool(spent))
    monkeypatch.setattr(module.Campaign, "_labelled", all_but_the_last)
    plan = replace(double_plan(models=1, leaves=4, protocol=replace(FAST, precision=1e-6)), budget_s=1000.0)
    assert run_campaign(path, plan, report=spend).finished
    order = json.loads(query(path, SECOND)[0][0])
    measured = query(path, "SELECT DISTINCT work FROM trial WHERE round = 2 ORDER BY id")
    assert [work for (work,) in measured] == [order[0], order[-1]]
