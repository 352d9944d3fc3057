"""Trains a device's estimator of kernels and servers from what was imported, and evaluates it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from irene_build.dataset import kernels as tables
from irene_build.dataset import serving
from irene_build.engines import estimator as server
from irene_build.errors import InputError
from irene_build.paths import find_artifact, hardware_dir

Report = Callable[[float], None]
#: The device whose whole runs stand in where a device has few or none of its own.
_REFERENCE = "h100"


def has_measurements(hardware: str) -> bool:
    """Whether kernels or serving runs were imported under this name."""
    return any((hardware_dir(hardware) / name).is_file() for name in (tables.FILE, serving.FILE))


def found(hardware: str) -> dict[str, Any] | None:
    """The estimator of kernels under this name, one's own first, then the shipped one; None where there is none."""
    try:
        path = find_artifact(hardware, "estimator.json")
    except InputError:
        return None
    return server.load(path) if server.is_kernels(path) else None


def train(hardware: str, report: Report | None = None) -> dict[str, Any]:
    """The estimator from what was imported of ``hardware``; without kernels, on those of the one that is there."""
    table, runs = _kernels(hardware), _runs(hardware)
    data: dict[str, Any] = {"format": server.FORMAT, "version": server.VERSION, "hardware": hardware}
    before = found(hardware)
    if table is not None:
        source = table.info.get("power_from")
        power = _power(source) if source and not table.powered else None
        from irene_build.engines.kernel_fit import fit_device

        data["device"] = fit_device(table, power, report)
        data["power_from"] = source if power is not None else None
        data["sources"] = [{k: table.info[k] for k in ("source", "system", "framework", "tables", "file", "boundary")
                            if k in table.info}]  # fmt: skip
    elif before is not None:
        data.update({k: before.get(k) for k in ("device", "power_from", "sources")})
    else:
        raise InputError(
            f"{hardware}: no kernels; `irene-build import aiconfigurator` or `import kernels` first"
        )
    around = _around(hardware)
    at_work = server.Server(data)
    if runs:
        data["serving"] = server.fit_serving(at_work, runs, around["numbers"] if around else None, report)
        if around:
            data["serving"]["priors"] = f"the whole runs of {_REFERENCE}"
            ranges = server.joined(data["serving"]["ranges"], around.get("ranges", {}))
            data["serving"]["ranges"] = ranges or data["serving"]["ranges"]
    elif around:
        data["serving"] = {
            "numbers": around["numbers"], "runs": 0, "models": [], "widths": {}, "ranges": around.get("ranges", {}),
            "priors": f"carried: the whole runs of {_REFERENCE}",
        }  # fmt: skip
    else:
        data["serving"] = None
    return data


def evaluate(hardware: str, report: Report | None = None) -> dict[str, Any]:
    """Models left out of the serving runs, shapes left out of the kernels: whichever were imported."""
    table, runs = _kernels(hardware), _runs(hardware)
    out: dict[str, Any] = {"hardware": hardware}
    if runs:
        from irene_build.engines.evaluation import leave_models_out

        data = found(hardware)
        if data is None:
            data = train(hardware)
        around = _around(hardware)
        out.update(leave_models_out(server.Server(data), runs, around["numbers"] if around else None, report))
    if table is not None:
        from irene_build.engines.kernel_fit import leave_shapes_out

        source = table.info.get("power_from")
        out["kernels"] = leave_shapes_out(
            table, _power(source) if source and not table.powered else None, folds=4
        )
    return out


def against(hardware: str, path: Path, report: Report | None = None) -> dict[str, Any]:
    """The estimator of ``hardware`` as it is on the serving runs of a file that it never saw."""
    from irene_build.engines.evaluation import against as compare

    data = found(hardware)
    if data is None:
        raise InputError(
            f"no estimator of servers for {hardware!r}; there are h100, h200 and b200, or train one"
        )
    out = compare(server.Server(data), serving.read(path), report)
    out["file"] = path.name
    return out


def _kernels(hardware: str) -> tables.KernelTable | None:
    path = hardware_dir(hardware) / tables.FILE
    return tables.load(path) if path.is_file() else None


def _runs(hardware: str) -> list[serving.ServingRun]:
    path = hardware_dir(hardware) / serving.FILE
    return serving.load(path) if path.is_file() else []


def _power(hardware: str) -> dict[str, Any]:
    data = found(hardware)
    if data is None:
        raise InputError(f"--power-from {hardware}: no estimator of kernels under that name; train it first")
    power: dict[str, Any] = data["device"]["power"]
    return power


def _around(hardware: str) -> dict[str, Any] | None:
    """The serving numbers of the reference device, for any other."""
    data = found(_REFERENCE) if hardware != _REFERENCE else None
    return (data.get("serving") or None) if data else None
