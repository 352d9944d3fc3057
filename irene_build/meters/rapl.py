"""Intel and AMD running average power limit counters, through the kernel's powercap tree.

Zones are told by their ``name`` file, never by their number. What would be counted twice is left out: core
and uncore lie inside the package, psys holds package and memory, and some AMD parts show one counter twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irene_build.errors import HardwareError, MeterError
from irene_build.meters.base import Alert, MeterInfo, Reading
from irene_build.meters.threaded import PolledMeter

ROOT = "/sys/class/powercap"
_PERMISSION = "sudo chmod -R a+r /sys/class/powercap/*/energy_uj"
_MAX_ZONE_W = 5_000.0
#: A zone may be above the largest of its power limits for a moment, but not by this factor.
_OVER_LIMIT = 4.0
#: A counter that cannot be read for so long is gone, s.
_PATIENCE_S = 5.0


@dataclass
class Zone:
    """One counter. ``range_uj``: it wraps to 0 after this value."""

    path: Path
    name: str
    range_uj: int
    descriptor: int = -1
    raw: int = 0
    joules: float = 0.0
    read_s: float = 0.0
    max_w: float = _MAX_ZONE_W


def zones(root: str = ROOT, passed_over: list[str] | None = None) -> list[Zone]:
    """All zones with a name and an energy counter; the memory-mapped twins of the MSR zones are left out.

    ``passed_over`` is given those that cannot be counted, and why.
    """
    broken = [] if passed_over is None else passed_over
    found, places = [], set()
    for path in sorted(Path(root).glob("*")):
        if not (path / "energy_uj").exists():
            continue
        real = path.resolve()
        if real in places:
            continue
        places.add(real)
        try:
            name = (path / "name").read_text(encoding="ascii", errors="replace").strip()
            range_uj = int((path / "max_energy_range_uj").read_text(encoding="ascii", errors="replace"))
        except (OSError, ValueError) as error:
            broken.append(f"{path.name}: its name or range cannot be read ({error})")
            continue
        if name and range_uj > 0:
            found.append(Zone(path, name, range_uj, max_w=_max_w(path)))
        else:
            broken.append(f"{name or 'a zone without a name'} ({path.name}): its range is {range_uj} uJ")
    return [zone for zone in found if not _is_twin(zone, found)]


def _max_w(path: Path) -> float:
    """More than a zone can draw, W, by the power limits that the kernel shows of it."""
    limits = []
    for file in path.glob("constraint_*_power_limit_uw"):
        with suppress(OSError, ValueError):
            limits.append(int(file.read_text(encoding="ascii", errors="replace")) / 1e6)
    return min(_MAX_ZONE_W, _OVER_LIMIT * max(limits)) if limits and max(limits) > 0.0 else _MAX_ZONE_W


def _is_twin(zone: Zone, others: list[Zone]) -> bool:
    mapped = "intel-rapl-mmio"
    return zone.path.name.startswith(mapped) and any(
        other.name == zone.name and not other.path.name.startswith(mapped) for other in others
    )


class RaplMeter(PolledMeter):
    """Settings: ``root`` of the powercap tree, ``psys`` (true: the platform counter instead of its parts)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(float(config.get("poll_s", 0.010)))
        self._config = config
        self._zones: list[Zone] = []
        self._left_out: list[str] = []
        self._alerts: list[Alert] = []
        self._failing_s: float | None = None

    @property
    def info(self) -> MeterInfo:
        names = [zone.name for zone in self._zones]
        return MeterInfo(
            name="rapl",
            source=f"RAPL {' + '.join(names) if names else 'zones'}",
            kind="energy",
            boundary=str(self._config.get("boundary", boundary_of(names) if names else "cpu")),
            provenance="measured",
            period_s=self._period_s,
            quantum=1e-6,
            power_kind="board",
            details={"zones": {z.path.name: z.name for z in self._zones}, "left_out": list(self._left_out)},
        )

    def _open(self) -> None:
        root = str(self._config.get("root", ROOT))
        broken: list[str] = []
        known = zones(root, broken)
        if not known:
            why = "; ".join(broken) or "a virtual machine, or another kind of CPU"
            raise HardwareError(f"RAPL: no energy counters in {root} ({why})")
        psys = bool(self._config.get("psys", False))
        chosen, self._left_out = choose(known, psys)
        self._left_out += broken
        if not chosen:
            what = "psys" if psys else "package"
            raise HardwareError(
                f"RAPL: {root} has no {what} zone (it has {', '.join(sorted({z.name for z in known}))})"
            )
        self._alerts = []
        if broken:
            self._alert("zones left out", f"RAPL counts without {'; '.join(broken)}")
        for zone in chosen:
            try:
                zone.descriptor = os.open(zone.path / "energy_uj", os.O_RDONLY)
            except PermissionError:
                raise HardwareError(
                    f"RAPL: {zone.path}/energy_uj may be read by root only; run `{_PERMISSION}`"
                ) from None
            except OSError as error:
                raise HardwareError(f"RAPL: {zone.path}/energy_uj: {error.strerror}") from None
            self._zones.append(zone)
            try:
                zone.raw, zone.read_s = self._raw(zone), time.monotonic()
            except (OSError, ValueError) as error:
                raise HardwareError(f"RAPL: {zone.path}/energy_uj: {error}") from None
        # Often enough that no counter can wrap twice between two looks, however seldom it is asked for.
        shortest_s = min(zone.range_uj for zone in self._zones) / 1e6 / _MAX_ZONE_W
        self._period_s = max(0.001, min(self._period_s, shortest_s / 2.0))
        self._drop_mirrors()

    def _drop_mirrors(self) -> None:
        """Dies of one package that show the same counter: they stay together while they move.

        Of two sockets that is told, but no proof: each has a counter of its own, and both may be as busy.
        """
        pairs = [z for z in self._zones if z.name.startswith(("package", "die"))]
        if len(pairs) < 2:
            return
        looks = []
        for _ in range(4):
            time.sleep(0.02)
            with suppress(OSError, ValueError):  # a look that failed tells nothing
                looks.append([self._raw(zone) for zone in pairs])
        for place in range(1, len(pairs)):
            for other in range(place):
                # Looked at one after the other, even one register differs a little.
                apart = max((abs(row[place] - row[other]) for row in looks), default=0)
                moved = looks[-1][place] - looks[0][place] if looks else 0
                if apart > moved / 2 or moved <= 0 or pairs[other] not in self._zones:
                    continue
                zone, first = pairs[place], pairs[other]
                if _package(zone) != _package(first):
                    self._alert(
                        "equal counters",
                        f"{zone.name} and {first.name} show equal counters: if they are one socket, every joule is "
                        "counted twice",
                    )
                    continue
                os.close(zone.descriptor)
                self._zones.remove(zone)
                self._left_out.append(f"{zone.name} ({zone.path.name}) mirrors {first.name}")
                break

    def _alert(self, kind: str, text: str) -> None:
        self._alerts.append(Alert(kind, text, {}))

    def alerts(self) -> list[Alert]:
        found, self._alerts = self._alerts, []
        return [*super().alerts(), *found]

    def _close(self) -> None:
        for zone in self._zones:
            os.close(zone.descriptor)
        self._zones = []

    def _raw(self, zone: Zone) -> int:
        """OSError or ValueError where it cannot be read."""
        return int(os.pread(zone.descriptor, 32, 0))

    def _poll(self) -> Reading | None:
        try:
            looks = [(self._raw(zone), time.monotonic()) for zone in self._zones]
        except (OSError, ValueError) as error:
            # Whatever it counts meanwhile is in the next look.
            now = time.monotonic()
            self._counts["read_failed"] += 1
            self._failing_s = now if self._failing_s is None else self._failing_s
            if now - self._failing_s > _PATIENCE_S:
                where = ", ".join(f"{zone.path}/energy_uj" for zone in self._zones)
                raise MeterError(f"RAPL: not readable for {_PATIENCE_S:g} s: {where}: {error}") from None
            return None
        self._failing_s = None
        moved = False
        for zone, (raw, now) in zip(self._zones, looks, strict=True):
            step = unwrapped_j(zone.raw, raw, zone.range_uj)
            elapsed = max(now - zone.read_s, self._period_s)
            moved = moved or raw != zone.raw
            if step > zone.max_w * elapsed:
                # A counter that was reset looks like one that wrapped; no socket draws that much.
                self._counts["implausible"] += 1
            else:
                self._counts["wraps"] += int(raw < zone.raw)
                zone.joules += step
            zone.raw, zone.read_s = raw, now
        if not moved:
            return None
        return Reading(time.monotonic_ns(), sum(zone.joules for zone in self._zones))


