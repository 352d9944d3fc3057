"""The wall meter against its parts: constants that are fitted, and a residual that raises an alarm."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import pytest

from irene_build.errors import MeterError
from irene_build.meters.emonpi import EmonPi
from irene_build.meters.rapl import RaplMeter
from irene_build.meters.reconcile import Jump, ReconciledMeter, Reconciler
from tests.meters.test_rapl import zone
from tests.meters.test_sums import drawing
from tests.meters.wire import Player, Wire

BOARD_W, EFFICIENCY = 21.0, 0.88
FITTED = {"efficiency", "board_w", "residual_w"}


def feed(reconciler: Reconciler, count: int, fault_w: float = 0.0, seed: int = 1) -> list[Jump]:
    """Pairs of a supply with noise of 0.5 W; parts between 40 and 200 W."""
    draw = random.Random(seed)
    jumps = []
    for place in range(count):
        parts = draw.uniform(40.0, 200.0)
        wall = BOARD_W + parts / EFFICIENCY + draw.gauss(0.0, 0.5) + fault_w
        jumps.append(reconciler.add(place, parts, wall))
    return [jump for jump in jumps if jump is not None]


def test_the_supplys_constants_are_found() -> None:
    reconciler = Reconciler()
    assert feed(reconciler, 300) == []
    assert reconciler.supply.efficiency == pytest.approx(EFFICIENCY, rel=0.01)
    assert reconciler.supply.board_w == pytest.approx(BOARD_W, abs=0.5)
    assert reconciler.sigma_w == pytest.approx(0.5, rel=0.4)


def test_a_long_quiet_campaign_raises_no_alarm() -> None:
    assert [feed(Reconciler(), 5_000, seed=seed) for seed in range(5)] == [[]] * 5


def test_a_jump_is_reported_within_a_few_readings_and_once() -> None:
    reconciler = Reconciler()
    feed(reconciler, 200)
    jumps = feed(reconciler, 100, fault_w=-6.0, seed=2)
    assert len(jumps) == 1
    assert jumps[0].host_time_ns <= 3
    assert jumps[0].residual_w == pytest.approx(-6.0, abs=1.5)
    assert "look for a clamp that moved" in str(jumps[0])
    # The fault is not learnt.
    assert reconciler.supply.board_w == pytest.approx(BOARD_W, abs=0.5)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_pair_that_began_before_the_move_does_not_tell_its_size(share: float) -> None:
    reconciler = Reconciler()
    feed(reconciler, 200)
    assert feed(reconciler, 1, fault_w=share * 60.0, seed=2) == []
    jumps = feed(reconciler, 20, fault_w=60.0, seed=3)
    assert [jump.residual_w for jump in jumps] == [pytest.approx(60.0, abs=2.0)]


def test_a_fault_of_one_pair_is_told_with_its_size() -> None:
    reconciler = Reconciler()
    feed(reconciler, 200)
    assert feed(reconciler, 1, fault_w=40.0, seed=2) == []
    jumps = feed(reconciler, 20, seed=3)
    assert [jump.residual_w for jump in jumps] == [pytest.approx(40.0, abs=2.0)]


def test_an_alarm_ends_with_the_fault_and_the_next_one_counts_again() -> None:
    reconciler = Reconciler()
    feed(reconciler, 200)
    feed(reconciler, 20, fault_w=5.0, seed=2)
    feed(reconciler, 100, seed=3)
    feed(reconciler, 20, fault_w=5.0, seed=4)
    assert len(reconciler.jumps) == 2


def test_a_slow_drift_is_seen_as_well() -> None:
    reconciler = Reconciler()
    feed(reconciler, 200)
    assert feed(reconciler, 100, fault_w=1.2, seed=5)


def test_an_edge_that_one_of_both_sees_first_does_not_make_it_deaf() -> None:
    """At rest the slope is open: what a first edge says of it is wild, and no noise of the meters."""
    reconciler, draw = Reconciler(), random.Random(4)

    def pair(parts: float, wall_parts: float, fault_w: float = 0.0) -> Jump | None:
        wall = BOARD_W + wall_parts / EFFICIENCY + draw.gauss(0.0, 0.5) + fault_w
        return reconciler.add(reconciler.pairs, parts, wall)

    for _ in range(10):
        pair(40.0, 40.0)
    pair(41.0, 70.0)
    for parts in [100.0, 40.0, 55.0] * 20:
        pair(parts, parts)
    assert reconciler.jumps == [] and reconciler.sigma_w < 10.0
    assert [jump for jump in (pair(40.0, 40.0, 60.0) for _ in range(20)) if jump]


def test_a_load_that_was_never_seen_before_is_no_fault() -> None:
    reconciler, draw = Reconciler(), random.Random(5)
    for parts in [40.0] * 60 + [160.0, 60.0] * 60:
        reconciler.add(reconciler.pairs, parts, BOARD_W + parts / EFFICIENCY + draw.gauss(0.0, 0.5))
    assert reconciler.jumps == []
    assert reconciler.supply.efficiency == pytest.approx(EFFICIENCY, rel=0.02)


def test_constants_are_not_given_before_there_are_any() -> None:
    with pytest.raises(MeterError, match="0 pairs"):
        _ = Reconciler().supply


def test_a_wall_meter_is_watched_while_it_is_read(wire: Wire, tmp_path: Path) -> None:
    """An emonPi on a pseudo-terminal beside a powercap tree; then something at the wall draws 40 W more."""
    state = {"parts": 60.0, "fault": 0.0}
    package = zone(tmp_path / "powercap", "intel-rapl:0", "package-0")

    def wall(_: int) -> str:
        power = BOARD_W + state["parts"] / EFFICIENCY + state["fault"]
        return f"V=120.00 I={power / 120.0:.4f}\r\n"

    def watched() -> bool:
        """False where a busy machine held one of both up for so long that it looked like a fault."""
        emonpi = EmonPi({"port": str(wire.port), "baud": 115200, "period_s": 0.02, "grammar": "pattern"})
        rapl = RaplMeter({"root": str(tmp_path / "powercap")})
        state["fault"] = 0.0
        with ReconciledMeter(emonpi, rapl) as meter:
            meter.span_s = 0.05
            end = time.monotonic() + 10.0
            while meter.reconciler.pairs < 45 and time.monotonic() < end:
                state["parts"] = 80.0 + 40.0 * math.sin(3.0 * time.monotonic())
                meter.read_new(0.1)
            if meter.counters()["residual_jumps"]:
                return False
            state["fault"] = 60.0
            end = time.monotonic() + 10.0
            while not meter.reconciler.jumps and time.monotonic() < end:
                meter.read_new(0.1)
            assert meter.counters()["residual_jumps"] == 1
            assert meter.reconciler.jumps[0].residual_w == pytest.approx(60.0, abs=20.0)
            alerts = meter.alerts()
            assert [alert.kind for alert in alerts] == ["residual jump"] and meter.alerts() == []
            assert "wall and parts disagree" in alerts[0].text
            assert alerts[0].detail["residual_w"] == meter.reconciler.jumps[0].residual_w
            details = meter.info.details
            assert details["reconciled_with"] == "rapl" and set(details["supply"]) == FITTED
        return True

    with drawing(package, lambda: state["parts"]), Player(wire, wall, period_s=0.02):
        if not any(watched() for _ in range(4)):
            pytest.skip("this machine is too busy to play two meters side by side")
