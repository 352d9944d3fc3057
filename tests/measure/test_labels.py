"""The arithmetic of labels against integrals and statistics that are known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.measure.clock import ClockMap
from irene_build.measure.labels import (
    Prior,
    Readings,
    WindowEnergy,
    estimate,
    fit_prior,
    moving,
    student_t95,
    window_energy,
    without_lone,
)

SAME = ClockMap(0.0, 0.0, 0.0, 0.0, 1)


def power(times: list[float], watts: list[float], quantum: float = 0.0) -> Readings:
    return Readings(times, watts, False, 1.0, quantum)


@given(
    st.floats(-50.0, 50.0),
    st.floats(0.0, 100.0),
    st.floats(1.0, 4.0),
    st.floats(0.1, 5.0),
    st.floats(0.1, 0.9),
)
def test_the_trapezoid_is_exact_on_a_ramp_wherever_the_window_starts(
    slope: float, level: float, start: float, length: float, period: float
) -> None:
    times = [i * period for i in range(round(12 / period))]
    readings = Readings(times, [level + slope * t for t in times], False, period, 0.0)
    found = window_energy(readings, SAME, start, start + length)
    assert found is not None
    end = start + length
    assert found.energy_j == pytest.approx(
        level * length + slope * (end**2 - start**2) / 2.0, rel=1e-9, abs=1e-9
    )


def test_a_window_that_readings_do_not_cover_or_that_has_a_hole_has_no_label() -> None:
    times = [float(i) for i in range(10) if i not in (5, 6, 7)]
    readings = power(times, [50.0] * len(times))
    assert window_energy(readings, SAME, 1.0, 3.5) is not None
    assert window_energy(readings, SAME, 3.0, 8.5) is None
    assert window_energy(readings, SAME, -0.5, 2.0) is None
    assert window_energy(readings, SAME, 8.5, 9.5) is None
    assert window_energy(power([], []), SAME, 0.0, 1.0) is None


def test_a_counter_is_read_by_difference_and_an_unchanged_reading_is_no_news() -> None:
    # 20 W, polled every 0.1 s, but the counter moves only every 0.5 s.
    times = [i / 10 for i in range(101)]
    counter = [20.0 * math.floor(t * 2 + 1e-9) / 2 for t in times]
    stepped = moving(Readings(times, counter, True, 0.1, 0.001))
    assert len(stepped.times_s) == 21
    found = window_energy(Readings(stepped.times_s, stepped.values, True, 0.5, 0.001), SAME, 2.13, 7.77)
    assert found is not None
    assert found.energy_j == pytest.approx(20.0 * (7.77 - 2.13), rel=1e-9)


def test_a_counter_that_is_looked_at_late_within_a_window_loses_nothing_but_at_its_ends_it_would() -> None:
    times = [i / 100 for i in range(101)]

    def label(*late: float) -> WindowEnergy | None:
        seen = [t for t in times if not any(start < t < start + 0.08 for start in late)]
        return window_energy(Readings(seen, [20.0 * t for t in seen], True, 0.01, 0.0), SAME, 0.255, 0.755)

    found = label(0.4, 0.6)
    assert found is not None and found.energy_j == pytest.approx(10.0)
    assert label(0.23) is None and label(0.7) is None
    half = [t for t in times if not 0.4 < t < 0.6]
    assert window_energy(Readings(half, half, True, 0.01, 0.0), SAME, 0.255, 0.755) is None
    watts = [t for t in times if not 0.4 < t < 0.48]
    assert window_energy(Readings(watts, [20.0] * len(watts), False, 0.01, 0.0), SAME, 0.255, 0.755) is None


def test_a_drifting_meter_sells_seconds_of_its_own_and_the_host_pays_in_its_own() -> None:
    clock = ClockMap(3.0, 0.01, 0.0, 0.0, 2)
    times = [float(i) for i in range(40)]
    found = window_energy(power(times, [100.0] * 40), clock, 10.0, 20.0)
    assert found is not None
    assert found.energy_j == pytest.approx(1000.0, rel=1e-12)


def test_the_clock_error_costs_what_a_shifted_window_would_cross() -> None:
    times = [float(i) for i in range(11)]
    watts = [40.0] * 5 + [90.0] * 6
    plateau = window_energy(power(times, watts), ClockMap(0.0, 0.0, 0.0, 0.2, 1), 6.0, 9.0)
    cliff = window_energy(power(times, watts), ClockMap(0.0, 0.0, 0.0, 0.2, 1), 3.0, 7.0)
    assert plateau is not None and cliff is not None
    assert plateau.error_j == 0.0
    assert cliff.error_j == pytest.approx(0.2 * 50.0)


def test_quantisation_is_in_the_error() -> None:
    found = window_energy(power([float(i) for i in range(11)], [50.0] * 11, quantum=1.2), SAME, 2.0, 6.0)
    assert found is not None
    assert found.error_j == pytest.approx(1.2 / math.sqrt(12.0 * 3) * 4.0)


def test_student_quantiles() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 5, 6.5, 12.3, 29.5, 30, 31, 60, 400):
        assert student_t95(degrees) == pytest.approx(float(scipy_stats.t.ppf(0.975, degrees)), rel=2e-3)


def test_without_a_prior_the_half_width_is_the_textbook_one() -> None:
    found = estimate([9.9, 10.0, 10.1], [0.0, 0.0, 0.0], None)
    assert found.mean_j == pytest.approx(10.0)
    assert found.half_width == pytest.approx(student_t95(2) * 0.1 / math.sqrt(3) / 10.0)
    assert estimate([10.0], [0.0], None).half_width is None


def test_the_instrument_error_does_not_shrink_with_rounds() -> None:
    exact = Prior(0.0, 8.0, 80.0)
    few, many = estimate([10.0] * 2, [0.5] * 2, exact), estimate([10.0] * 5, [0.5] * 5, exact)
    assert few.half_width == many.half_width == pytest.approx(1.96 * 0.05)


def test_all_nodes_together_tell_what_two_rounds_of_one_cannot() -> None:
    groups = [[10.0, 10.0 * (1 + 0.004 * sign)] for sign in (1, -1, 1, -1, 1, -1)]
    prior = fit_prior(groups)
    assert prior is not None and math.sqrt(prior.variance) == pytest.approx(0.004 / math.sqrt(2), rel=0.01)
    alone = estimate([10.0, 10.04], [0.0, 0.0], None)
    moderated = estimate([10.0, 10.04], [0.0, 0.0], prior)
    assert moderated.half_width is not None and alone.half_width is not None
    assert moderated.half_width < 0.3 * alone.half_width
    assert fit_prior(groups[:4]) is None
    assert fit_prior([[10.0, 10.0]] * 6) == Prior(0.0, 6.0, 6.0)


@pytest.mark.parametrize(
    ("degrees", "low", "high"), [(4.0, 3.0, 6.0), (16.0, 9.0, 32.0), (math.inf, 60.0, 1e4)]
)
def test_how_alike_nodes_repeat_is_found_from_their_rounds(degrees: float, low: float, high: float) -> None:
    chance = random.Random(5)
    groups = []
    for _ in range(2000):
        share = 1.0 if math.isinf(degrees) else chance.gammavariate(degrees / 2.0, 2.0 / degrees)
        groups.append([chance.gauss(10.0, 0.05 / math.sqrt(share)) for _ in range(4)])
    prior = fit_prior(groups)
    assert prior is not None
    assert low < prior.degrees < high
    assert math.sqrt(prior.variance) == pytest.approx(0.005, rel=0.06)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("nodes", [12, 100])
def test_a_stated_half_width_holds_in_19_of_20_labels_where_measuring_stops_when_it_is_small(
    spread: float, nodes: int
) -> None:
    chance = random.Random(3)
    held, rounds = [], []
    for _ in range(2400 // nodes):
        # Some nodes repeat better than others, in no way that the method assumes.
        spreads = [0.01 * math.exp(chance.gauss(0.0, spread)) for _ in range(nodes)]
        groups = [[chance.gauss(1.0, own) for _ in range(2)] for own in spreads]
        while True:
            prior = fit_prior(groups)
            found = [estimate(group, [0.0] * len(group), prior) for group in groups]
            again = [i for i, e in enumerate(found) if (e.half_width or 1.0) > 0.009 and len(groups[i]) < 10]
            if not again:
                break
            for i in again:
                groups[i].append(chance.gauss(1.0, spreads[i]))
        held += [abs(e.mean_j - 1.0) <= (e.half_width or 0.0) for e in found]
        rounds += [len(group) for group in groups]
    assert 0.93 <= sum(held) / len(held) <= 0.97
    assert 3.0 < sum(rounds) / len(rounds) < 9.0


@pytest.mark.parametrize("fault", [10_000.0, 0.0, 32.0])
def test_one_frame_of_forty_that_is_alone_is_in_no_label(fault: float) -> None:
    """10 kW, nothing, a digit lost: between readings that agree."""
    values = [300.0 + place % 3 for place in range(200)]
    for place in range(20, 200, 40):
        values[place] = fault
    times = [0.17 * place for place in range(200)]
    found, alone = without_lone(Readings(times, values, False, 0.17, 1.0))
    assert alone == 5 and len(found.times_s) == 195
    clock = ClockMap(0.0, 0.0, 0.0, 0.0, 0, 0.0)
    window = window_energy(found, clock, 1.0, 31.0)
    assert window is not None and window.power_w(30.0) == pytest.approx(301.0, rel=0.002)


def test_a_load_that_swings_or_steps_stays_as_it_was_read() -> None:
    swinging = [300.0 if place % 8 else 80.0 for place in range(200)]
    stepping = [40.0] * 50 + [300.0] * 50 + [40.0] * 50 + [300.0] * 3 + [40.0] * 47
    for values in (swinging, stepping, [300.0, 10.0, 300.0]):
        readings = Readings([float(n) for n in range(len(values))], values, False, 1.0, 1.0)
        assert without_lone(readings) == (readings, 0)
