"""Turns what was asked into a plan, and finds out early what cannot be measured."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING

from irene_build import console
from irene_build.calibrate import targets as wanted
from irene_build.calibrate.request import Request
from irene_build.errors import InputError

if TYPE_CHECKING:
    from irene_build.hardware import HardwareProfile
    from irene_build.measure.plan import MeasurementProtocol, Plan, Target
    from irene_build.meters.base import Meter


class Planner:
    """Plans what was asked. Models are looked up and traced once, before a meter is opened."""

    def __init__(self, asked: Request, profile: HardwareProfile, default_budget_s: float) -> None:
        self.asked, self.profile = asked, profile
        self.budget_s = asked.budget_s(default_budget_s)
        self.device_name = asked.device or profile.device
        self._trace = cache(wanted.trace_target)

    def meter(self) -> Meter:
        """The meter that was asked for; it is not opened yet."""
        from irene_build.meters import open_meter

        return open_meter(self.profile, self.asked.meter or None, self.device_name)

    def check(self, meter: Meter) -> None:
        """Raises what ``plan`` would, in seconds: it looks at the smallest input of each model alone."""
        from irene_build.measure.plan import check_target

        smallest: dict[str, Target] = {}
        for target in self.targets:
            check_target(target)
            known = smallest.setdefault(target.model, target)
            if target.batch_size * target.seq_len < known.batch_size * known.seq_len:
                smallest[target.model] = target
        self._plan(list(smallest.values()), self.protocol(meter))

    def protocol(self, meter: Meter, noise_w: float = 0.0, level_w: float = 0.0) -> MeasurementProtocol:
        from irene_build.measure.plan import protocol_for

        return protocol_for(meter.info, noise_w, level_w, self.asked.precision, self.asked.seed)

    def plan(self, protocol: MeasurementProtocol) -> Plan:
        """Raises InputError where a model is unknown or the budget too short."""
        console.note(f"tracing {len(self.targets)} model inputs")
        return self._plan(self.targets, protocol)

    def _plan(self, targets: list[Target], protocol: MeasurementProtocol) -> Plan:
        from irene_build.measure.plan import least_seconds, make_plan

        least = least_seconds(protocol)
        if self.budget_s < least:
            raise InputError(
                f"a budget of {self.budget_s:g} s is too short: with this meter one node takes {least:.0f} s; "
                "give more time"
            )
        arguments, labels = self.asked.arguments(), self.asked.labels
        return make_plan(targets, self._trace, protocol, self.speed, self.budget_s, arguments, labels)

    @cached_property
    def targets(self) -> list[Target]:
        asked = self.asked
        if asked.plan_file is not None:
            found = wanted.read_plan_file(asked.plan_file)
        else:
            found = wanted.default_targets(self.device_name, self.budget_s, asked.models, asked.grid or "")
        wanted.check_models(found)
        return found

    @cached_property
    def speed(self) -> tuple[float, float]:
        """Rough (FLOP/s, B/s) of the device; HardwareError where it is not here."""
        from irene_build.measure.device import open_device

        return open_device(self.device_name).speed()