def unwrapped_j(before_uj: int, after_uj: int, range_uj: int) -> float:
    """Joules between two looks at a counter that wraps at most once between them."""
    step = after_uj - before_uj
    return (step if step >= 0 else step + range_uj + 1) / 1e6


def choose(known: list[Zone], psys: bool) -> tuple[list[Zone], list[str]]:
    """The zones to add up, and what was left out and why."""
    if psys:
        platform = [z for z in known if _is_psys(z.name)]
        return platform, [f"{z.name}: inside psys" for z in known if not _is_psys(z.name)]
    chosen, left_out = [], []
    for zone in known:
        if zone.name.startswith("package") or zone.name == "dram":
            chosen.append(zone)
        elif _is_psys(zone.name):
            left_out.append(f"{zone.name}: holds package and dram")
        else:
            left_out.append(f"{zone.name}: inside the package")
    return (chosen if any(z.name.startswith("package") for z in chosen) else []), left_out


def boundary_of(names: list[str]) -> str:
    """``cpu``, ``cpu+dram`` or ``platform``, for zones of these names."""
    if any(map(_is_psys, names)):
        return "platform"
    return "cpu+dram" if "dram" in names else "cpu"


def _is_psys(name: str) -> bool:
    """``psys``, and ``psys-1`` of a second socket."""
    return name.partition("-")[0] == "psys"


def _package(zone: Zone) -> str:
    """``package-0`` of ``package-0-die-1``."""
    return zone.name.partition("-die")[0]
