"""Fits ``irene_runtime.kernels`` to a table of measured kernels: six numbers and a smooth table a kind, a power law."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from irene_build.dataset.kernels import Group, KernelTable
from irene_build.errors import InputError
from irene_runtime.kernels import (
    BOUND,
    axes,
    bytes_of,
    law_power,
    nearest,
    power_axes,
    roofline,
    shape_axes,
    variant,
    work,
)

#: Law of a kernel that no table has: start values and what the fit may not leave (natural logarithms of both).
START = {
    "eff": 0.6,
    "eff_bytes": 0.8,
    "t0_s": 3e-6,
    "sharp": 3.0,
    "extra_k": 100.0,
    "tile": 2000.0,
    "skew": 0.05,
}
_RANGE = {
    "eff": (0.02, 1.2), "eff_bytes": (0.05, 1.5), "t0_s": (2e-7, 2e-4), "sharp": (1.0, 12.0),
    "extra_k": (1.0, 2000.0), "tile": (1.0, 30000.0), "skew": (1e-4, 1.0),
}  # fmt: skip
_SAMPLE = 4000
#: Doublings between knots of the tables.
_STEP = {"gemm": 1.0, "experts": 2.0, "decode": 1.0, "prefill": 2.0, "encoder": 2.0, "mla_prefill": 1.5,
         "mla_decode": 1.5, "all_reduce": 1.0}  # fmt: skip
Report = Callable[[float], None]


def fit_device(
    table: KernelTable, power: Mapping[str, Any] | None = None, report: Report | None = None
) -> dict[str, Any]:
    """The device's numbers, as ``irene_runtime.kernels`` reads them.

    ``power``: another device's law, where the table's rows have no watts; its watts are scaled to this board's limit
    only. Raises InputError where neither is there.
    """
    device: dict[str, Any] = dict(table.info["device"])
    parts = [(group, key, rows) for group in table.groups for key, rows in _variants(group)]
    laws: dict[str, Any] = {}
    for i, (group, key, rows) in enumerate(parts):
        if len(rows) >= 12:
            laws[key] = fit_time(group, rows, device)
        if report:
            report((i + 1) / (len(parts) + 1))
    device["kernels"] = laws
    device["memory"] = {**START, "t0_s": 2e-6, "eff_bytes": 0.75}
    if table.powered >= 50:
        device["power"] = fit_power(table, device)
        device["power"]["provenance"] = table.info.get("provenance", "measured")
    elif power is not None:
        device["power"] = {**power, "limit_w": device["power_limit_w"], "provenance": "carried"}
    else:
        raise InputError(
            f"no row of {device['name']} has power: import with --power-from HARDWARE, whose power law is known"
        )
    return device


def _variants(group: Group) -> list[tuple[str, np.ndarray]]:
    """Key of the fitted numbers -> rows, ascending by key."""
    keys = np.array([variant(group.kind, group.dtype, shape) for shape in group.shape])
    return [(str(key), np.flatnonzero(keys == key)) for key in np.unique(keys)]


def fit_time(group: Group, rows: np.ndarray, device: Mapping[str, Any]) -> dict[str, Any]:
    """The roofline's numbers, then a smooth table over the logarithm of what is left. Robust: soft L1."""
    from scipy.optimize import least_squares

    rng = np.random.default_rng(0)
    some = rng.choice(rows, min(_SAMPLE, len(rows)), replace=False)
    names = ["eff", "eff_bytes", "t0_s", "sharp"]
    names += {"gemm": ["extra_k", "tile"], "experts": ["skew"]}.get(group.kind, [])
    low, high = (np.log([_RANGE[n][i] for n in names]) for i in (0, 1))
    shape, measured = group.columns(some), np.log(group.latency_s[some])

    def residuals(theta: np.ndarray) -> np.ndarray:
        law = {**START, **dict(zip(names, np.exp(theta), strict=True))}
        out: np.ndarray = np.log(roofline(np, group.kind, group.dtype, shape, law, device)) - measured
        return out

    start = np.clip(np.log([START[n] for n in names]), low + 1e-6, high - 1e-6)
    found = least_squares(
        residuals, start, bounds=(low, high), loss="soft_l1", f_scale=0.1, x_scale=0.3, max_nfev=60
    )
    law: dict[str, Any] = {
        **START,
        **{n: float(f"{v:.6g}") for n, v in zip(names, np.exp(found.x), strict=True)},
    }
    shape = group.columns(rows)
    left = np.log(group.latency_s[rows]) - np.log(roofline(np, group.kind, group.dtype, shape, law, device))
    law["table"] = fit_table(axes(np, group.kind, shape), left, _STEP[group.kind])
    return law


