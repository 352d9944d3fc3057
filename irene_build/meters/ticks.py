"""CPU ticks between two looks at /proc/stat, from /proc/uptime, which costs half as much to read.

The second field of /proc/uptime is the idle time of all cores, in 10 ms. What was not idle between two
looks at /proc/stat is known in kind from these (busy, waiting for disks, stolen); when it was not idle
is known from /proc/uptime. Together they give the running counts that /proc/stat would have shown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from irene_runtime.sampler import Sample


class Anchor(NamedTuple):
    """A sample that holds the counts of /proc/stat, and its text."""

    sample: Sample
    stat: bytes | None


def _idle(stat: bytes) -> int:
    """Idle ticks of all cores: the fourth count of the first line of /proc/stat."""
    return int(stat.split(None, 5)[4])


def _uptime_idle(text: bytes) -> float:
    """Idle ticks of all cores, from /proc/uptime."""
    return float(text.split()[1]) * os.sysconf("SC_CLK_TCK")


def between_anchors(before: Anchor, looks: Sequence[tuple[int, bytes]], after: Anchor) -> list[Sample]:
    """Samples of looks ``(now_ns, /proc/uptime)`` in the order of time, between two of /proc/stat.

    All ticks together grow evenly, as time does. The busy ones that the anchors counted are shared out over
    the time that was not idle, so that every joint agrees with /proc/stat. Where an anchor has no counts,
    or a text is no /proc/uptime, neither have these samples.
    """
    first, last = before.sample, after.sample
    unknown = [Sample(now) for now, _ in looks]
    busy0, total0, busy1, total1 = (
        first.cpu_busy_ticks, first.cpu_total_ticks, last.cpu_busy_ticks, last.cpu_total_ticks,
    )  # fmt: skip
    if busy0 is None or total0 is None or busy1 is None or total1 is None:
        return unknown
    assert before.stat is not None and after.stat is not None
    try:
        idle = [_uptime_idle(text) for _, text in looks]
    except (ValueError, IndexError):
        return unknown
    idle0, gained = _idle(before.stat), total1 - total0
    active = gained - (_idle(after.stat) - idle0)
    span = max(1, last.host_time_ns - first.host_time_ns)
    samples, used = [], 0.0
    for (now, _), idle_now in zip(looks, idle, strict=True):
        passed = gained * (now - first.host_time_ns) / span
        share = (passed - (idle_now - idle0)) / active if active > 0 else 0.0
        used = min(1.0, max(used, share))
        samples.append(Sample(now, round(busy0 + used * (busy1 - busy0)), round(total0 + passed)))
    return samples


def busy_share(before: Sample | None, sample: Sample) -> float | None:
    """``cpu_util`` of a sample, %: as the runtime's sampler gives it; None where no tick has passed."""
    if before is None or before.cpu_busy_ticks is None or before.cpu_total_ticks is None:
        return None
    if sample.cpu_busy_ticks is None or sample.cpu_total_ticks is None:
        return None
    if not 0 < before.cpu_total_ticks < sample.cpu_total_ticks:
        return None
    busy = max(0, sample.cpu_busy_ticks - before.cpu_busy_ticks)
    # Between anchors both counts are rounded, each by itself.
    return min(100.0, 100.0 * busy / (sample.cpu_total_ticks - before.cpu_total_ticks))
