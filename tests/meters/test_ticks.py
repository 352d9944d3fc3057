"""CPU ticks from /proc/uptime between two looks at /proc/stat."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irene_build.meters.ticks import Anchor, between_anchors, busy_share
from irene_runtime.sampler import Sample, Sampler, cpu_ticks

HZ = os.sysconf("SC_CLK_TCK")
MS = 1_000_000


def anchor(now_ms: int, busy: int, idle: int, iowait: int = 0, steal: int = 0) -> Anchor:
    stat = f"cpu  {busy} 0 0 {idle} {iowait} 0 0 {steal} 0 0\n".encode()
    return Anchor(Sample(now_ms * MS, *cpu_ticks(stat)), stat)


def look(now_ms: int, idle_ticks: float) -> tuple[int, bytes]:
    return now_ms * MS, f"123.45 {idle_ticks / HZ:.2f}\n".encode()


def test_the_time_that_was_not_idle_was_busy() -> None:
    """One core of one: 50 ticks idle, then 50 busy."""
    looks = [look(250, 1025), look(500, 1050), look(750, 1050)]
    found = between_anchors(anchor(0, 200, 1000), looks, anchor(1000, 250, 1050))
    assert [row.cpu_busy_ticks for row in found] == [200, 200, 225]
    assert [row.cpu_total_ticks for row in found] == [1225, 1250, 1275]
    assert [row.host_time_ns for row in found] == [250 * MS, 500 * MS, 750 * MS]
    assert busy_share(found[0], found[1]) == 0.0 and busy_share(found[1], found[2]) == 100.0


def test_what_waited_or_was_stolen_is_taken_out_in_the_anchors_proportion() -> None:
    looks = [look(500, 1000)]
    found = between_anchors(anchor(0, 200, 1000), looks, anchor(1000, 240, 1000, iowait=30, steal=30))
    assert found[0].cpu_busy_ticks == 220


def test_an_anchor_without_counts_gives_unknown_not_zero() -> None:
    empty = Anchor(Sample(0), None)
    found = between_anchors(empty, [look(500, 1000)], anchor(1000, 240, 1000))
    assert found == [Sample(500 * MS)]
    assert busy_share(None, found[0]) is busy_share(found[0], anchor(1000, 240, 1000).sample) is None


@given(st.binary(max_size=40))
def test_nonsense_for_uptime_gives_unknown(text: bytes) -> None:
    found = between_anchors(anchor(0, 200, 1000), [(500 * MS, text)], anchor(1000, 250, 1050))
    assert found[0].cpu_busy_ticks is None or 200 <= found[0].cpu_busy_ticks <= 250


@given(
    busy=st.integers(0, 400),
    idle=st.integers(0, 400),
    other=st.integers(0, 100),
    looks=st.lists(st.tuples(st.integers(0, 1000), st.integers(-50, 600)), max_size=20),
)
def test_counts_never_fall_nor_leave_what_the_anchors_say(
    busy: int, idle: int, other: int, looks: list[tuple[int, int]]
) -> None:
    first, last = anchor(0, 200, 1000), anchor(1000, 200 + busy, 1000 + idle, iowait=other)
    found = between_anchors(first, [look(ms, 1000 + i) for ms, i in sorted(looks)], last)
    rows = [first.sample, *found, last.sample]
    for before, after in pairwise(rows):
        assert None not in (before.cpu_busy_ticks, after.cpu_busy_ticks)
        assert (before.cpu_busy_ticks or 0) <= (after.cpu_busy_ticks or 0)
        assert (before.cpu_total_ticks or 0) <= (after.cpu_total_ticks or 0)
        share = busy_share(before, after)
        assert share is None or 0.0 <= share <= 100.0


def test_this_kernels_two_files_agree() -> None:
    """The idle time of /proc/uptime is that of /proc/stat, or sharing out would make no sense here."""
    sampler = Sampler().open()
    _, stat, _, _ = sampler.take()
    uptime = float(Path("/proc/uptime").read_text().split()[1]) * HZ
    sampler.close()
    assert uptime == pytest.approx(int(stat.split(None, 5)[4]), abs=0.1 * HZ * (os.cpu_count() or 1))
