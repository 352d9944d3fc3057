"""Clock alignment: a pulse is found wherever the meter's clock stands, and drift comes out of several."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.measure.clock import PATTERN, ClockMap, PulseFit, arrival_clock, fit_clock, fit_pulse


def pulse(start: float, unit: float) -> list[tuple[float, float]]:
    return [(start + 2 * unit, start + 4 * unit), (start + 5 * unit, start + 6 * unit)]


def frames(
    busy: list[list[tuple[float, float]]],
    until: float,
    period: float,
    to_meter: Callable[[float], float],
    noise: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What a meter reports that averages over each frame and stamps its end with its own clock."""
    random = np.random.default_rng(seed)
    ends = np.arange(period * random.uniform(0.2, 1.0), until, period)
    fine = np.linspace(-period, 0.0, 200)
    intervals = [interval for one in busy for interval in one]
    watts = [60 + 40 * np.mean([any(a <= t < b for a, b in intervals) for t in end + fine]) for end in ends]
    return np.array([to_meter(e) for e in ends]), np.array(watts) + random.normal(0.0, noise, len(ends))


def test_a_meter_three_seconds_off_that_drifts_200_ppm_is_mapped_within_a_tenth_of_a_frame() -> None:
    period, unit = 0.17, 0.35
    starts = [5.0, 300.0, 600.0, 895.0]
    busy = [pulse(start, unit) for start in starts]

    def to_meter(host: float) -> float:
        return host + 3.0 + 200e-6 * host

    times, watts = frames(busy, 900.0, period, to_meter, noise=1.5, seed=1)
    arrival = arrival_clock([t / (1 + 200e-6) - 3.0 for t in times], times, period)
    fits = [fit_pulse(times, watts, one, 2 * unit, period, arrival.offset_at(one[0][0]), 5.0) for one in busy]
    assert all(fit.found for fit in fits)
    clock = fit_clock(fits, arrival, own_clock=True)
    # A frame's stamp is its end; its middle is half a frame earlier, which belongs to the offset.
    for host in (5.0, 450.0, 895.0):
        assert clock.to_meter(host) == pytest.approx(to_meter(host) + period / 2, abs=0.02)
    assert clock.drift == pytest.approx(200e-6, abs=30e-6)
    assert 0.0 < clock.residual_s < 0.03


@settings(max_examples=25, deadline=None)
@given(st.floats(-4.5, 4.5), st.integers(0, 1000), st.sampled_from([0.05, 0.17, 1.0]))
def test_any_offset_in_the_search_range_is_found_to_a_fraction_of_a_frame(
    offset: float, seed: int, period: float
) -> None:
    busy = pulse(20.0, 2.1 * period)
    times, watts = frames([busy], 40.0, period, lambda t: t + offset, noise=1.0, seed=seed)
    fit = fit_pulse(times, watts, busy, 4.2 * period, period, 0.0, 5.0)
    assert fit.found
    assert abs(fit.offset_s - offset - period / 2) < max(0.25 * period, 4 * fit.std_s)


def test_other_work_close_to_the_pulse_does_not_hide_it() -> None:
    period, unit, busy = 0.17, 0.35, pulse(10.0, 0.35)
    times, watts = frames([busy], 20.0, period, lambda t: t - 1.5, noise=1.0, seed=4)
    host = times + 1.5
    watts = watts + 25.0 * (((host > 6.0) & (host < 8.9)) | ((host > 13.2) & (host < 15.0)))
    fit = fit_pulse(times, watts, busy, 2 * unit, period, 0.0, 5.0)
    assert fit.found and fit.offset_s == pytest.approx(-1.5 + period / 2, abs=0.04)


