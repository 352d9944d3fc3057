"""What every energy source offers. One file per source beside this one.

A meter delivers ``Reading``s. Either it is a counter (``kind="energy"``: cumulative joules) or it
gives instantaneous power (``kind="power"``: watts). Time is the host's ``time.monotonic_ns`` at
arrival; a meter with a clock of its own puts that into ``meter_time_s``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Reading:
    """One value of one meter. ``value``: W for power, J (unwrapped, cumulative) for energy."""

    host_time_ns: int
    value: float
    meter_time_s: float | None = None


@dataclass(frozen=True)
class MeterInfo:
    """What is known of a source before it is read.

    ``boundary``: wall, gpu, cpu, cpu+dram, cpu+dram+gpu, ...
    ``provenance``: measured | integrated | simulated.
    ``period_s``: nominal time between readings. ``quantum``: smallest step, in W or J.
    ``power_kind``: real | apparent | board, as the meter gives it.
    """

    name: str
    source: str
    kind: Literal["power", "energy"]
    boundary: str
    provenance: str
    period_s: float
    quantum: float
    power_kind: str
    details: Mapping[str, Any]
    window_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a journal or a report."""
        return {**asdict(self), "details": dict(self.details)}


@dataclass(frozen=True)
class Alert:
    """Something that makes readings doubtful. ``kind``: as in a journal's events; ``text``: a sentence."""

    kind: str
    text: str
    detail: Mapping[str, float]


class Meter(Protocol):
    """An energy source. Used as a context manager; ``read_new`` never blocks longer than ``timeout_s``."""

    @property
    def info(self) -> MeterInfo: ...

    def __enter__(self) -> Meter: ...

    def __exit__(self, *exc: object) -> None: ...

    def read_new(self, timeout_s: float) -> list[Reading]:
        """Readings that arrived since the last call, oldest first; empty means no news, never zero.

        Raises MeterError when the source is gone for good.
        """
        ...

    def counters(self) -> Mapping[str, int]:
        """Faults met so far, by name: torn, rejected, duplicated, missing, reconnects, ..."""
        ...

    def alerts(self) -> list[Alert]:
        """What a person should know at once; each is given once."""
        ...


@dataclass(frozen=True)
class Finding:
    """One source that was looked for. ``reason``: why not, and what would help, where it is not available.

    ``rank``: the lower, the better its joules; a simulated source is never found.
    """

    name: str
    available: bool
    boundary: str
    reason: str
    rank: int
    details: Mapping[str, Any]
