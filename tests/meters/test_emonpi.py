"""The emonPi driver on a real pseudo-terminal, read by the real pyserial, with everything that goes wrong."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irene_build.errors import HardwareError, MeterError
from irene_build.meters import threaded
from irene_build.meters.emonpi import EmonPi
from tests.meters.wire import Player, Wire, classic, collect, until


def config(wire: Wire, **more: Any) -> dict[str, Any]:
    return {"port": str(wire.port), "baud": 115200, "period_s": 0.05, "listen_s": 3.0, **more}


def test_it_finds_the_dialect_by_listening(wire: Wire) -> None:
    for line, kind, power in (
        (classic(312) + "\r\n", "classic", 312.0),
        ('{"V1":230.47,"P1":118,"pulse":0}\r\n', "json", 118.0),
        ("V1:230.47,P1:205,pulse:0\r\n", "keyvalue", 205.0),
        ("V=120.00 I=1.500\r\n", "pattern", 180.0),
    ):
        with Player(wire, lambda _, line=line: line), EmonPi(config(wire)) as meter:
            readings = collect(meter, 3)
            assert {r.value for r in readings} == {power}
            assert meter.info.details["grammar"] == kind
        wire.unplug()
        wire.plug()


def test_it_finds_the_baud_rate_by_listening(wire: Wire) -> None:
    def line(count: int) -> bytes:
        right = wire.baud() == 9600
        return (classic(100) + "\r\n").encode() if right else bytes([0xE6, 0xFE, 0x98, 0x0A, 0x86, 0xF8])

    with Player(wire, line, period_s=0.01), EmonPi(config(wire, baud="auto")) as meter:
        assert collect(meter, 2)[0].value == 100.0
        assert meter.info.details["baud"] == 9600


def test_the_period_is_the_devices_own_not_the_profiles(wire: Wire) -> None:
    with (
        Player(wire, lambda _: classic(100) + "\r\n", period_s=0.3),
        EmonPi(config(wire, period_s=0.02)) as meter,
    ):
        assert meter.info.period_s == pytest.approx(0.3, rel=0.3)
        collect(meter, 4)
        assert meter.counters()["missing"] == 0


def test_the_clamps_turns_are_divided_out(wire: Wire) -> None:
    with Player(wire, lambda _: classic(900) + "\r\n"), EmonPi(config(wire, ct_turns=3)) as meter:
        assert collect(meter, 1)[0].value == 300.0
        assert meter.info.quantum == pytest.approx(1.0 / 3.0)


def test_a_command_is_sent_to_the_meter_once_it_is_open(wire: Wire) -> None:
    with Player(wire, lambda _: classic(90) + "\r\n"), EmonPi(config(wire, command="d1")) as meter:
        collect(meter, 1)
        assert wire.heard() == b"d1\r\n"


def test_every_fault_is_counted_and_kept_in_quarantine(wire: Wire, tmp_path: Path) -> None:
    quarantine = tmp_path / "rejected.txt"
    noise = [
        b"|\r\n",
        b"emonPi V2.9.4\r\n",
        b"OK 19 1 0 0 0 (-45)\r\n",
        b"? 5 3 1 0 0 (-99)\r\n",
        b"OK 5 56 1 0 0 56 1 7\r\n",
        b"\xff\xfe\x80\x81\r\n",
        (classic(312, voltage=301.0) + "\r\n").encode(),
        (classic(-200) + "\r\n").encode(),
    ]

    def line(count: int) -> bytes:
        frame = (classic(312) + "\r\n").encode()
        return frame + noise[count] if count < len(noise) else frame

    with Player(wire, line), EmonPi(config(wire, quarantine=str(quarantine))) as meter:
        readings = collect(meter, len(noise) + 3)
        counts = meter.counters()
    assert {r.value for r in readings} == {312.0}
    expected = {
        "banner": 2, "foreign": 1, "rejected": 1, "torn": 1, "undecodable": 1, "implausible": 1,
        "reversed": 1,
    }  # fmt: skip
    assert {name: counts[name] for name in expected} == expected
    kept = quarantine.read_text().splitlines()
    assert len(kept) == sum(expected.values())
    assert any(line.split()[1] == "undecodable" and r"\xff\xfe" in line for line in kept)


def test_a_frame_that_comes_twice_counts_once_and_a_lost_one_is_missed(wire: Wire) -> None:
    numbers = iter([1, 2, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17])

    with (
        Player(wire, lambda _: f"MSG:{next(numbers, 99)},V1:230.00,P1:50,pulse:0\r\n"),
        EmonPi(config(wire)) as meter,
    ):
        collect(meter, 6)
        counts = meter.counters()
    assert (counts["duplicated"], counts["missing"]) == (1, 2)


def test_a_silence_is_counted_in_frames_even_without_numbers(wire: Wire) -> None:
    with EmonPiUnderTest(wire) as meter:
        collect(meter, 2)
        before = meter.counters()["missing"]
        time.sleep(0.6)
        wire.send(classic(100) + "\r\n")
        collect(meter, 1)
        # Twelve periods of 50 ms, give or take the scheduling of a busy machine.
        assert 6 <= meter.counters()["missing"] - before <= 20


def test_bytes_that_arrive_in_pieces_make_whole_frames(wire: Wire) -> None:
    data = (classic(77) + "\r\n").encode()
    pieces = Player(wire, lambda i: data[i % len(data) : i % len(data) + 1], period_s=0.002)
    with pieces, EmonPi(config(wire)) as meter:
        assert {r.value for r in collect(meter, 2)} == {77.0}


def test_unplugging_is_survived_and_counted(wire: Wire) -> None:
    with EmonPiUnderTest(wire) as meter:
        collect(meter, 2)
        wire.unplug()
        until(lambda: meter.counters().get("disconnects", 0) == 1)
        assert meter.read_new(0.0) is not None
        wire.plug()
        until(lambda: meter.counters().get("reconnects", 0) == 1)
        wire.send("\r\n")
        for _ in range(3):
            wire.send(classic(200) + "\r\n")
            time.sleep(0.05)
        assert collect(meter, 2)[-1].value == 200.0
        assert meter.counters()["missing"] >= 1


class EmonPiUnderTest(EmonPi):
    """Opened with frames that are already on the line."""

    def __init__(self, wire: Wire, **more: Any) -> None:
        super().__init__(config(wire, **more))
        self._wire = wire

    def __enter__(self) -> EmonPiUnderTest:
        with Player(self._wire, lambda _: classic(100) + "\r\n"):
            super().__enter__()
            time.sleep(0.2)
        return self


def test_a_meter_that_stays_away_is_an_error_that_says_so(wire: Wire) -> None:
    with EmonPiUnderTest(wire, reconnect_s=0.3) as meter:
        meter.read_new(0.2)
        wire.unplug()
        with pytest.raises(MeterError, match=r"gone, and not back within .* plug it in"):
            for _ in range(50):
                meter.read_new(0.2)


def test_a_silent_port_is_not_a_meter(wire: Wire) -> None:
    with pytest.raises(HardwareError, match=r"no emonPi frames on .*: silence"):
        EmonPi(config(wire, listen_s=0.3)).__enter__()


def test_a_clamp_the_wrong_way_round_is_told(wire: Wire) -> None:
    with Player(wire, lambda _: classic(-150) + "\r\n"):
        with pytest.raises(HardwareError, match=r"wrong way round.*meter\.reverse"):
            EmonPi(config(wire, listen_s=0.5)).__enter__()
        with EmonPi(config(wire, reverse=True)) as meter:
            assert collect(meter, 1)[0].value == 150.0


def test_a_port_that_does_not_exist_says_which(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="nowhere"):
        EmonPi({"port": str(tmp_path / "nowhere"), "baud": 9600}).__enter__()


def test_times_strictly_increase_and_bunched_frames_are_spread(wire: Wire) -> None:
    with EmonPiUnderTest(wire) as meter:
        meter.read_new(0.0)
        time.sleep(0.3)
        wire.send((classic(110) + "\r\n" + classic(111) + "\r\n" + classic(112) + "\r\n") * 2)
        readings = collect(meter, 6)
        times = [r.host_time_ns for r in readings]
        assert all(a < b for a, b in itertools.pairwise(times))
        assert meter.counters()["bunched"] >= 5
        assert 0.02 < (times[-1] - times[-2]) / 1e9 < 0.1


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8))
def test_no_garbage_on_the_wire_makes_a_reading_that_was_not_sent(wire: Wire, garbage: list[bytes]) -> None:
    with EmonPiUnderTest(wire) as meter:
        wire.send(b"\r\n")
        for piece in garbage:
            wire.send(piece + b"\n")
        wire.send(classic(101) + "\r\n")
        end = time.monotonic() + 3.0
        values: list[float] = []
        while 101.0 not in values:
            assert time.monotonic() < end
            values += [r.value for r in meter.read_new(0.1)]
        assert set(values) <= {100.0, 101.0}


@pytest.mark.parametrize("damaged", ["32", "3312", "12", "3123", "912"])
def test_a_digit_lost_or_doubled_is_seen_by_the_lines_around_it(wire: Wire, damaged: str) -> None:
    lines = [
        f"MSG:{n},V1:230.47,P1:{damaged if n == 6 else 310 + n % 5},E1:12,pulse:0\r\n" for n in range(1, 40)
    ]
    with Player(wire, lambda n: lines[n], 0.03), EmonPi(config(wire)) as meter:
        values = {r.value for r in collect(meter, 20)}
        assert meter.counters()["torn"] == 1
    assert float(damaged) not in values and values == {310.0, 311.0, 312.0, 313.0, 314.0}


def test_a_load_that_lasts_is_no_damage_and_keeps_its_times(wire: Wire) -> None:
    def line(count: int) -> str:
        return f"V1:230.47,P1:{60 if count % 10 < 5 else 320},E1:12,pulse:0\r\n"

    with Player(wire, line, 0.03), EmonPi(config(wire)) as meter:
        readings = collect(meter, 30)
        assert meter.counters().get("torn", 0) == 0
    gaps = [(b.host_time_ns - a.host_time_ns) / 1e9 for a, b in itertools.pairwise(readings)]
    assert {r.value for r in readings} == {60.0, 320.0} and max(gaps) < 0.2


def test_a_load_that_swings_from_frame_to_frame_is_not_halved(wire: Wire) -> None:
    with (
        Player(wire, lambda n: f"V1:230.47,P1:{320 if n % 2 else 60},E1:12,pulse:0\r\n", 0.02),
        EmonPi(config(wire)) as meter,
    ):
        values = [r.value for r in collect(meter, 60)]
    assert values.count(320.0) == pytest.approx(values.count(60.0), abs=5)


def test_a_power_that_the_meters_own_energy_contradicts_is_torn(wire: Wire) -> None:
    """At 0.05 s a frame, 2 Wh in a frame are 144 kW: only the frame whose energy stood still says so little."""

    def line(count: int) -> str:
        return f"MSG:{count + 1},V1:230.47,P1:312,E1:{7 if count != 9 else 70},pulse:0\r\n"

    with Player(wire, line, 0.05), EmonPi(config(wire)) as meter:
        collect(meter, 14)
        assert meter.counters()["torn"] == 1


def test_a_power_that_stands_still_is_told_once(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "FROZEN_S", 0.3)
    with Player(wire, lambda _: classic(312) + "\r\n", 0.01), EmonPi(config(wire)) as meter:
        told: list[str] = []
        until(lambda: bool(told.extend(alert.text for alert in meter.alerts()) or told))
        collect(meter, 60)
        assert len(told) == 1 and "shows 312 W without any change" in told[0] and meter.alerts() == []
