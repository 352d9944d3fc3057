"""Duty: which share of the time a meter's sensor really looks, found by load pulses of shifting phase."""

from __future__ import annotations

import binascii
import math
import random
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.hardware import load_profile
from irene_build.meters.assess import shortest_window_s
from irene_build.meters.base import Reading
from irene_build.meters.duty_cycle import Duty, find_duty, known_duty, measure_duty, store_duty
from irene_build.meters.emonpi import EmonPi
from irene_build.meters.nvml import NvmlMeter
from tests.meters.wire import Wire
from tests.nvml import FakeNvml

PATTERN = load_profile("virtual").meter["pattern"]


def train(period_s: float, seconds: float, seed: int = 0) -> list[tuple[float, float]]:
    """Busy intervals as ``pulse_train`` makes them, without waiting for them."""
    draw, now, busy = random.Random(seed), 100.0, []

    def length() -> float:
        return period_s * math.pow(10.0, draw.uniform(-0.9, 0.1))

    while now < 100.0 + seconds:
        end = now + length()
        busy.append((now, end))
        now = end + length()
    return busy


def seen(
    busy: list[tuple[float, float]], duty: float, period_s: float, noise_w: float = 0.5, kind: str = "power"
) -> list[Reading]:
    """What a sensor reads that looks at the end of each period, 40 W at rest and 100 W under load."""
    draw, joules, now, found = random.Random(1), 0.0, 100.0, []
    while now < busy[-1][1]:
        now += period_s
        start = now - duty * period_s
        on = sum(max(0.0, min(now, b) - max(start, a)) for a, b in busy) / (now - start)
        watts = 40.0 + 60.0 * on + draw.gauss(0.0, noise_w)
        joules += watts * period_s
        found.append(Reading(round((now + 0.01) * 1e9), watts if kind == "power" else joules))
    return found


@pytest.mark.parametrize("kind", ["power", "energy"])
@pytest.mark.parametrize("duty", [0.1, 0.25, 0.5, 0.75, 1.0])
def test_the_duty_is_found_and_the_stated_interval_holds_it(duty: float, kind: str) -> None:
    busy = train(0.17, 12.0)
    found = find_duty(seen(busy, duty, 0.17, kind=kind), kind, busy)
    assert found.duty is not None and found.low is not None and found.high is not None
    assert found.low <= duty <= found.high and found.high - found.low <= 0.2
    assert found.duty == pytest.approx(duty, abs=0.06)
    assert found.period_s == pytest.approx(0.17)
    assert found.delay_s == pytest.approx(0.01, abs=0.02)


def test_a_running_mean_over_several_periods_looks_all_the_time_and_longer() -> None:
    busy = train(0.1, 12.0)
    found = find_duty(seen(busy, 5.0, 0.1), "power", busy)
    assert found.duty == 1.0
    assert found.window_s == pytest.approx(0.5, rel=0.1)


def test_a_load_that_it_does_not_see_gives_unknown_and_why() -> None:
    busy = train(0.17, 12.0)
    found = find_duty(seen(train(0.17, 12.0, seed=9), 0.5, 0.17, noise_w=10.0), "power", busy)
    assert found.duty is None and "cannot be seen" in found.reason
    still = [Reading(round((100.0 + 0.17 * i) * 1e9), 40.0 + 1e-6 * (i % 2)) for i in range(60)]
    assert find_duty(still, "power", busy).duty is None


@pytest.mark.parametrize("count", [0, 1, 10])
def test_too_few_readings_give_unknown_and_why(count: int) -> None:
    busy = train(5.0, 30.0)
    found = find_duty(seen(busy, 0.5, 5.0)[:count], "power", busy)
    assert found.duty is None and "--seconds" in found.reason


def test_a_perfect_fit_is_an_answer() -> None:
    busy = train(0.17, 12.0)
    found = find_duty(seen(busy, 0.5, 0.17, noise_w=0.0), "power", busy)
    assert found.duty == pytest.approx(0.5, abs=0.02)
    tiny = [Reading(r.host_time_ns, 1e-170 * r.value) for r in seen(busy, 0.5, 0.17)]
    assert find_duty(tiny, "power", busy).reason


# Milliseconds and tenths of a watt: a failure is then shrunk in seconds, not in minutes.
@settings(max_examples=30)
@given(
    values=st.lists(st.integers(0, 10**5).map(lambda i: i / 10.0), min_size=24, max_size=30),
    gaps=st.lists(st.integers(0, 2000).map(lambda i: i / 1e3), min_size=30, max_size=30),
    kind=st.sampled_from(["power", "energy"]),
)
def test_any_readings_give_a_share_or_a_reason(values: list[float], gaps: list[float], kind: str) -> None:
    times = 100.0 + np.cumsum(gaps)
    readings = [Reading(round(t * 1e9), value) for t, value in zip(times, values, strict=False)]
    found = find_duty(readings, kind, train(0.5, 5.0))
    if found.duty is None:
        assert found.reason
    else:
        assert found.low is not None and found.high is not None
        assert 0.0 <= found.low <= found.duty <= found.high <= 1.0