def test_readings_without_the_pulse_are_not_believed() -> None:
    random = np.random.default_rng(0)
    times = np.arange(0.0, 30.0, 0.17)
    flat = fit_pulse(times, np.full(times.size, 60.0), pulse(10.0, 0.35), 0.7, 0.17, 0.0, 3.0)
    falling = fit_pulse(times, 60.0 - (times > 15.0) * 20.0, pulse(10.0, 0.35), 0.7, 0.17, 0.0, 0.1)
    noise = fit_pulse(times, random.normal(60.0, 1.0, times.size), pulse(10.0, 0.35), 0.7, 0.17, 0.0, 3.0)
    assert not flat.found and not falling.found and not noise.found


def test_so_few_readings_that_any_pulse_looks_like_them_are_not_believed() -> None:
    """A pulse of 17 units that a late host saw in a dozen readings of nothing but noise."""
    busy, now = [], 10.0
    for on, length in PATTERN:
        if on:
            busy.append((now, now + length))
        now += length
    taken = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        times = np.cumsum(random.uniform(0.7, 2.3, 30))
        fit = fit_pulse(times, random.normal(60.0, 5.0, 30), busy, 2.0, 1.0, 0.0, 5.0)
        taken += fit.found
    assert taken == 0


def test_without_a_pulse_the_arrival_is_what_is_known_and_the_residual_admits_it() -> None:
    host = np.arange(0.0, 60.0, 0.2)
    arrival = arrival_clock(host, 2.0 + host * 1.0001, 0.2)
    clock = fit_clock([PulseFit(5.0, 0.0, math.inf, 0.0, 0.0)], arrival, own_clock=True)
    assert clock == arrival
    assert clock.pulses == 0 and clock.residual_s == 0.2
    assert clock.drift == pytest.approx(1e-4, abs=1e-7)


def test_one_pulse_takes_its_drift_from_the_arrivals_and_a_host_stamped_meter_has_none() -> None:
    arrival = ClockMap(3.0, 2e-4, 100.0, 0.17, 0)
    fits = [PulseFit(10.0, 3.0, 0.01, 0.95, 9.0)]
    assert fit_clock(fits, arrival, own_clock=True).drift == 2e-4
    assert fit_clock([*fits, PulseFit(500.0, 3.1, 0.01, 0.9, 9.0)], arrival, own_clock=False).drift == 0.0


def test_the_campaigns_own_pulse_is_found_beside_somebody_elses_work_and_nothing_else_is_taken_for_it() -> (
    None
):
    """Two cores; others switch one of them, or both, on and off at random while the pulse wants both."""
    period, unit, offset = 0.17, 0.35, 0.8
    found = {1: 0, 2: 0}
    wrong = trials = 0
    for cores in found:
        for seed in range(40):
            random = np.random.default_rng(seed)
            busy, now = [], 22.0
            for on, length in PATTERN:
                if on:
                    busy.append((now, now + length * unit))
                now += length * unit
            fine = np.arange(0.0, 45.0, 0.01)
            work = np.zeros(fine.size)
            for _ in range(cores):
                switches = np.cumsum(random.exponential(1.0, 200))
                work += np.searchsorted(switches, fine) % 2
            for start, end in busy:
                work[(fine >= start) & (fine < end)] = 2.0
            watts = 46.0 + 67.0 * (np.minimum(work, 2.0) / 2.0) ** 0.9
            joules = np.concatenate([[0.0], np.cumsum(watts) * 0.01])
            ends = np.arange(period * random.uniform(1.0, 2.0), 44.0, period)
            edges = np.append(fine, 45.0)
            mean = (np.interp(ends, edges, joules) - np.interp(ends - period, edges, joules)) / period
            mean += random.normal(0.0, 0.4, ends.size)
            fit = fit_pulse(ends + offset, mean, busy, 2 * unit, period, random.uniform(-0.2, 0.2), 5.0)
            right = abs(fit.offset_s - offset - period / 2) < max(0.25 * period, 4 * fit.std_s)
            found[cores] += fit.found and right
            wrong += fit.found and not right
            trials += 1
    assert found[1] == 40 and found[2] >= 28
    assert wrong <= 0.02 * trials
