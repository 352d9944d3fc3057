"""The sampler: what it reads from /proc and NVML, what it says is missing, and its summaries."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_runtime.sampler import Sample, Sampler, counted, cpu_ticks, memory_usage, summarise
from tests.nvml import FakeNvml, fake_nvml, nvml_library

__all__ = ["fake_nvml", "nvml_library"]

STAT = "cpu  {user} 5 20 {idle} 30 1 2 7 100 100\ncpu0 1 2 3 4 5 6 7 8 0 0\nintr 12\n"
MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    {available} kB\nBuffers: 1 kB\n"
SECOND = 10**9


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "stat").write_text(STAT.format(user=100, idle=400))
    (folder / "meminfo").write_text(MEMINFO.format(available=250))
    return folder


def test_busy_is_all_but_idle_iowait_and_steal() -> None:
    busy, total = cpu_ticks(STAT.format(user=100, idle=400).encode())
    assert busy == 100 + 5 + 20 + 1 + 2
    assert total == busy + 400 + 30 + 7


def test_an_old_kernel_has_fewer_columns() -> None:
    assert cpu_ticks(b"cpu 1 2 3 4\n") == (6, 10)


def test_memory_usage_is_what_is_not_available() -> None:
    assert memory_usage(MEMINFO.format(available=250).encode()) == pytest.approx(75.0)
    assert memory_usage(b"MemTotal: 1000 kB\nMemFree: 400 kB\n") == pytest.approx(60.0)


def test_utilisation_is_the_busy_share_between_two_samples(proc: Path) -> None:
    sampler = Sampler(proc=str(proc)).open()
    assert sampler.sample().cpu_util is None
    (proc / "stat").write_text(STAT.format(user=130, idle=470))
    sample = sampler.sample()
    sampler.close()
    assert sample.cpu_util == pytest.approx(30.0)
    assert sample.mem_usg == pytest.approx(75.0)


def test_what_is_missing_is_named_with_its_reason_and_never_zero(tmp_path: Path) -> None:
    with Sampler(0.01, proc=str(tmp_path / "nowhere")) as sampler:
        time.sleep(0.05)
    assert "No such file" in sampler.missing["cpu_util"]
    assert "No such file" in sampler.missing["mem_usg"]
    assert all(row.cpu_util is None and row.mem_usg is None for row in sampler.samples())
    assert "cpu_util" not in sampler.summary() and "mem_usg" not in sampler.summary()


def test_without_a_driver_every_gpu_feature_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler = Sampler().open()
    sampler.close()
    for name in ("gpu_util", "gm_usg", "g_clk", "gm_clk", "gpu_energy"):
        assert "pynvml is not installed" in sampler.missing[name]
    assert sampler.gpu_energy_source is None


def test_nonsense_in_proc_is_missing_not_wrong(proc: Path) -> None:
    (proc / "stat").write_text("cpu one two three four\n")
    (proc / "meminfo").write_text("MemTotal: many kB\n")
    with Sampler(0.01, proc=str(proc)) as sampler:
        time.sleep(0.03)
    assert sampler.summary() == {}
    assert "stat" in sampler.missing["cpu_util"]
    assert "meminfo" in sampler.missing["mem_usg"]


def test_it_samples_in_the_background_at_its_period() -> None:
    with Sampler(0.02) as sampler:
        time.sleep(0.5)
    times = [row.host_time_ns for row in sampler.samples()]
    assert 10 <= len(times) <= 40
    assert times == sorted(times)


def test_a_busy_core_shows() -> None:
    with Sampler(0.05) as sampler:
        start = time.monotonic_ns()
        while time.monotonic_ns() - start < 0.6 * SECOND:
            pass
        found = sampler.summary(start, time.monotonic_ns())
    assert found["cpu_util"] > 50.0 / (os.cpu_count() or 1)


def test_memory_is_bounded_and_a_long_window_stays_covered(proc: Path) -> None:
    sampler = Sampler(capacity=16, proc=str(proc)).open()
    first = sampler.sample().host_time_ns
    for place in range(200):
        (proc / "stat").write_text(STAT.format(user=100 + place, idle=400 + place))
        last = sampler.sample().host_time_ns
    sampler.close()
    rows = sampler.samples()
    assert len(rows) < 16
    assert (rows[0].host_time_ns, rows[-1].host_time_ns) == (first, last)
    assert sampler.summary()["cpu_util"] == pytest.approx(50.0)


def test_it_can_be_started_again_and_stopped_twice() -> None:
    sampler = Sampler(0.01)
    for _ in range(2):
        sampler.start()
        sampler.stop()
    sampler.stop()
    assert len(sampler.samples()) >= 4
    assert sampler._files == {}


@pytest.mark.parametrize("period", [0.0, -1.0, float("nan"), 1e9])
def test_a_period_that_is_none_is_refused(period: float) -> None:
    with pytest.raises(ValueError, match="period_s"):
        Sampler(period)


def test_the_gpu_is_read_through_nvml(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(power_w=120, gpu_util=64, memory_used_mib=2048, sm_clock=1410, memory_clock=1593)
    with Sampler(0.02) as sampler:
        start = time.monotonic_ns()
        time.sleep(0.5)
        end = time.monotonic_ns()
        time.sleep(0.1)
    found = sampler.summary(start, end)
    assert (sampler.gpu_name, sampler.gpu_energy_source) == ("Fake GPU", "counter")
    assert found["gpu_util"] == pytest.approx(64.0)
    assert found["gm_usg"] == pytest.approx(25.0)
    assert (found["g_clk"], found["gm_clk"]) == (pytest.approx(1410.0), pytest.approx(1593.0))
    assert found["gpu_energy"] == pytest.approx(120.0 * (end - start) / SECOND, rel=0.1)
    assert not set(sampler.missing) & {"gpu_util", "gpu_energy"}


def test_without_a_counter_power_is_integrated(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(energy_error=3, power_w=80)
    with Sampler(0.02) as sampler:
        time.sleep(0.3)
    rows = sampler.samples()
    seconds = (rows[-1].host_time_ns - rows[0].host_time_ns) / SECOND
    assert sampler.gpu_energy_source == "integrated"
    assert sampler.summary()["gpu_energy"] == pytest.approx(80.0 * seconds)
    assert "gpu_energy" not in sampler.missing


def test_what_one_gpu_cannot_tell_is_missing_alone(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(util_error=3, energy_error=4, power_error=4)
    with Sampler(0.02) as sampler:
        time.sleep(0.1)
    found = sampler.summary()
    assert "Not Supported" in sampler.missing["gpu_util"]
    assert "Insufficient Permissions" in sampler.missing["gpu_energy"]
    assert "gpu_util" not in found and "gpu_energy" not in found
    assert found["g_clk"] == pytest.approx(1500.0)


def test_a_gpu_that_is_lost_is_told_and_the_rest_goes_on(fake_nvml: FakeNvml) -> None:
    with Sampler(0.02) as sampler:
        time.sleep(0.1)
        fake_nvml.set(lost=1)
        time.sleep(0.15)
        last = sampler.samples()[-1]
    assert "lost" in sampler.missing["gpu_energy"]
    assert last.gpu_util is None and last.cpu_total_ticks is not None


def test_a_call_that_fails_now_and_then_loses_no_joules(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(power_w=100)
    with Sampler(0.01) as sampler:
        fake_nvml.set(calls_fail_every=3)
        time.sleep(0.5)
    rows = sampler.samples()
    seconds = (rows[-1].host_time_ns - rows[0].host_time_ns) / SECOND
    assert any(row.gpu_util is None for row in rows)
    assert "Unknown Error" in sampler.missing["gpu_util"]
    assert sampler.summary()["gpu_energy"] == pytest.approx(100.0 * seconds, rel=0.15)


def test_a_stuck_counter_is_not_zero_joules(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(stuck=1)
    with Sampler(0.02) as sampler:
        time.sleep(0.2)
    assert "gpu_energy" not in sampler.summary()


def row(t_s: float, **values: float) -> Sample:
    return Sample(round(t_s * SECOND), **values)  # type: ignore[arg-type]


def test_a_mean_weighs_by_time() -> None:
    rows = [row(0.0, g_clk=1000.0), row(1.0, g_clk=1000.0), row(1.5, g_clk=2000.0), row(2.0, g_clk=2000.0)]
    found = summarise(rows, 0, 2 * SECOND)
    assert found == {"g_clk": pytest.approx((1000.0 + 750.0 + 1000.0) / 2.0)}


def test_a_window_outside_the_samples_knows_nothing() -> None:
    rows = [row(5.0, mem_usg=3.0), row(6.0, mem_usg=3.0)]
    assert summarise(rows, 0, SECOND) == {}
    assert summarise(rows, 7 * SECOND, 8 * SECOND) == {}
    assert summarise(rows, 6 * SECOND, 5 * SECOND) == {}
    assert summarise([], 0, SECOND) == {}


def test_a_counter_that_steps_is_read_where_it_moved() -> None:
    """100 W in steps of 0.1 s, looked at every 30 ms: the look before a step knows nothing newer."""
    points = [(round(t * 0.03 * SECOND), 10.0 * int(t * 0.03 / 0.1)) for t in range(100)]
    assert counted(points, round(0.5 * SECOND), round(2.5 * SECOND)) == pytest.approx(200.0, rel=0.02)


def test_a_counter_that_fell_or_never_moved_is_not_known() -> None:
    assert counted([(0, 5.0), (SECOND, 5.0)], 0, SECOND) is None
    assert counted([(0, 5.0), (SECOND, 9.0), (2 * SECOND, 1.0)], 0, 2 * SECOND) is None


@given(
    steps=st.lists(st.tuples(st.integers(1, 10**9), st.floats(0.0, 1e6)), min_size=2, max_size=30),
    start=st.integers(0, 10**10),
    length=st.integers(1, 10**10),
)
def test_no_counter_gives_joules_that_were_not_there(
    steps: list[tuple[int, float]], start: int, length: int
) -> None:
    """Never negative, and at most twice what it counted: after its last move, half a window is filled in."""
    time_ns, value, points = 0, 0.0, []
    for gap, step in steps:
        time_ns += gap
        value += step
        points.append((time_ns, value))
    found = counted(points, start, start + length)
    if found is not None:
        assert 0.0 <= found <= 2.0 * (points[-1][1] - points[0][1]) * (1 + 1e-9) + 1e-9


@given(stat=st.binary(max_size=120), meminfo=st.binary(max_size=120))
def test_no_text_crashes_the_parsers(stat: bytes, meminfo: bytes) -> None:
    try:
        busy, total = cpu_ticks(stat)
    except ValueError:
        pass
    else:
        assert isinstance(busy, int) and isinstance(total, int)
    try:
        usage = memory_usage(meminfo)
    except ValueError:
        pass
    else:
        assert usage == usage


def test_memory_is_not_repeated_as_if_it_were_new() -> None:
    with Sampler(0.02) as sampler:
        time.sleep(0.7)
    known = [row.host_time_ns for row in sampler.samples() if row.mem_usg is not None]
    assert 3 <= len(known) <= 4 < len(sampler.samples())
    assert known[1] - known[0] >= SECOND / 2
    assert (known[0], known[-1]) == (sampler.samples()[0].host_time_ns, sampler.samples()[-1].host_time_ns)
    assert 0.0 < sampler.summary()["mem_usg"] < 100.0


def cgroup(folder: Path, usage_usec: int) -> str:
    """A container's own folder of cgroup v2."""
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.type").write_text("domain\n")
    (folder / "cpu.stat").write_text(f"usage_usec {usage_usec}\nuser_usec 5\n")
    return str(folder)


