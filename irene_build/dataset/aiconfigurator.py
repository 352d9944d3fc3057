"""Reads AIConfigurator's measured kernels (github.com/ai-dynamo/aiconfigurator, Apache-2.0) as our leaves.

Its layout: ``systems/NAME.yaml`` (a datasheet) and ``systems/data/NAME/OP/FRAMEWORK/VERSION/TABLE.parquet``; older
releases have ``systems/data/NAME/FRAMEWORK/VERSION/TABLE.txt`` (comma-separated). ``latency`` is in ms, ``power`` in W.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.dataset.kernels import PROVENANCE, KernelTable, collect, numbers, read_columns
from irene_build.errors import DatasetError, InputError

#: Table -> kind of kernel, column of its dtype, columns in the order of KINDS (a number stands for itself).
_TABLES: dict[str, tuple[str, str, tuple[str | float, ...]]] = {
    "gemm_perf": ("gemm", "gemm_dtype", ("m", "n", "k")),
    "context_attention_perf": (
        "prefill",
        "kv_cache_dtype",
        ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim", "window_size"),
    ),
    "generation_attention_perf": (
        "decode",
        "kv_cache_dtype",
        ("batch_size", "context", "num_heads", "num_key_value_heads", "head_dim", "window_size"),
    ),
    "encoder_attention_perf": ("encoder", "attn_dtype", ("batch_size", "isl", "num_heads", "head_dim")),
    "moe_perf": (
        "experts",
        "moe_dtype",
        (
            "num_tokens",
            "hidden_size",
            "inter_size",
            "topk",
            "num_experts",
            "moe_tp_size",
            "moe_ep_size",
            "skew",
        ),
    ),
    "mla_context_module_perf": ("mla_prefill", "gemm_type", ("batch_size", "isl", "step", "num_heads")),
    "mla_generation_module_perf": ("mla_decode", "gemm_type", ("batch_size", "context", "num_heads")),
    "custom_allreduce_perf": ("all_reduce", "allreduce_dtype", ("num_gpus", "message_bytes")),
    "nccl_perf": ("all_reduce", "nccl_dtype", ("num_gpus", "message_bytes")),
}
_DTYPES = {"half": "bfloat16", "float16": "bfloat16", "w4a16_mxfp4": "mxfp4", "w4a16": "int4_wo"}


def read(path: Path, system: str, framework: str, version: str | None) -> KernelTable:
    """The kernels of ``system``. ``path``: a checkout, the installed package's folder, or its ``systems``.

    Without ``version``, each operation's newest. Raises InputError where there is no such system, framework or version.
    """
    root, sheet = _system(path, system)
    folder = root / "data" / system
    chosen = _choose(folder, framework, version)
    if not any(name in chosen for name in ("gemm_perf", "generation_attention_perf")):
        there = sorted({p.parent.name for p in folder.rglob("*_perf.*") if framework in p.parts})
        raise InputError(
            f"{folder}: no tables of {framework}{' ' + version if version else ''}"
            + (f"; versions there: {', '.join(there)}" if there else "")
        )
    if "custom_allreduce_perf" in chosen:
        chosen.pop("nccl_perf", None)
    parts: list[Any] = []
    sources = {}
    limit = np.nan
    for name, file in sorted(chosen.items()):
        columns = read_columns(file)
        part, most = _part(file, name, columns)
        limit = np.nanmax([limit, most]) if np.isfinite([limit, most]).any() else np.nan
        parts.append(part)
        sources[name] = {"version": file.parent.name, "rows": len(part[3])}
    device = _device(system, sheet, None if np.isnan(limit) else float(limit))
    info = {
        "source": "github.com/ai-dynamo/aiconfigurator (Apache-2.0)", "system": system, "framework": framework,
        "tables": sources, "device": device, "provenance": PROVENANCE, "boundary": "gpu board",
    }  # fmt: skip
    return KernelTable(collect(parts), info)


def _system(path: Path, system: str) -> tuple[Path, Path]:
    """The folder ``systems`` under ``path`` and the system's datasheet."""
    if not path.is_dir():
        raise InputError(
            f"{path} is not a folder: give a checkout of aiconfigurator, or its package's folder"
        )
    roots = [
        path,
        path / "systems",
        path / "src/aiconfigurator/systems",
        path / "src/aiconfigurator_core/systems",
    ]
    for root in [*roots, *sorted(p.parent for p in path.glob("**/systems/data"))]:
        if (root / "data" / system).is_dir() and (root / f"{system}.yaml").is_file():
            return root, root / f"{system}.yaml"
    known = sorted({p.stem for p in path.glob("**/*.yaml") if (p.parent / "data").is_dir()})
    raise InputError(f"{path}: no system {system!r}" + (f"; there are {', '.join(known)}" if known else ""))


