"""A wall meter against the sum of what is inside: the supply's loss, and an alarm when it moves.

P_wall = board_w + P_parts / efficiency: the parts are RAPL and NVML, ``efficiency`` is the supply's slope,
and ``board_w`` what no counter sees (disks, fans, the supply at no load). Both are fitted while they are
watched. A residual that leaves what noise explains is reported at the reading at which it does: a clamp that
moved, a counter that lost joules, another load on the same line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from irene_build.errors import MeterError
from irene_build.hardware import Supply
from irene_build.meters.base import Alert, Meter, MeterInfo, Reading
from irene_build.meters.sums import Cumulative

_WARM_UP = 30
_FORGET = 0.998
_ALARM_SIGMA = 8.0
_SLACK_SIGMA = 0.75
_MIN_SIGMA_W = 0.05
_SILENCE_NS = 5_000_000_000


@dataclass(frozen=True)
class Jump:
    """The residual left its band at ``host_time_ns``: by ``residual_w``, where ``sigma_w`` is its noise."""

    host_time_ns: int
    residual_w: float
    sigma_w: float

    def __str__(self) -> str:
        return (
            f"wall and parts disagree by {self.residual_w:+.1f} W (noise {self.sigma_w:.1f} W): look for a "
            "clamp that moved, a counter that stuck, or another load"
        )


class Reconciler:
    """Recursive least squares with forgetting for the fit, a two-sided CUSUM for the alarm.

    Fed with pairs of mean power over the same time, W. A residual is weighed by how well the fit knows the parts'
    power of its pair: what it never saw it cannot be surprised by. During an alarm the fit rests, so that it does
    not learn the fault. The pair that raises an alarm may have begun before what it tells of and then shows a part of
    it, so the alarm's size is told with the next one.
    """

    def __init__(self) -> None:
        self.pairs = 0
        self.jumps: list[Jump] = []
        self.residual_w = math.nan
        self._theta = [0.0, 1.0]
        self._covariance = [[1e6, 0.0], [0.0, 1e2]]
        self._variance = 0.0
        self._up = self._down = 0.0
        self._alarmed = False
        self._raised: tuple[int, float] | None = None

    @property
    def supply(self) -> Supply:
        """The fitted constants. MeterError until the fit has seen enough."""
        intercept, slope = self._theta
        if self.pairs < _WARM_UP or slope <= 0.0:
            raise MeterError(f"wall against parts: {self.pairs} pairs do not give a supply's constants yet")
        return Supply(efficiency=1.0 / slope, board_w=intercept)

    @property
    def sigma_w(self) -> float:
        """Standard deviation of the residual, W."""
        return max(math.sqrt(self._variance), _MIN_SIGMA_W)

    def add(self, host_time_ns: int, parts_w: float, wall_w: float) -> Jump | None:
        """One pair; the jump, if the pair before this one raised the alarm."""
        if not (math.isfinite(parts_w) and math.isfinite(wall_w)):
            return None
        residual = self.residual_w = wall_w - (self._theta[0] + self._theta[1] * parts_w)
        p = self._covariance
        # Variance of the residual in units of the noise's: 1, and what the constants are uncertain by.
        width = 1.0 + p[0][0] + parts_w * (p[0][1] + p[1][0] + p[1][1] * parts_w)
        square = residual * residual / width
        self.pairs += 1
        if self.pairs <= _WARM_UP:
            self._learn(parts_w, residual)
            if self.pairs > 5:
                weight = 1.0 / (self.pairs - 5)
                self._variance += weight * (square - self._variance)
            return None
        score = residual / (self.sigma_w * math.sqrt(width))
        self._up = max(0.0, self._up + score - _SLACK_SIGMA)
        self._down = max(0.0, self._down - score - _SLACK_SIGMA)
        if max(self._up, self._down) > _ALARM_SIGMA:
            self._up = min(self._up, 2.0 * _ALARM_SIGMA)
            self._down = min(self._down, 2.0 * _ALARM_SIGMA)
            if not self._alarmed:
                self._alarmed, self._raised = True, (host_time_ns, residual)
                return None
            return self._sized(residual)
        if max(self._up, self._down) == 0.0:
            self._alarmed = False
        if not self._alarmed:
            self._learn(parts_w, residual)
            self._variance = _FORGET * self._variance + (1.0 - _FORGET) * square
        return self._sized(residual)

    def _sized(self, residual: float) -> Jump | None:
        """The alarm that the pair before this one raised, the larger residual of both its size."""
        if self._raised is None:
            return None
        (host_time_ns, first), self._raised = self._raised, None
        jump = Jump(host_time_ns, max(first, residual, key=abs), self.sigma_w)
        self.jumps.append(jump)
        return jump

    def _learn(self, parts_w: float, residual: float) -> None:
        p, x = self._covariance, (1.0, parts_w)
        px = [p[0][0] + p[0][1] * x[1], p[1][0] + p[1][1] * x[1]]
        scale = _FORGET + px[0] + px[1] * x[1]
        gain = [px[0] / scale, px[1] / scale]
        self._theta = [theta + g * residual for theta, g in zip(self._theta, gain, strict=True)]
        self._covariance = [
            [min((p[i][j] - gain[i] * px[j]) / _FORGET, 1e6) for j in range(2)] for i in range(2)
        ]


class ReconciledMeter:
    """The wall meter, read beside its parts; jumps are kept in ``reconciler`` as they happen.

    Readings, info and faults are the wall meter's, and ``info.details["supply"]`` holds the fitted constants once
    there are any; ``counters`` has ``residual_jumps`` and ``parts_silent``
    besides, ``alerts`` each of them as it is seen. ``span_s``: the least time over which the two are compared.
    """

    def __init__(self, wall: Meter, parts: Meter) -> None:
        self._wall, self._parts = wall, parts
        self.reconciler = Reconciler()
        self.span_s = 0.5
        self._wall_j, self._parts_j = Cumulative(wall.info.kind), Cumulative(parts.info.kind)
        self._edge: tuple[int, float, float] | None = None
        self._silences = 0
        self._silent = False
        self._alerts: list[Alert] = []

    @property
    def info(self) -> MeterInfo:
        info = self._wall.info
        details = {**info.details, "reconciled_with": self._parts.info.name}
        with suppress(MeterError):
            supply = self.reconciler.supply
            details["supply"] = {
                "efficiency": supply.efficiency,
                "board_w": supply.board_w,
                "residual_w": self.reconciler.sigma_w,
            }
        return MeterInfo(**{**info.as_dict(), "details": details})

    def __enter__(self) -> ReconciledMeter:
        self._wall.__enter__()
        try:
            self._parts.__enter__()
        except BaseException:
            self._wall.__exit__(None, None, None)
            raise
        self._wall_j, self._parts_j = Cumulative(self._wall.info.kind), Cumulative(self._parts.info.kind)
        self._edge = None
        return self

    def __exit__(self, *exc: object) -> None:
        self._parts.__exit__(*exc)
        self._wall.__exit__(*exc)

    def read_new(self, timeout_s: float) -> list[Reading]:
        readings = self._wall.read_new(timeout_s)
        window_ns = round(self._wall.info.window_s * 1e9 / 2)
        # A reading is a mean over the time before it, so it belongs to that time's middle.
        self._compare(
            (Reading(r.host_time_ns - window_ns, r.value) for r in readings), self._parts.read_new(0.0)
        )
        return readings

    def counters(self) -> dict[str, int]:
        found = {"residual_jumps": len(self.reconciler.jumps), "parts_silent": self._silences}
        return {**self._wall.counters(), **found}

    def alerts(self) -> list[Alert]:
        """Jumps of the residual and silences of the parts since the last call."""
        found, self._alerts = [*self._wall.alerts(), *self._parts.alerts(), *self._alerts], []
        return found

    def _compare(self, wall: Iterable[Reading], parts: Iterable[Reading]) -> None:
        for reading in parts:
            self._parts_j.add(reading)
        for reading in wall:
            self._wall_j.add(reading)
        if len(self._wall_j.points) < 2 or len(self._parts_j.points) < 2:
            return
        silent = self._wall_j.points[-1][0] - self._parts_j.points[-1][0] > _SILENCE_NS
        if silent and not self._silent:
            self._silences += 1
            text = f"{self._parts.info.name} is silent: the wall meter is read without it"
            self._alerts.append(Alert("parts silent", text, {"after_s": _SILENCE_NS / 1e9}))
        self._silent = silent
        low = max(self._wall_j.points[0][0], self._parts_j.points[0][0])
        high = min(self._wall_j.points[-1][0], self._parts_j.points[-1][0])
        # Over several readings, the lag of one against the other weighs little.
        step = round(1e9 * max(self.span_s, 4.0 * max(self._wall.info.period_s, self._parts.info.period_s)))
        if self._edge is None and low <= high:
            self._edge = low, self._wall_j.at(low), self._parts_j.at(low)
        while self._edge is not None and self._edge[0] + step <= high:
            start, wall_j, parts_j = self._edge
            end = start + step
            edge = self._edge = end, self._wall_j.at(end), self._parts_j.at(end)
            seconds = step / 1e9
            jump = self.reconciler.add(end, (edge[2] - parts_j) / seconds, (edge[1] - wall_j) / seconds)
            if jump is not None:
                detail = {"residual_w": jump.residual_w, "sigma_w": jump.sigma_w}
                self._alerts.append(Alert("residual jump", str(jump), detail))
