"""What the doctor says of a meter, on readings whose figures are known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.meters.assess import figures, shortest_window_s
from irene_build.meters.base import Reading


def power_readings(noise_w: float = 2.0, count: int = 400, seed: int = 3) -> list[Reading]:
    draw = random.Random(seed)
    return [Reading(170_000_000 * i, round(80.0 + draw.gauss(0.0, noise_w), 1)) for i in range(count)]


def test_the_figures_of_a_power_meter() -> None:
    found = figures(power_readings(), "power", 0.1, 400 * 0.17)
    assert found.period_s == pytest.approx(0.17)
    assert found.jitter_s == pytest.approx(0.0, abs=1e-9)
    assert found.coverage == pytest.approx(0.1 / 0.17, rel=0.01)
    assert found.quantum == pytest.approx(0.1)
    assert found.power_w == pytest.approx(80.0, abs=0.5)
    assert found.noise_w == pytest.approx(2.0, rel=0.15)


def test_a_slow_drift_is_no_noise() -> None:
    readings = [Reading(170_000_000 * i, 80.0 + 0.01 * i) for i in range(400)]
    assert figures(readings, "power", 0.17, 68.0).noise_w == pytest.approx(0.007, abs=0.002)


def test_the_figures_of_a_counter() -> None:
    readings = [Reading(20_000_000 * i, 1.5 * i) for i in range(100)]
    found = figures(readings, "energy", 0.0, 2.0)
    assert (found.coverage, found.quantum) == (1.0, pytest.approx(1.5))
    assert found.power_w == pytest.approx(75.0)
    # 1.96 p / (sqrt(6) 1 %): only the ends of a window weigh.
    assert found.shortest_window_s == pytest.approx(1.96 * 0.02 / math.sqrt(6.0) / 0.01, rel=1e-6)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_readings_are_not_judged(count: int) -> None:
    found = figures(power_readings(count=count), "power", 0.17, 1.0)
    assert found.readings == count
    assert found.period_s is found.noise_w is found.shortest_window_s is None


@given(power=st.floats(1, 1e4), noise=st.floats(0, 100), period=st.floats(1e-3, 10))
def test_the_shortest_window_has_the_error_that_it_claims(power: float, noise: float, period: float) -> None:
    window = shortest_window_s(power, noise, period)
    assert window is not None
    variance = noise**2 * period / window + (power * period) ** 2 / (6.0 * window**2)
    assert 1.96 * math.sqrt(variance) / power == pytest.approx(0.01, rel=1e-6)


def test_nothing_drawn_has_no_window() -> None:
    assert shortest_window_s(0.0, 1.0, 0.17) is None


def test_noise_in_a_simulated_measurement_stays_within_one_percent_as_promised() -> None:
    """Windows of the promised length over readings of that noise: 95 % of them within 1 %, steady load."""
    noise, period, power = 4.0, 0.17, 80.0
    window = shortest_window_s(power, noise, period)
    assert window is not None
    draw = random.Random(5)
    count = int(window / period)
    means = [sum(draw.gauss(power, noise) for _ in range(count)) / count for _ in range(300)]
    assert sum(abs(mean / power - 1.0) < 0.01 for mean in means) >= 285