def test_in_a_container_the_neighbours_do_not_count(proc: Path, tmp_path: Path) -> None:
    """30 of 200 ticks are busy on the host, 2 of them by this container."""
    sampler = Sampler(proc=str(proc), cgroup=cgroup(tmp_path / "cgroup", 1_000_000)).open()
    assert sampler.cpu_source == "container"
    sampler.take()
    (proc / "stat").write_text(STAT.format(user=130, idle=470))
    cgroup(tmp_path / "cgroup", 1_020_000)
    busy, host = sampler.sample(), Sampler(proc=str(proc)).open()
    sampler.close()
    assert busy.cpu_util == pytest.approx(2.0) and host.cpu_source == "host"
    host.close()


def test_descriptors_that_the_program_closed_are_missing_and_its_own_stay_open(
    proc: Path, tmp_path: Path
) -> None:
    sampler = Sampler(proc=str(proc)).open()
    mine = []
    for descriptor, _ in sampler._files.values():
        os.close(descriptor)
        mine.append(os.open(tmp_path, os.O_RDONLY))
    sampler.take()
    assert sampler.missing.keys() >= {"cpu_util", "mem_usg"}
    sampler.close()
    for descriptor in mine:
        os.close(descriptor)  # raises where the sampler had closed it


def test_after_a_fork_the_child_knows_nothing_and_says_so() -> None:
    sampler = Sampler(0.01).start()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        sampler.stop()
        os.write(writer, json.dumps([sampler.summary(), sampler.missing["cpu_util"]]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    found, reason = json.loads(os.read(reader, 10_000))
    assert found == {} and "forked inside the window" in reason
    time.sleep(0.05)
    sampler.stop()
    assert "cpu_util" in sampler.summary()
    for descriptor in (reader, writer):
        os.close(descriptor)


def test_a_counter_that_jumps_is_not_believed(fake_nvml: FakeNvml) -> None:
    """The card's limit is 250 W; the driver's count rises by a megajoule at once."""
    fake_nvml.set(power_w=100)
    with Sampler(0.01) as sampler:
        time.sleep(0.1)
        fake_nvml.set(power_w=1e7)
        time.sleep(0.3)
    assert "gpu_energy" not in sampler.summary()
    assert sampler.missing["gpu_energy"] == "the driver told of more than 500 W"