def fit_table(points: list[np.ndarray], left: np.ndarray, step: float) -> dict[str, Any]:
    """Knots and log corrections (in thousandths) that follow ``left`` smoothly; robust, shrunk to 0."""
    import scipy.sparse as sp
    from scipy.sparse.linalg import lsqr

    knots = []
    for x in points:
        low, high = float(np.floor(x.min())), float(np.ceil(x.max()))
        count = max(2, int(np.ceil((high - low) / step)) + 1)
        knots.append(np.linspace(low, max(high, low + 1.0), count))
    basis = _basis(points, knots)
    penalties = []
    for axis, own in enumerate(knots):
        if len(own) > 2:
            eyes = [sp.identity(len(k), format="csr") for k in knots]
            eyes[axis] = sp.diags_array([np.ones(len(own) - 2), -2 * np.ones(len(own) - 2), np.ones(len(own) - 2)],
                                        offsets=[0, 1, 2], shape=(len(own) - 2, len(own)), format="csr")  # fmt: skip
            total = sp.identity(1, format="csr")
            for part in eyes:
                total = sp.kron(total, part, format="csr")
            penalties.append(total)
    smooth = sp.vstack([*penalties, 0.1 * sp.identity(basis.shape[1], format="csr")]).tocsr()
    zeros = np.zeros(smooth.shape[0])
    weight, values = np.ones(len(left)), np.zeros(basis.shape[1])
    for _ in range(4):
        system = sp.vstack([sp.diags_array(weight) @ basis, smooth]).tocsr()
        values = lsqr(system, np.concatenate([weight * left, zeros]), iter_lim=150, x0=values)[0]
        weight = np.sqrt(0.03 / np.maximum(np.abs(left - basis @ values), 0.03))
    milli = np.rint(1e3 * np.clip(values, -BOUND, BOUND)).astype(int)
    return {"knots": [[round(float(v), 3) for v in k] for k in knots], "milli": milli.tolist()}


def _basis(points: list[np.ndarray], knots: list[np.ndarray]) -> Any:
    """Sparse matrix [rows, knots] of multilinear interpolation, as ``irene_runtime.kernels.correction`` does it."""
    import scipy.sparse as sp

    count = len(points[0])
    columns, weights = [np.zeros(count, dtype=np.int64)], [np.ones(count)]
    for x, own in zip(points, knots, strict=True):
        i = np.clip(np.searchsorted(own, x, side="right") - 1, 0, len(own) - 2)
        f = np.clip((x - own[i]) / (own[i + 1] - own[i]), 0.0, 1.0)
        columns = [c * len(own) + i + j for c in columns for j in (0, 1)]
        weights = [w * g for w in weights for g in (1 - f, f)]
    rows = np.tile(np.arange(count), len(columns))
    size = int(np.prod([len(k) for k in knots]))
    return sp.csr_array((np.concatenate(weights), (rows, np.concatenate(columns))), shape=(count, size))


