"""Plans: equal work once, honest lengths, budgets that say what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from irene_build.errors import InputError
from irene_build.measure.plan import (
    MeasurementProtocol,
    Plan,
    Target,
    Work,
    compute_share,
    evenly,
    make_plan,
    protocol_for,
)
from irene_build.meters.base import MeterInfo
from tests.measure.doubles import double_tree

SPEED = (1e10, 1e9)


def info(period_s: float, kind: str = "power", quantum: float = 0.1, window_s: float = 0.0) -> MeterInfo:
    assert kind in ("power", "energy")
    return MeterInfo("m", "m", kind, "wall", "measured", period_s, quantum, "real", {}, window_s)  # type: ignore[arg-type]


def plan(*targets: Target, budget_s: float | None = None, labels: int = 0) -> Plan:
    return make_plan(targets, double_tree, MeasurementProtocol(), SPEED, budget_s, labels=labels)


def test_equal_nodes_are_measured_once_and_stand_for_all() -> None:
    found = plan(Target("a", 1, 8), Target("b", 1, 8), Target("a", 2, 8), Target("a", 1, 8))
    assert len(found.targets) == 3
    assert len(found.works) == 3 + 2 * 3
    assert found.nodes == 3 * 4
    assert [work.places for work in found.works if work.key == "leaf0:1x8"] == [((0, 1), (1, 1))]


def test_leaves_only_takes_cheap_primitives_and_nothing_above() -> None:
    found = plan(Target("a", 1, 8, parts="leaves"))
    assert {work.key for work in found.works} == {"leaf0:1x8", "leaf1:1x8", "leaf2:1x8"}
    slow = make_plan(
        [Target("a", 1, 8, parts="leaves"), Target("a", 1, 8)], double_tree, MeasurementProtocol(), (1e4, 1e9)
    )
    assert all(len(work.places) == 1 for work in slow.works)


def test_the_length_adds_up() -> None:
    found = plan(Target("a", 1, 8))
    p = found.protocol
    each = p.settle_s + p.idle_s + p.warm_s + p.window_s + p.guard_s
    assert found.seconds(1) == pytest.approx(4 * each + 2 * p.pulse_s + p.standby_s, rel=1e-3)
    assert found.seconds(2) - found.seconds(1) == pytest.approx(4 * each, rel=1e-3)
    assert p.most_rounds == p.max_rounds == 10
    assert [replace(p, window_s=w).most_rounds for w in (10.0, 15.0, 20.0)] == [10, 6, 5]
    assert p.trial_s(30.0) > 4 * 30.0


def test_a_budget_cuts_rounds_then_windows_then_grid_points_and_says_so() -> None:
    targets = [Target("a", 1, 8), Target("a", 4, 8), Target("b", 1, 8)]
    full = plan(*targets)
    assert full.notes == () and len(full.targets) == 3
    fewer = plan(*targets, budget_s=full.seconds() * 0.75)
    assert fewer.protocol.min_rounds == 1 and len(fewer.targets) == 3
    assert "every node once" in fewer.notes[0]
    shorter = plan(*targets, budget_s=fewer.seconds() * 0.95)
    assert shorter.protocol.window_s == shorter.protocol.least_window_s and len(shorter.targets) == 3
    assert "windows are cut to" in shorter.notes[1]
    smaller = plan(*targets, budget_s=shorter.seconds() * 0.9)
    assert [str(t) for t in smaller.targets] == ["a 1x8", "b 1x8"]
    assert "left out to fit" in smaller.notes[2] and "a 4x8" in smaller.notes[2]
    assert smaller.seconds() <= smaller.budget_s  # type: ignore[operator]
    with pytest.raises(InputError, match="too short"):
        plan(*targets, budget_s=1.0)


def test_few_labels_are_spread_from_what_moves_bytes_to_what_computes() -> None:
    every = plan(Target("a", 1, 8), Target("a", 64, 8))

    def shares(some: Plan) -> list[float]:
        nodes = [some.trees[work.places[0][0]].nodes[work.places[0][1]] for work in some.works]
        return sorted(compute_share(node, *SPEED) for node in nodes)

    found = plan(Target("a", 1, 8), Target("a", 64, 8), labels=3)
    assert len(found.works) == 3
    assert (shares(found)[0], shares(found)[-1]) == (shares(every)[0], shares(every)[-1])
    assert 0.0 <= shares(every)[0] < shares(every)[-1] < 1.0
    assert len(plan(Target("a", 1, 8), labels=1).works) == 1
    assert len(plan(Target("a", 1, 8), labels=99).works) == 4


def test_evenly_takes_both_ends() -> None:
    assert evenly(range(10), 4) == [0, 3, 6, 9]
    assert evenly(range(10), 1) == [9]
    assert evenly(range(3), 8) == [0, 1, 2]


def test_wrong_sizes_are_named() -> None:
    for bad in (Target("a", 0, 8), Target("a", 1, -3), Target("a", 1, 8, past_len=-1), Target("a", 2**21, 1)):
        with pytest.raises(InputError, match=r"a: \w+ is "):
            plan(bad)
    with pytest.raises(InputError, match="parts is 'some'"):
        plan(Target("a", 1, 8, parts="some"))
    with pytest.raises(InputError, match="nothing to measure"):
        plan()
    with pytest.raises(InputError, match="on its own"):
        make_plan(
            [Target("a", 1, 8)], lambda t: (double_tree(t)[0], [None] * 4), MeasurementProtocol(), SPEED
        )


def test_windows_are_as_long_as_the_meter_needs() -> None:
    fast = protocol_for(info(0.17, quantum=0.12, window_s=0.17), noise=0.05, level=60.0)
    assert fast.window_s == pytest.approx(3 * 0.17)
    noisy = protocol_for(info(0.17, quantum=0.12), noise=1.0, level=60.0)
    assert 1.5 < noisy.window_s < 5.0
    stock = protocol_for(info(5.0, quantum=0.1), noise=0.1, level=60.0)
    assert stock.window_s == pytest.approx(15.0) and stock.guard_s == pytest.approx(5.5)
    hopeless = protocol_for(info(1.0), noise=30.0, level=60.0)
    assert hopeless.window_s == 20.0
    counter = protocol_for(info(0.02, "energy", quantum=0.001), noise=0.0, level=0.0)
    assert counter.window_s == pytest.approx(0.4)


def test_a_target_says_what_is_unusual_about_it() -> None:
    assert str(Target("m", 8, 128)) == "m 8x128"
    odd = Target("m", 1, 1, "decode", 512, "bfloat16", "eager", "leaves")
    assert str(odd) == "m 1x1 (decode after 512, bfloat16, eager, leaves)"
    assert Work("k", "n", 1.0, ((0, 0),)).places[0] == (0, 0)


def test_where_a_sensor_does_not_always_look_trials_begin_at_changing_moments() -> None:
    quarter = replace(info(0.1), details={"duty": 0.25})
    found, usual = protocol_for(quarter, 0.1, 60.0), protocol_for(info(0.1), 0.1, 60.0)
    assert (found.jitter_s, usual.jitter_s) == (pytest.approx(0.1), 0.0)
    assert found.trial_s(0.01) - usual.trial_s(0.01) == pytest.approx(0.05)
    assert protocol_for(replace(info(0.1), details={"duty": 0.99}), 0.1, 60.0).jitter_s == 0.0