def _choose(folder: Path, framework: str, version: str | None) -> dict[str, Path]:
    """Table -> file: the version asked for, else the newest; all-reduce tables have versions of their own."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*_perf.*")):
        if file.suffix not in (".parquet", ".txt", ".csv") or file.stem not in _TABLES:
            continue
        if framework in file.relative_to(folder).parts or file.stem == "nccl_perf":
            found.setdefault(file.stem, []).append(file)
    chosen = {}
    for name, files in found.items():
        exact = [file for file in files if file.parent.name == version]
        if version and not exact and "all" not in name and name != "nccl_perf":
            continue
        chosen[name] = max(exact or files, key=lambda file: _order(file.parent.name))
    return chosen


def _order(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _part(file: Path, name: str, columns: dict[str, np.ndarray]) -> tuple[Any, float]:
    kind, dtype_column, names = _TABLES[name]
    count = len(next(iter(columns.values())))
    if name == "nccl_perf":
        rows = columns["op_name"].astype(str) == "all_reduce"
        columns = {key: values[rows] for key, values in columns.items()}
        count = int(rows.sum())
    if kind in ("decode", "mla_decode"):
        columns["context"] = numbers(columns, "isl", count, 1.0) + numbers(columns, "step", count, 0.0)
    if kind == "experts":
        text = columns["distribution"].astype(str)
        columns["skew"] = np.array(
            [float(x.rpartition("_")[2]) if x.startswith("power_law") else 0.0 for x in text]
        )
    dtypes = columns[dtype_column].astype(str) if dtype_column in columns else np.full(count, "bfloat16")
    dtypes = np.array([_DTYPES.get(x, x) for x in dtypes])
    if kind == "all_reduce":
        columns["message_bytes"] = 2.0 * columns["message_size"].astype(float)
        if "backend" in columns:
            eager = np.char.find(columns["backend"].astype(str), "eager") >= 0
            dtypes = np.where(eager, "eager", dtypes)
    if kind.startswith("mla") and "kv_cache_dtype" in columns:
        dtypes = np.char.add(np.char.add(dtypes, "/"), columns["kv_cache_dtype"].astype(str))
    optional = ("step", "window_size")
    missing = [
        n for n in (*names, "latency") if isinstance(n, str) and n not in columns and n not in optional
    ]
    if missing:
        raise DatasetError(f"{file}: no column {missing[0]}; is this a table of aiconfigurator?")
    shape = np.column_stack([numbers(columns, str(n), count, 0.0) for n in names])
    latency_s = numbers(columns, "latency", count, np.nan) * 1e-3
    watts = numbers(columns, "power", count, np.nan)
    watts = np.where(watts > 0, watts, np.nan)
    limits = numbers(columns, "power_limit", count, np.nan)
    return (kind, dtypes, shape, latency_s, watts), float(np.nanmax(limits)) if np.isfinite(
        limits
    ).any() else np.nan


def _device(system: str, sheet: Path, limit_w: float | None) -> dict[str, Any]:
    """The datasheet as plain data, by the classes of peak that kernels name."""
    from irene_build.errors import HardwareError
    from irene_build.hardware.datasheets import from_system_yaml

    try:
        device = plain_device(from_system_yaml(sheet))
    except HardwareError:
        device = _unknown(system, sheet)
    return {**device, "power_limit_w": limit_w or device["power_limit_w"]}


#: Streaming multiprocessors by compute capability, of the largest device that has it; 132 where it is new.
_SMS = {"80": 108, "86": 84, "89": 142, "90": 132, "100": 148, "103": 160, "120": 188, "121": 48}


def _unknown(system: str, sheet: Path) -> dict[str, Any]:
    """What a system file alone says of a device that no datasheet knows. Raises DatasetError."""
    import yaml

    try:
        data = yaml.safe_load(sheet.read_text(encoding="utf-8"))
        gpu, node = data["gpu"], data.get("node") or {}
        half = float(gpu["bfloat16_tc_flops"])
        peaks = {"bfloat16": half, "float32": half / 16.0}
        for ours, theirs in (("fp8", "fp8_tc_flops"), ("fp4", "fp4_tc_flops")):
            if gpu.get(theirs):
                peaks[ours] = float(gpu[theirs])
        return {
            "name": system, "sms": _SMS.get(str(gpu.get("sm_version")), 132), "peak_flops_per_s": peaks,
            "bandwidth_bytes_per_s": float(gpu["mem_bw"]), "memory_bytes": float(gpu["mem_capacity"]),
            "link_bytes_per_s": 2.0 * float(node.get("intra_node_bw", 0.0)), "power_limit_w": float(gpu["power"]),
            "idle_w": 0.12 * float(gpu["power"]),
        }  # fmt: skip
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{sheet} is no system file of aiconfigurator: {error}") from None


def plain_device(sheet: Any) -> dict[str, Any]:
    """A ``Datasheet`` as the plain data that ``irene_runtime.kernels`` reads."""
    data = asdict(sheet)
    peaks = data["peak_flops_per_s"]
    names = {"bfloat16": "bfloat16", "fp8": "float8", "fp4": "float4", "float32": "float32"}
    found = {ours: float(peaks[theirs]) for ours, theirs in names.items() if peaks.get(theirs)}
    found.setdefault("bfloat16", float(peaks.get("float16", peaks["float32"])))
    keys = (
        "name",
        "sms",
        "bandwidth_bytes_per_s",
        "link_bytes_per_s",
        "memory_bytes",
        "power_limit_w",
        "idle_w",
    )
    return {**{key: data[key] for key in keys}, "peak_flops_per_s": found}