def predict_time(group: Group, rows: np.ndarray, device: Mapping[str, Any]) -> np.ndarray:
    """Seconds of many kernels: what ``irene_runtime.kernels.kernel`` says one by one."""
    out = np.empty(len(rows))
    keys = np.array([variant(group.kind, group.dtype, group.shape[row]) for row in rows])
    for key in np.unique(keys):
        at = keys == key
        law = device["kernels"][nearest(device["kernels"], str(key))]
        shape = group.columns(rows[at])
        time_s = roofline(np, group.kind, group.dtype, shape, law, device)
        if law.get("table"):
            time_s = time_s * np.exp(interpolate(law["table"], axes(np, group.kind, shape)))
        out[at] = time_s
    return out


def fit_power(table: KernelTable, device: Mapping[str, Any]) -> dict[str, Any]:
    """P = min(limit, p0 + joules a FLOP x FLOP/s + joules a byte x byte/s), from all products at once, robustly; then
    per kind and dtype two smooth tables, over the rates and over the shape, since power is noisy row by row.
    """
    from scipy.optimize import least_squares

    rng = np.random.default_rng(0)
    limit = float(device["power_limit_w"]) * 0.99
    sets = []
    for group in table.groups:
        rows = np.flatnonzero(np.isfinite(group.power_w))
        if group.kind != "all_reduce" and len(rows) >= 20:
            sets.append((group, rows))
    if not sets:
        raise InputError("no kernel with power")
    products = [
        (g, rng.choice(r, min(6000, len(r)), replace=False)) for g, r in sets if g.kind == "gemm"
    ] or sets
    classes = sorted({bytes_of(g.dtype)[2] for g, _ in products})
    rates = [(*_rates(g, r), g.power_w[r], 2 + classes.index(bytes_of(g.dtype)[2])) for g, r in products]
    first = {"bfloat16": 0.7e-12, "fp8": 0.4e-12, "fp4": 0.2e-12, "float32": 5e-12}

    def residuals(theta: np.ndarray) -> np.ndarray:
        out = [2.0 * (theta[:1] - np.log(0.2 * limit)), 2.0 * (theta[1:2] - np.log(6e-11))]
        for flop_rate, byte_rate, watts, own in rates:
            says = np.exp(theta[0]) + np.exp(theta[own]) * flop_rate + np.exp(theta[1]) * byte_rate
            out.append(np.log(np.minimum(says, limit) / watts))
        return np.concatenate(out)

    start = np.concatenate([np.log([0.2 * limit, 6e-11]), np.log([first[c] for c in classes])])
    near = np.log([10.0, 3.0, *[2.0] * len(classes)])
    fitted = least_squares(residuals, start, bounds=(start - near, start + near), loss="soft_l1", f_scale=0.1)
    found = np.exp(fitted.x)
    shared = dict(zip(classes, found[2:], strict=True))
    base = {
        cls: shared.get(cls, first[cls] / first["bfloat16"] * shared.get("bfloat16", first["bfloat16"]))
        for cls in first
    }
    numbers: dict[str, Any] = {
        "limit_w": limit, "p0_w": round(float(found[0]), 2), "byte_j": float(f"{found[1]:.4g}"),
        "flop_j": {name: float(f"{value:.4g}") for name, value in base.items()}, "tables": {},
    }  # fmt: skip
    for group, rows in sets:
        flops, _, data = work(np, group.kind, group.dtype, group.columns(rows))
        time_s = group.latency_s[rows]
        says = law_power(np, group.kind, group.dtype, flops, data, time_s, {"power": numbers})
        left = np.log(group.power_w[rows] / says)
        points = power_axes(np, group.kind, group.dtype, flops, data, time_s, device)
        by_rates = fit_table(points, left, 2.0)
        left = left - interpolate(by_rates, points)
        by_shape = fit_table(shape_axes(np, group.kind, group.columns(rows)), left, 2.0)
        numbers["tables"][f"{group.kind}|{group.dtype}"] = [by_rates, by_shape]
    return numbers