class Sensor:
    """Looks ``duty`` of each period at a load, which ``burn`` turns on, and hands on (s, W)."""

    def __init__(self, duty: float, period_s: float, hand_on: Callable[[float, float], None]) -> None:
        self._duty, self._period_s, self._hand_on = duty, period_s, hand_on
        self._edges: list[tuple[float, bool]] = [(time.monotonic() - 1.0, False)]
        self.late_s: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sensor:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def burn(self, seconds: float) -> None:
        self._edges.append((time.monotonic(), True))
        time.sleep(seconds)
        self._edges.append((time.monotonic(), False))

    def _share(self, start: float, end: float) -> float:
        on = [
            max(0.0, min(b[0], end) - max(a[0], start))
            for a, b in pairwise([*self._edges, (end, False)])
            if a[1]
        ]
        return sum(on) / (end - start)

    def _run(self) -> None:
        draw, start = random.Random(3), time.monotonic()
        due = start
        while not self._stop.is_set():
            due += self._period_s
            time.sleep(max(0.0, due - time.monotonic()))
            self.late_s.append(time.monotonic() - due)
            watts = 40.0 + 60.0 * self._share(due - self._duty * self._period_s, due) + draw.gauss(0.0, 0.5)
            self._hand_on(due - start, watts)


@pytest.mark.parametrize("duty", [0.25, 0.5, 1.0])
def test_an_emonpi_on_a_real_port_is_found_out(tmp_path: Path, duty: float) -> None:
    wire = Wire(tmp_path)

    def send(now_s: float, watts: float) -> None:
        text = f"T={now_s:.3f} V=100.00 I={watts / 100.0:.3f}"
        wire.send(f"{text}*{binascii.crc_hqx(text.encode('ascii'), 0):04X}\r\n")

    config = {
        "port": str(wire.port),
        "baud": 115200,
        "grammar": "pattern",
        "pattern": PATTERN,
        "period_s": 0.05,
    }
    with Sensor(duty, 0.05, send) as sensor, EmonPi(config) as meter:
        found = measure_duty({"emonpi": meter}, sensor.burn, 2.5)["emonpi"]
    wire.unplug()
    assert found.duty == pytest.approx(duty, abs=0.1), found
    assert found.low is not None and found.high is not None
    assert found.low - 0.05 <= duty <= found.high + 0.05


def test_a_gpu_whose_power_is_sampled_a_quarter_of_the_time_is_found_out(fake_nvml: FakeNvml) -> None:
    """As an A100: every 100 ms the driver gives the mean over the last 25 ms, however often it is asked."""
    fake_nvml.set(energy_error=3, instant_w=40.0)
    for _ in range(3):
        with (
            Sensor(0.25, 0.1, lambda _, watts: fake_nvml.set(instant_w=watts)) as sensor,
            NvmlMeter({"poll_s": 0.005}) as meter,
        ):
            found = measure_duty({"nvml": meter}, sensor.burn, 5.0)["nvml"]
        # Its readings have no clock of their own: a machine that holds the sensor up makes it another one.
        if np.std(sensor.late_s) < 0.004:
            break
        assert found.duty is not None or found.reason
    else:
        pytest.skip("this machine is too busy to play a sensor on time")
    assert found.period_s == pytest.approx(0.1, abs=0.02)
    assert found.duty == pytest.approx(0.25, abs=0.1), found
    assert found.low is not None and found.high is not None
    assert found.low - 0.05 <= 0.25 <= found.high + 0.05


def test_it_is_kept_for_each_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRENE_ARTIFACTS", str(tmp_path))
    wire = Wire(tmp_path)
    info = EmonPi({"port": str(wire.port)}).info
    other = EmonPi({"port": "/dev/ttyOTHER"}).info
    wire.unplug()
    assert known_duty(info) is None
    found = Duty(0.25, 0.2, 0.3, 0.04, 0.01, 0.17, 0.9)
    path = store_duty(info, found)
    assert known_duty(info) == found and known_duty(other) is None
    path.write_text("[]")
    assert known_duty(info) is None
    path.write_text('{"x": 1')
    store_duty(info, found)
    assert known_duty(info) == found


def test_the_window_for_a_swinging_load_has_the_error_that_it_claims() -> None:
    """What the sensor sees and what it does not are each anywhere between nothing and all of the power."""
    duty, period, power = 0.25, 0.1, 100.0
    window = shortest_window_s(power, 0.0, period, duty=duty)
    assert window is not None and window > 10.0 * (shortest_window_s(power, 0.0, period) or 0.0)
    draw = np.random.default_rng(7)
    seen_w, unseen_w = draw.uniform(0.0, power, (2, 400, round(window / period)))
    errors = (seen_w - (duty * seen_w + (1.0 - duty) * unseen_w)).mean(axis=1) / power
    assert 0.92 <= float((np.abs(errors) < 0.01).mean()) <= 0.98


def test_a_sensor_that_always_looks_needs_no_more() -> None:
    assert shortest_window_s(80.0, 2.0, 0.17, duty=1.0) == shortest_window_s(80.0, 2.0, 0.17)
