"""RAPL through a powercap tree in a folder, laid out as the kernel does."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.errors import HardwareError, MeterError
from irene_build.meters import rapl
from irene_build.meters.rapl import RaplMeter, unwrapped_j, zones
from tests.meters.wire import collect, until

RANGE = 262_143_328_850


def zone(root: Path, place: str, name: str, energy_uj: int = 1_000_000, range_uj: int = RANGE) -> Path:
    folder = root / place
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    count(folder, energy_uj)
    return folder


def count(folder: Path, energy_uj: int) -> None:
    # In place, since the driver holds the file open; padded, so that no look meets half a number.
    descriptor = os.open(folder / "energy_uj", os.O_WRONLY | os.O_CREAT)
    os.pwrite(descriptor, f"{energy_uj:>20}\n".encode(), 0)
    os.close(descriptor)


@contextmanager
def moving(folders: list[Path]) -> Iterator[None]:
    """Counters that rise together, at 50 W."""
    stop = threading.Event()

    def run() -> None:
        energy = 1_000_000
        while not stop.wait(0.01):
            energy += 500_000
            for folder in folders:
                count(folder, energy)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_package_and_memory_are_added_and_what_lies_inside_is_not(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0")
    core = zone(tmp_path, "intel-rapl:0:0", "core")
    memory = zone(tmp_path, "intel-rapl:0:1", "dram")
    psys = zone(tmp_path, "intel-rapl:1", "psys")
    (tmp_path / "intel-rapl").mkdir()
    with RaplMeter({"root": str(tmp_path)}) as meter:
        for folder, joules in ((package, 50), (core, 30), (memory, 7), (psys, 90)):
            count(folder, 1_000_000 + joules * 1_000_000)
        until(lambda: any(r.value == pytest.approx(57.0) for r in meter.read_new(0.1)))
        assert meter.info.boundary == "cpu+dram"
        assert meter.info.details["left_out"] == ["core: inside the package", "psys: holds package and dram"]


def test_zones_are_told_by_name_not_by_number(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "dram")
    zone(tmp_path, "intel-rapl:7", "package-1")
    with RaplMeter({"root": str(tmp_path)}) as meter:
        assert meter.info.boundary == "cpu+dram"


def test_the_platform_counter_replaces_its_parts_where_it_is_asked_for(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    psys = zone(tmp_path, "intel-rapl:1", "psys")
    with RaplMeter({"root": str(tmp_path), "psys": True}) as meter:
        count(psys, 13_000_000)
        until(lambda: any(r.value == pytest.approx(12.0) for r in meter.read_new(0.1)))
        assert meter.info.boundary == "platform"


def test_the_platform_of_two_sockets_is_both_counters(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    both = [zone(tmp_path, f"intel-rapl:{n}", name) for n, name in ((1, "psys"), (3, "psys-1"))]
    with RaplMeter({"root": str(tmp_path), "psys": True}) as meter:
        for platform in both:
            count(platform, 13_000_000)
        until(lambda: any(r.value == pytest.approx(24.0) for r in meter.read_new(0.1)))
        assert meter.info.boundary == "platform"
    with RaplMeter({"root": str(tmp_path)}) as meter:
        assert meter.info.details["zones"] == {"intel-rapl:0": "package-0"}


def test_two_sockets_with_equal_counters_are_two_and_that_is_told(tmp_path: Path) -> None:
    sockets = [zone(tmp_path, f"intel-rapl:{n}", f"package-{n}") for n in range(2)]
    with moving(sockets), RaplMeter({"root": str(tmp_path)}) as meter:
        assert len(meter.info.details["zones"]) == 2
        assert [alert.kind for alert in meter.alerts()] == ["equal counters"]


def test_a_zone_without_a_range_is_left_out_and_that_is_told(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    zone(tmp_path, "intel-rapl:1", "package-1", range_uj=0)
    with RaplMeter({"root": str(tmp_path)}) as meter:
        told = meter.alerts()
        assert [alert.kind for alert in told] == ["zones left out"] and "package-1" in told[0].text
        assert any("package-1" in text for text in meter.info.details["left_out"])
        assert meter.alerts() == []


def test_a_read_that_fails_for_a_moment_loses_no_joule(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0")
    with RaplMeter({"root": str(tmp_path)}) as meter:
        (package / "energy_uj").write_text("")
        until(lambda: meter.counters().get("read_failed", 0) > 1)
        count(package, 8_000_000)
        until(lambda: any(r.value == pytest.approx(7.0) for r in meter.read_new(0.1)))


def test_the_memory_mapped_twin_of_a_zone_is_left_out(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    assert [z.path.name for z in zones(str(tmp_path))] == ["intel-rapl:0"]


def test_a_memory_mapped_zone_alone_is_taken(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    assert [z.path.name for z in zones(str(tmp_path))] == ["intel-rapl-mmio:0"]


def test_mirrored_dies_count_once(tmp_path: Path) -> None:
    dies = [zone(tmp_path, f"intel-rapl:{i}", f"package-0-die-{i}") for i in range(2)]
    # Written one after the other, they are seen apart now and then: what counts is that they end up equal.
    with moving(dies), RaplMeter({"root": str(tmp_path)}) as meter:
        assert len(meter.info.details["zones"]) == 1
        assert any("mirrors" in text for text in meter.info.details["left_out"])


def test_two_sockets_that_differ_count_both(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0")
    second = zone(tmp_path, "intel-rapl:1", "package-1", energy_uj=5)
    with RaplMeter({"root": str(tmp_path)}) as meter:
        count(first, 2_000_000)
        count(second, 3_000_005)
        until(lambda: any(r.value == pytest.approx(4.0) for r in meter.read_new(0.1)))


@pytest.mark.parametrize("poll_s", [0.005, 0.05, 3600.0])
def test_a_counter_that_wraps_loses_nothing_at_any_polling_rate(tmp_path: Path, poll_s: float) -> None:
    """A small counter wraps every ten steps here."""
    full = 100_000_000
    package = zone(tmp_path, "intel-rapl:0", "package-0", energy_uj=full - 1_000_000, range_uj=full)
    with RaplMeter({"root": str(tmp_path), "poll_s": poll_s}) as meter:
        for step in range(1, 31):
            count(package, (full - 1_000_000 + 10_000_000 * step) % (full + 1))
            # A busy machine may look late; the counter here waits until it was looked at.
            until(
                lambda joules=10.0 * step: any(
                    r.value == pytest.approx(joules, abs=0.01) for r in meter.read_new(0.05)
                )
            )
        assert meter.counters()["wraps"] >= 2


def test_a_counter_that_was_reset_is_no_wrap(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", energy_uj=100_000_000)
    with RaplMeter({"root": str(tmp_path)}) as meter:
        count(package, 0)
        until(lambda: meter.counters().get("implausible", 0) == 1)
        count(package, 1_000_000)
        until(lambda: any(r.value == pytest.approx(1.0) for r in meter.read_new(0.1)))


def test_a_counter_that_jumps_by_more_than_its_socket_may_draw_adds_no_joule(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0")
    for number, watts in enumerate((65, 120)):
        (package / f"constraint_{number}_power_limit_uw").write_text(f"{watts}000000\n")
    with RaplMeter({"root": str(tmp_path)}) as meter:
        count(package, 200_000_000_000)
        until(lambda: meter.counters().get("implausible", 0) == 1)
        count(package, 200_001_000_000)
        until(lambda: any(r.value == pytest.approx(1.0) for r in meter.read_new(0.1)))


def test_a_missing_permission_is_answered_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0")
    opened = os.open

    def refuse(path: object, *arguments: int, **more: int) -> int:
        # Root may read everything, and these tests may run as root: the kernel's answer is played.
        if Path(str(path)) == package / "energy_uj" and os.geteuid() == 0:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **more)  # type: ignore[call-overload,no-any-return]

    (package / "energy_uj").chmod(0)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HardwareError, match=r"sudo chmod -R a\+r /sys/class/powercap/\*/energy_uj"):
        RaplMeter({"root": str(tmp_path)}).__enter__()


def test_no_tree_and_no_package_are_told(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="no energy counters"):
        RaplMeter({"root": str(tmp_path)}).__enter__()
    zone(tmp_path, "intel-rapl:0", "uncore")
    with pytest.raises(HardwareError, match=r"no package zone \(it has uncore\)"):
        RaplMeter({"root": str(tmp_path)}).__enter__()


def test_a_counter_that_stays_unreadable_ends_the_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rapl, "_PATIENCE_S", 0.3)
    package = zone(tmp_path, "intel-rapl:0", "package-0")
    with RaplMeter({"root": str(tmp_path)}) as meter:
        (package / "energy_uj").write_text("?\n")
        with pytest.raises(MeterError, match="energy_uj"):
            for _ in range(50):
                meter.read_new(0.1)


def test_broken_zones_are_passed_over(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    broken = zone(tmp_path, "intel-rapl:1", "package-1")
    (broken / "max_energy_range_uj").write_text("many\n")
    assert [z.name for z in zones(str(tmp_path))] == ["package-0"]
    with RaplMeter({"root": str(tmp_path)}) as meter:
        count(tmp_path / "intel-rapl:0", 1_500_000)
        assert collect(meter, 1)


@given(start=st.integers(0, 10**9), step=st.integers(0, 10**9))
def test_unwrapping_gives_back_the_step(start: int, step: int) -> None:
    modulus = 10**9 + 1
    assert unwrapped_j(start, (start + step) % modulus, 10**9) == pytest.approx(step / 1e6)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.integers(0, RANGE), min_size=2, max_size=20))
def test_no_counter_values_yield_joules_that_were_not_there(
    tmp_path_factory: pytest.TempPathFactory, values: list[int]
) -> None:
    """Whatever the counter says, readings never fall, and rise by no more than a socket can draw."""
    root = tmp_path_factory.mktemp("powercap")
    package = zone(root, "intel-rapl:0", "package-0", energy_uj=values[0])
    with RaplMeter({"root": str(root), "poll_s": 3600.0}) as meter:
        assert meter._thread is not None
        meter._stop.set()  # from here on this test is the one that looks
        meter._thread.join()
        total, longest_s = 0.0, meter.info.period_s
        for before, value in itertools.pairwise(values):
            count(package, value)
            reading = meter._poll()
            assert (reading is None) == (value == before)
            if reading is not None:
                assert total <= reading.value <= total + 5_000.0 * longest_s + 1e-6
                total = reading.value