def _rates(group: Group, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FLOP/s and byte/s."""
    flops, _, data = work(np, group.kind, group.dtype, group.columns(rows))
    return flops / group.latency_s[rows], data / group.latency_s[rows]


def interpolate(table: Mapping[str, Any], points: list[np.ndarray]) -> np.ndarray:
    """``irene_runtime.kernels.correction`` of many points."""
    knots = [np.array(own) for own in table["knots"]]
    outside = sum(
        np.maximum(0.0, np.maximum(k[0] - x, x - k[-1])) for k, x in zip(knots, points, strict=True)
    )
    value = (
        1e-3
        * (_basis(points, knots) @ np.array(table["milli"], float))
        * np.maximum(0.0, 1.0 - outside / 4.0)
    )
    out: np.ndarray = np.clip(value, -BOUND, BOUND)
    return out


def predict_power(
    group: Group, rows: np.ndarray, time_s: np.ndarray, device: Mapping[str, Any]
) -> np.ndarray:
    """Watts of many kernels: what ``irene_runtime.kernels.power`` says one by one."""
    flops, _, data = work(np, group.kind, group.dtype, group.columns(rows))
    watts = law_power(np, group.kind, group.dtype, flops, data, time_s, device)
    numbers = device["power"]
    key = f"{group.kind}|{group.dtype}"
    if numbers["tables"]:
        points = power_axes(np, group.kind, group.dtype, flops, data, time_s, device)
        at = (
            nearest(numbers["tables"], key)
            if any(k.startswith(f"{group.kind}|") for k in numbers["tables"])
            else None
        )
        if at is not None:
            rates, shapes = numbers["tables"][at]
            value = interpolate(rates, points)
            value = value + interpolate(shapes, shape_axes(np, group.kind, group.columns(rows)))
            watts = watts * np.exp(np.clip(value, -BOUND, BOUND))
    return np.minimum(watts, numbers["limit_w"])


#: What a fold leaves out: all rows of one shape that differ in these columns alone are in or out together.
_SHAPE_OF = {"gemm": (1, 2), "prefill": (3, 4), "decode": (2, 3), "encoder": (2,), "experts": (1, 2, 3, 4),
             "mla_prefill": (3,), "mla_decode": (2,), "all_reduce": (0, 1)}  # fmt: skip


def leave_shapes_out(table: KernelTable, power: Mapping[str, Any] | None, folds: int = 5) -> dict[str, Any]:
    """Per kind the errors in percent on shapes that the fit did not see: (n, k) of products, head counts, experts.

    Times and joules (where measured) with their predicted times; beside them the nearest measured kernel and latency x
    a constant power.
    """
    rng = np.random.default_rng(0)
    labels = []
    for group in table.groups:
        _, inverse = np.unique(group.shape[:, list(_SHAPE_OF[group.kind])], axis=0, return_inverse=True)
        inverse = inverse.ravel()
        labels.append(rng.permutation(inverse.max() + 1)[inverse] % folds)
    found: dict[str, list[np.ndarray]] = {}
    for fold in range(folds):
        seen = [_rows(g, lab != fold) for g, lab in zip(table.groups, labels, strict=True)]
        trained = KernelTable([g for g in seen if len(g.latency_s)], table.info)
        device = fit_device(trained, power)
        for group, own, label in zip(table.groups, seen, labels, strict=True):
            rows = np.flatnonzero(label == fold)
            if not len(rows) or not any(k.startswith(f"{group.kind}|") for k in device["kernels"]):
                continue
            if len(rows) > 3000:
                rows = rng.choice(rows, 3000, replace=False)
            time_s = predict_time(group, rows, device)
            watts = predict_power(group, rows, time_s, device)
            near = _nearest(own, group, rows) if len(own.latency_s) else (time_s * np.nan, time_s * np.nan)
            flat = (
                np.nanmedian(np.concatenate([g.power_w for g in trained.groups])) if table.powered else np.nan
            )
            true = group.latency_s[rows]
            joule = true * group.power_w[rows]
            found.setdefault(group.kind, []).append(
                np.column_stack([time_s / true, time_s * watts / joule, near[0] / true, near[0] * near[1] / joule,
                                 time_s * flat / joule])
            )  # fmt: skip
    return {kind: _summary(np.concatenate(parts)) for kind, parts in sorted(found.items())}


def _rows(group: Group, rows: np.ndarray) -> Group:
    return Group(group.kind, group.dtype, group.shape[rows], group.latency_s[rows], group.power_w[rows])


def _nearest(own: Group, group: Group, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and watts by the nearest measured kernel, in log2 of the shape; time scaled by the work's bytes."""
    from scipy.spatial import cKDTree

    found, at = cKDTree(np.log2(own.shape + 1.0)).query(np.log2(group.shape[rows] + 1.0))
    del found
    here = work(np, group.kind, group.dtype, group.columns(rows))
    there = work(np, group.kind, group.dtype, own.columns(at))
    scale = np.maximum(here[2], 1.0) / np.maximum(there[2], 1.0)
    return own.latency_s[at] * np.where(scale > 1.0, scale, 1.0), own.power_w[at]


def _summary(ratios: np.ndarray) -> dict[str, Any]:
    """Median and mean error in percent of the columns: time, joules, nearest kernel's two, constant power."""
    names = ("time", "energy", "nearest_time", "nearest_energy", "constant_power_energy")
    out: dict[str, Any] = {"n": len(ratios)}
    for name, column in zip(names, ratios.T, strict=True):
        good = column[np.isfinite(column)]
        if len(good):
            error = 100.0 * np.abs(good - 1.0)
            out[name] = {"p50": round(float(np.median(error)), 2), "mape": round(float(error.mean()), 2)}
            spread = np.abs(np.log(good))
            out[name]["log_p90"] = round(float(np.quantile(spread, 0.9)), 4)
    return out


#: A kernel whose constant is longer was measured as the host launched it, piece by piece: no captured step holds that.
_CAPTURED_S = {"gemm": 20e-6, "mla_prefill": 25e-6, "mla_decode": 25e-6}


def kernel_of(device: Mapping[str, Any]) -> Callable[..., tuple[float, float, float, float]]:
    """``kernel(kind, dtype, shape)`` inside a captured step; the same values are looked up once.

    Joules by the law alone: the tables follow watts averaged over a second of one kernel repeated, whose operands stay
    in the cache, and whose row carries something of the one measured before. Where a table holds the host's time (FP8
    by blocks on B200: 160 us whatever the shape), a product takes at most what 16 bit takes and a pass over its input,
    and latent attention loses what its constant has beyond ten launches.
    """
    from functools import lru_cache

    from irene_runtime.kernels import Scalar, kernel

    inside = {**device, "power": {**device["power"], "tables": {}}}
    laws = device["kernels"]

    @lru_cache(maxsize=100_000)
    def one(kind: str, dtype: str, shape: tuple[float, ...]) -> tuple[float, float, float, float]:
        time_s, joules, flops, data = kernel(inside, kind, dtype, shape)
        if kind not in _CAPTURED_S:
            return time_s, joules, flops, data
        late_s = laws[nearest(laws, variant(kind, dtype, shape))]["t0_s"] - _CAPTURED_S[kind]
        if late_s <= 0.0:
            return time_s, joules, flops, data
        if kind == "gemm":
            act = bytes_of(dtype)[1]
            quantise_s = kernel(inside, "memory", "bfloat16", ((2.0 + act) * shape[0] * shape[2],))[0]
            time_s = min(time_s, kernel(inside, kind, "bfloat16", shape)[0] + quantise_s)
        else:
            time_s = max(time_s - late_s, 0.2 * time_s)
        watts = law_power(Scalar, kind, dtype, flops, data, time_s, inside)
        return time_s, time_s * watts, flops, data

    return one
