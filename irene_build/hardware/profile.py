"""Loads hardware profiles: the built-in ones, a user's own in the artifacts folder, or any TOML file."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irene_build.errors import HardwareError
from irene_build.paths import artifacts_dir, check_name, shipped_artifacts_dir
from irene_runtime.gpu import find_gpu, gpu_name

_BUILT_IN = Path(__file__).resolve().parent
_FILE = "hardware.toml"
_TABLES = ("cpu", "memory", "gpu", "storage", "meter", "supply", "strubell")
_FIELDS = ("name", "description", "device", "standby_power_w", *_TABLES)
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Supply:
    """What lies between the parts and the wall: P_wall = board_w + P_parts / efficiency."""

    efficiency: float = 0.9
    board_w: float = 0.0


@dataclass(frozen=True)
class Strubell:
    """Constants of the software baseline: e = pue (p_dram e_dram + p_cpu e_cpu + p_gpu e_gpu), power in W.

    Strubell et al. 2019, Henderson et al. 2020; section 5.1 of the paper. ``pue`` 1.58 is theirs; the powers
    are the parts' data sheets (thermal design power; 3 W for 8 GiB of memory).
    """

    pue: float = 1.58
    cpu_w: float = 65.0
    dram_w: float = 6.0
    gpu_w: float = 0.0


@dataclass(frozen=True)
class HardwareProfile:
    """A PC under calibration.

    ``meter``: the driver's configuration. ``boundary``: what its joules cover.
    ``standby_power_w``: power at CPU load below 0.1 %, ``None`` where it has to be measured first.
    ``source``: the file it was read from, as a person would name it.
    """

    name: str
    description: str
    device: str
    cpu: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    gpu: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)
    meter: Mapping[str, Any] = field(default_factory=dict)
    boundary: str = "wall"
    standby_power_w: float | None = None
    supply: Supply = Supply()
    strubell: Strubell = Strubell()
    source: str = "built in"

    @property
    def max_power_w(self) -> float | None:
        """No reading at the wall can be above: twice what the parts are made for; None where that is not known."""
        cpu_w, gpu_w = (self._tdp_w(part) for part in (self.cpu, self.gpu))
        if cpu_w is None or (self.gpu and gpu_w is None):
            return None
        return (2.0 * (cpu_w + (gpu_w or 0.0)) + 200.0) / self.supply.efficiency

    @staticmethod
    def _tdp_w(part: Mapping[str, Any]) -> float | None:
        """Thermal design power of all parts of a kind, W."""
        power, count = part.get("tdp_w"), part.get("count", 1)
        return (
            float(power) * float(count)
            if isinstance(power, (int, float)) and isinstance(count, int)
            else None
        )


def profile_names() -> list[str]:
    """Names that ``load_profile`` knows: built in, and ``<artifacts>/<name>/hardware.toml``."""
    names = {path.stem for path in _BUILT_IN.glob("*.toml")}
    for root in (artifacts_dir(), shipped_artifacts_dir()):
        names |= {path.parent.name for path in root.glob(f"*/{_FILE}")}
    return sorted(names)


def load_profile(name_or_path: str) -> HardwareProfile:
    """A profile by name, or from a TOML file.

    Raises HardwareError where it is unknown or malformed; the message lists what exists, or names the field.
    """
    if name_or_path.endswith(".toml") or os.sep in name_or_path:
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise HardwareError(f"hardware profile {name_or_path}: there is no such file")
        return _parse(path, default_name=path.parent.name if path.name == _FILE else path.stem)
    check_name(name_or_path)
    candidates = [root / name_or_path / _FILE for root in (artifacts_dir(), shipped_artifacts_dir())]
    for path in [*candidates, _BUILT_IN / f"{name_or_path}.toml"]:
        if path.is_file():
            return _parse(path, default_name=name_or_path)
    raise HardwareError(
        f"unknown hardware {name_or_path!r}: known are {', '.join(profile_names())}; for a PC of your own "
        f"write {artifacts_dir()}/{name_or_path}/{_FILE} or give the path of a .toml file"
    )


def this_pc(meter: Mapping[str, Any], boundary: str, name: str = "local") -> HardwareProfile:
    """A profile of the machine that this runs on, around a meter that was found."""
    gpus = _gpus()
    cpu = {"model": _cpu_model(), "cores": os.cpu_count() or 1}
    memory: dict[str, Any] = {}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        memory = {"size_gib": round(size, 1)}
    gpu: dict[str, Any] = {"model": gpus[0], "count": len(gpus), "used": 1} if gpus else {}
    parts = [str(cpu["model"]), *([f"{memory['size_gib']:g} GiB"] if memory else []), *gpus[:1]]
    dram_w = 3.0 / 8.0 * float(memory.get("size_gib", 16.0))
    return HardwareProfile(
        name=name,
        description=", ".join(parts),
        device="cuda" if gpus else "cpu",
        cpu=cpu,
        memory=memory,
        gpu=gpu,
        meter=dict(meter),
        boundary=boundary,
        strubell=Strubell(dram_w=dram_w),
        source="this machine",
    )


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown CPU"


def _gpus() -> list[str]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        # The one that models run on is CUDA's first, whatever the driver counts first.
        return [gpu_name(pynvml, find_gpu(pynvml)), *(gpu_name(pynvml, handle) for handle in handles[1:])]
    except (HardwareError, pynvml.NVMLError):
        return []
    finally:
        pynvml.nvmlShutdown()


def _parse(path: Path, default_name: str) -> HardwareProfile:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HardwareError(f"hardware profile {path}: not TOML ({error})") from None
    except OSError as error:
        raise HardwareError(f"hardware profile {path}: {error.strerror}") from None
    check = _Checker(path)
    check.known(data, "", _FIELDS)
    for table in _TABLES:
        if not isinstance(data.get(table, {}), dict):
            raise check.wrong(table, "must be a table")
    meter = data.get("meter", {})
    if not isinstance(meter.get("driver"), str):
        raise check.wrong("meter.driver", "is missing; it names the source, such as emonpi, nvml, rapl")
    device = data.get("device", "cpu")
    if device not in DEVICES:
        raise check.wrong("device", f"is {device!r}; use one of {', '.join(DEVICES)}")
    supply, strubell = data.get("supply", {}), data.get("strubell", {})
    check.known(supply, "supply.", Supply.__dataclass_fields__)
    check.known(strubell, "strubell.", Strubell.__dataclass_fields__)
    supply = {key: check.number(value, f"supply.{key}") for key, value in supply.items()}
    if not 0.0 < supply.get("efficiency", 0.9) <= 1.0:
        raise check.wrong("supply.efficiency", "must be above 0 and at most 1")
    standby = data.get("standby_power_w")
    name = str(data.get("name", default_name))
    return HardwareProfile(
        name=check_name(name),
        description=str(data.get("description", "")),
        device=device,
        cpu=data.get("cpu", {}),
        memory=data.get("memory", {}),
        gpu=data.get("gpu", {}),
        storage=data.get("storage", {}),
        meter=meter,
        boundary=str(meter.get("boundary", "wall")),
        standby_power_w=None if standby is None else check.number(standby, "standby_power_w"),
        supply=Supply(**supply),
        strubell=Strubell(**{key: check.number(value, f"strubell.{key}") for key, value in strubell.items()}),
        source="built in" if path.parent == _BUILT_IN else str(path),
    )


class _Checker:
    """Errors that name the file and the field."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def wrong(self, where: str, what: str) -> HardwareError:
        return HardwareError(f"hardware profile {self.path}: {where} {what}")

    def known(self, table: Mapping[str, Any], prefix: str, names: Any) -> None:
        for key in table:
            if key not in names:
                raise self.wrong(f"{prefix}{key}", f"is not known here; use one of {', '.join(names)}")

    def number(self, value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(where, f"is {value!r}, not a number")
        if not math.isfinite(value) or value < 0:
            raise self.wrong(where, f"is {value!r}; it must be finite and not negative")
        return float(value)
