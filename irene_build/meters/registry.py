"""Which meters there are: by name, by profile, or whatever this machine has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from irene_build.errors import HardwareError, IreneError
from irene_build.hardware import HardwareProfile, load_profile, this_pc
from irene_build.meters.base import Finding, Meter, MeterInfo
from irene_build.meters.duty_cycle import known_duty
from irene_build.meters.emonpi import EmonPi
from irene_build.meters.nvml import NvmlMeter
from irene_build.meters.plugs import ShellyMeter, TasmotaMeter
from irene_build.meters.rapl import RaplMeter
from irene_build.meters.reconcile import ReconciledMeter
from irene_build.meters.replay import ReplayMeter
from irene_build.meters.settings import SETTINGS, Check, check_settings
from irene_build.meters.sums import SumMeter, join_boundaries
from irene_build.meters.threaded import FeedMeter
from irene_build.meters.virtual import VirtualMeter
from irene_build.paths import hardware_dir

Driver = Callable[[Mapping[str, Any]], FeedMeter]
#: name -> driver; its settings, in settings.py, are the ``[meter]`` table of the profile. ``register_meter`` adds one.
DRIVERS: dict[str, Driver] = {
    "emonpi": EmonPi,
    "nvml": NvmlMeter,
    "rapl": RaplMeter,
    "shelly": ShellyMeter,
    "tasmota": TasmotaMeter,
    "replay": ReplayMeter,
    "virtual": VirtualMeter,
}
#: Entry points of installed packages that bring a meter: name = "package.module:Class".
GROUP = "irene_build.meters"
#: What is looked for without being told where it is, best joules first: the wall, then what is most of it.
_ORDER = ("emonpi", "rapl+nvml", "nvml", "rapl")
_BOUNDARY = {"emonpi": "wall", "nvml": "gpu", "rapl": "cpu"}


def open_meter(profile: HardwareProfile, name: str | None = None, device: str = "") -> Meter:
    """The meter of a profile, or the source ``name`` on that PC. Enter it to start reading.

    ``name`` may be a sum, ``rapl+nvml``. With ``reconcile = "rapl+nvml"`` in the profile, the meter
    is watched against those parts while it is read. ``device``: where models run; where
    it is ``cuda:N``, NVML reads that GPU, if the profile names no other. Lines that are no frames are kept in the
    hardware's folder of artifacts, in quarantine.txt.

    Raises HardwareError for an unknown source; one that is not here is told on entering, in one line that
    says what was looked for and what would work instead.
    """
    own = str(profile.meter["driver"])
    settings: dict[str, Any] = {
        **_limit(profile, name or own),
        **profile.meter,
        "quarantine": str(_quarantine(profile)),
    }
    if device.startswith("cuda:"):
        settings = _on_device(settings, own, device)
    meter: Meter = _Guarded(_make(name or own, settings), profile.name)
    parts = profile.meter.get("reconcile")
    if parts and (name or own) == own:
        meter = ReconciledMeter(meter, _make(str(parts), settings))
    return meter


def _quarantine(profile: HardwareProfile) -> Path:
    """Where lines that are no frames go: a file in the hardware's folder, whatever a profile from elsewhere says."""
    folder = hardware_dir(profile.name)
    path = folder / str(profile.meter.get("quarantine") or "quarantine.txt")
    if path.is_symlink() or path.resolve().parent != folder.resolve():
        raise HardwareError(
            f"hardware profile {profile.name}: quarantine {str(path)!r} is no file in {folder}: give a name alone"
        )
    return path


def register_meter(name: str, driver: Driver, settings: Mapping[str, Check]) -> None:
    """Adds a meter of one's own: ``driver = name`` in a profile opens it with the ``[meter]`` table.

    ``settings``: what that table may hold, and what is wrong with a value. A package brings a meter to every command by
    an entry point of the group ``irene_build.meters``, whose class has its ``settings``.
    """
    DRIVERS[name] = driver
    SETTINGS[name] = dict(settings)


def _installed(name: str) -> bool:
    """Whether an installed package brings a meter of this name; then it is registered."""
    for entry in entry_points(group=GROUP, name=name):
        driver = entry.load()
        register_meter(name, driver, driver.settings)
        return True
    return False


