"""Which meters there are: by name, by profile, or whatever this machine has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from irene_build.errors import HardwareError, IreneError
from irene_build.hardware import HardwareProfile, load_profile, this_pc
from irene_build.meters.base import Finding, Meter
from irene_build.meters.emonpi import EmonPi
from irene_build.meters.feed import FeedMeter
from irene_build.meters.nvml import NvmlMeter
from irene_build.meters.rapl import RaplMeter
from irene_build.meters.virtual import VirtualMeter

#: name -> driver. A new meter goes here; its settings are the ``[meter]`` table of the profile.
DRIVERS: dict[str, Callable[[Mapping[str, Any]], FeedMeter]] = {
    "emonpi": EmonPi,
    "nvml": NvmlMeter,
    "rapl": RaplMeter,
    "virtual": VirtualMeter,
}
#: What is looked for without being told where it is, best joules first: the wall, then sums of parts.
_ORDER = ("emonpi", "nvml", "rapl")
_BOUNDARY = {"emonpi": "wall", "nvml": "gpu", "rapl": "cpu"}


def open_meter(profile: HardwareProfile, name: str | None = None) -> Meter:
    """The meter of a profile, or the source ``name`` on that PC. Enter it to start reading.

    Raises HardwareError for an unknown source; one that is not here is told on entering, in one line that
    says what was looked for and what would work instead.
    """
    own = str(profile.meter["driver"])
    wanted = name or own
    if wanted not in DRIVERS:
        raise HardwareError(f"unknown meter {wanted!r}: known are {', '.join(DRIVERS)}")
    if wanted == own:
        config = profile.meter
    elif wanted == "virtual":
        config = load_profile("virtual").meter
    else:
        config = {"driver": wanted}
    return _Guarded(DRIVERS[wanted](config), profile.name)


def find_meters(listen_s: float = 12.0) -> list[Finding]:
    """Tries every source that can be found without being named; real ones only, best first."""
    findings = []
    for rank, name in enumerate(_ORDER):
        config: dict[str, Any] = {"driver": name}
        if name == "emonpi":
            config["listen_s"] = listen_s
        meter = DRIVERS[name](config)
        try:
            with meter:
                info = meter.info
                findings.append(Finding(name, True, info.boundary, info.source, rank, dict(info.details)))
        except IreneError as error:
            findings.append(Finding(name, False, _BOUNDARY[name], str(error), rank, {}))
    return sorted(findings, key=lambda f: (not f.available, f.rank))


def best_profile(listen_s: float = 12.0) -> tuple[HardwareProfile, list[Finding]]:
    """A profile around the best real meter of this machine, else the simulated PC; and all that was tried."""
    findings = find_meters(listen_s)
    for finding in findings:
        if finding.available:
            return this_pc({"driver": finding.name}, finding.boundary), findings
    return load_profile("virtual"), findings


class _Guarded:
    """A meter that, where it is not here, also says what would work instead."""

    def __init__(self, meter: FeedMeter, hardware: str) -> None:
        self._meter, self._hardware = meter, hardware
        self.read_new, self.counters = meter.read_new, meter.counters

    @property
    def info(self) -> Any:
        return self._meter.info

    def __enter__(self) -> Meter:
        try:
            self._meter.__enter__()
        except HardwareError as error:
            here = [f.name for f in find_meters(2.0) if f.available]
            instead = f"--meter {here[0]}" if here else "--hardware virtual (a simulated PC)"
            raise HardwareError(f"hardware {self._hardware!r}: {error}; here would work: {instead}") from None
        return self

    def __exit__(self, *exc: Any) -> None:
        self._meter.__exit__(*exc)
