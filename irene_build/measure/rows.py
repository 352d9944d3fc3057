"""Rows of a campaign's journal by the names of their columns, in the order of ``journal.OBSERVED`` and ``DERIVED``."""

from __future__ import annotations

from typing import NamedTuple


class PowerRow(NamedTuple):
    """A reading: W, or cumulative J; ``meter_s``: the meter's own clock."""

    host_ns: int
    value: float
    meter_s: float | None


class TrialRow(NamedTuple):
    """A measured window of ``runs`` runs, and the idle window before it; host ns. ``id``: None until it is stored.

    ``reasons``: JSON, what spoilt it; ``foreign_cores``: what others used, None where that is not known.
    """

    id: int | None
    session: int
    round: int
    work: int
    attempt: int
    start_ns: int
    end_ns: int
    runs: int
    idle_start_ns: int
    idle_end_ns: int
    accepted: int
    reasons: str
    foreign_cores: float | None


class SessionRow(NamedTuple):
    """One process at work, as long as one line maps its clock to the meter's; ``meter``, ``info``: JSON."""

    id: int | None
    started_ns: int
    wall_s: float
    boot: str
    meter: str
    info: str


class ClockRow(NamedTuple):
    """A session's clock: how the host's time maps to the meter's."""

    session: int
    offset_s: float
    drift: float
    reference_s: float
    residual_s: float
    pulses: int
    score: float
    sent: int


class LabelRow(NamedTuple):
    """What a trial says of one run of its node; ``error_j``: of quantisation and clock, 1 sigma."""

    trial: int | None
    energy_j: float
    above_idle_j: float | None
    power_w: float
    idle_w: float | None
    latency_s: float
    readings: int
    clock_offset_s: float
    clock_drift: float
    clock_residual_s: float
    error_j: float
    features: str


class ResultRow(NamedTuple):
    """What all trials of a distinct node come to; ``half_width``: 95 %, relative; ``features``: JSON."""

    work: int
    energy_j: float
    std_j: float | None
    above_idle_j: float | None
    half_width: float | None
    trials: int
    features: str