def _limit(profile: HardwareProfile, name: str) -> dict[str, float]:
    """What no reading of a meter at the wall can be above, where the profile's parts tell."""
    at_the_wall = name == profile.meter["driver"] and profile.boundary == "wall"
    limit = profile.max_power_w if at_the_wall else None
    return {} if limit is None else {"max_power_w": limit}


def _on_device(settings: dict[str, Any], own: str, device: str) -> dict[str, Any]:
    """The settings with NVML on this CUDA device, unless they name a GPU themselves."""
    table = settings if own == "nvml" else settings.get("nvml", {})
    if table.get("gpu", "auto") != "auto":
        return settings
    return {**settings, "gpu": device} if own == "nvml" else {**settings, "nvml": {**table, "gpu": device}}


def _make(name: str, settings: Mapping[str, Any]) -> FeedMeter:
    """A driver with its settings: the table itself where it is for this driver, else its sub-table."""
    if "+" in name:
        return SumMeter([_make(part, settings.get(part, {})) for part in name.split("+")])
    if name not in DRIVERS and not _installed(name):
        raise HardwareError(
            f"unknown meter {name!r}: known are {', '.join(DRIVERS)}, and sums such as rapl+nvml"
        )
    config = settings if settings.get("driver", name) == name else settings.get(name, {})
    if name == "virtual" and "model" not in config:
        config = {**config, **load_profile("virtual").meter}
    check_settings(name, config)
    return DRIVERS[name](config)


def find_meters(listen_s: float = 12.0) -> list[Finding]:
    """Tries every source that can be found without being named; real ones only, best first."""
    found: dict[str, Finding] = {}
    for rank, name in enumerate(_ORDER):
        parts = name.split("+")
        if len(parts) > 1:
            continue
        try:
            patience = {"listen_s": max(0.001, listen_s)} if name == "emonpi" else {}
            with _make(name, {"driver": name, **patience}) as meter:
                info = meter.info
                found[name] = Finding(name, True, info.boundary, info.source, rank, dict(info.details))
        except IreneError as error:
            found[name] = Finding(name, False, _BOUNDARY[name], str(error), rank, {})
    for rank, name in enumerate(_ORDER):
        parts = name.split("+")
        if len(parts) > 1 and all(found[part].available for part in parts):
            boundary = join_boundaries([found[part].boundary for part in parts])
            sources = " + ".join(found[part].reason for part in parts)
            details = {part: found[part].details for part in parts}
            found[name] = Finding(name, True, boundary, sources, rank, details)
    return sorted(found.values(), key=lambda f: (not f.available, f.rank))


def open_finding(finding: Finding) -> Meter:
    """The meter that was found."""
    return _make(finding.name, {"driver": finding.name})


def best_profile(listen_s: float = 12.0) -> tuple[HardwareProfile, list[Finding]]:
    """A profile around the best real meter of this machine, else the simulated PC; and all that was tried."""
    findings = find_meters(listen_s)
    for finding in findings:
        if finding.available:
            return this_pc({"driver": finding.name}, finding.boundary), findings
    return load_profile("virtual"), findings


class _Guarded:
    """A meter that, where it is not here, also says what would work instead.

    Its details hold the ``duty`` that doctor found of it, where it has.
    """

    def __init__(self, meter: FeedMeter, hardware: str) -> None:
        self._meter, self._hardware = meter, hardware
        self._duty: dict[str, float] = {}
        self.read_new, self.counters, self.alerts = meter.read_new, meter.counters, meter.alerts

    @property
    def info(self) -> MeterInfo:
        info = self._meter.info
        return replace(info, details={**info.details, **self._duty}) if self._duty else info

    def __enter__(self) -> Meter:
        try:
            self._meter.__enter__()
            known = known_duty(self._meter.info)
            self._duty = {} if known is None or known.duty is None else {"duty": known.duty}
        except HardwareError as error:
            here = [f.name for f in find_meters(2.0) if f.available]
            instead = f"--meter {here[0]}" if here else "--hardware virtual (a simulated PC)"
            raise HardwareError(f"hardware {self._hardware!r}: {error}; here would work: {instead}") from None
        return self

    def __exit__(self, *exc: Any) -> None:
        self._meter.__exit__(*exc)
