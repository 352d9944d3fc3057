"""The time that a campaign still takes, on a clock of the test's own."""

from __future__ import annotations

import itertools

import pytest

from irene_build.measure import pace as module
from irene_build.measure.pace import Pace


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 500.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_guesses_hold_until_trials_say_otherwise(clock: Clock) -> None:
    pace = Pace()
    assert pace.seconds([2.0, 3.0]) == 5.0
    for _ in range(100):
        pace.ended(2.0, 6.0)
    assert pace.seconds([2.0]) == pytest.approx(6.0, rel=0.1)


def test_one_slow_trial_does_not_make_the_pace(clock: Clock) -> None:
    pace = Pace()
    pace.ended(2.0, 20.0)
    assert pace.seconds([2.0]) < 6.0


def test_what_is_told_is_the_whole_campaign_and_ends_with_no_jump(clock: Clock) -> None:
    """Three rounds of ten nodes, each of which takes a little longer than was guessed."""
    pace, told, shares = Pace(), [], []
    for number in range(1, 4):
        for done in range(10):
            left = pace.left_s([1.0] * (10 - done), [1.0] * 10, 3 - number, None, number == 1)
            told.append(left)
            shares.append(pace.share(left))
            clock.now += 1.2
            pace.ended(1.0, 1.2)
    true = [36.0 - 1.2 * n for n in range(30)]
    assert all(abs(left - truth) <= 6.1 for left, truth in zip(told, true, strict=True))
    assert all(abs(b - a) < 3.0 for a, b in itertools.pairwise(told)), "at the end of a round as well"
    assert shares == sorted(shares) and shares[-1] > 0.9


def test_a_budget_ends_it_but_not_before_every_node_has_a_label(clock: Clock) -> None:
    pace = Pace()
    assert pace.left_s([1.0] * 5, [1.0] * 10, 9, 20.0, False) == 20.0
    assert pace.left_s([1.0] * 5, [1.0] * 10, 9, 2.0, True) == 5.0
    assert pace.left_s([1.0] * 5, [1.0] * 10, 9, 2.0, False) == 2.0
