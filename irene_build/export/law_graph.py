"""The physical law in the graph (FORMAT.md, LAW): seconds and joules of every row that does not say them itself.

The formulas are those of ``irene_runtime.law``, in the same order; what a node above the leaves has is summed level by
level. Numbers of a device are initializers, what a run is under comes in as the input ``conditions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irene_build.export.builder import Builder
from irene_runtime.law import CACHE_COST, CACHE_SPEED, ENERGY, MEGA, MIB, TILE, TIME

_NEEDED = ("matmul_flops", "elementwise_flops", "read_bytes", "write_bytes", "weight_bytes", "kernels", "gemm_batch",
           "gemm_m", "gemm_n", "gemm_k", "attended")  # fmt: skip


def evaluates_law(estimator: Mapping[str, Any]) -> bool:
    """Whether the graph says itself what the law says: that of an estimator whose columns ask for it."""
    listed = {"Attention", "Host"} <= set(estimator["primitives"])
    return bool(estimator.get("law")) and listed and bool({TIME, ENERGY} & set(estimator["features"]))


def graph_features(estimator: Mapping[str, Any]) -> list[str]:
    """The columns of the graph's ``features``: the estimator's, and what the law needs beside them."""
    names = list(estimator["features"])
    return [*names, *(n for n in _NEEDED if n not in names)] if evaluates_law(estimator) else names


def dtypes_of(estimator: Mapping[str, Any]) -> list[str]:
    """Dtypes by their number in ``conditions``: those that the law tells apart, and all others."""
    return [*sorted({"float32", "float64", *estimator["law"]["device"]["peak_flops_per_s"]}), "other"]


def dtype_number(estimator: Mapping[str, Any], dtype: str) -> int:
    """The number of a dtype in ``conditions``."""
    known = dtypes_of(estimator)
    return known.index(dtype if dtype in known else "other")


def default_conditions(estimator: Mapping[str, Any]) -> np.ndarray:
    """float64 [1, 3]: the dtype of the calibration, its clock and its power limit (NaN: those of the law)."""
    dtypes = (estimator.get("trained_on") or {}).get("dtypes") or ["float32"]
    return np.array([[float(dtype_number(estimator, dtypes[0])), np.nan, np.nan]])


class _Value:
    """A value of the graph that adds and multiplies like a number: formulas read as they are written."""

    def __init__(self, build: Builder, name: str) -> None:
        self.build, self.name = build, name

    def _of(self, other: _Value | float) -> str:
        if isinstance(other, _Value):
            return other.name
        return self.build.table("law.number", np.array(float(other)))

    def op(self, kind: str, *others: _Value | float) -> _Value:
        names = [self.name, *map(self._of, others)]
        return _Value(self.build, self.build.op(kind, names, f"law.{kind.lower()}"))

    def __add__(self, other: _Value | float) -> _Value:
        return self.op("Add", other)

    def __sub__(self, other: _Value | float) -> _Value:
        return self.op("Sub", other)

    def __mul__(self, other: _Value | float) -> _Value:
        return self.op("Mul", other)

    def __truediv__(self, other: _Value | float) -> _Value:
        return self.op("Div", other)

    def __pow__(self, other: float) -> _Value:
        return self.op("Pow", other)

    def __gt__(self, other: _Value | float) -> _Value:
        return self.op("Greater", other)

    def __and__(self, other: _Value) -> _Value:
        return self.op("And", other)

    def chosen(self, yes: _Value | float, no: _Value | float) -> _Value:
        """``yes`` where this is true, else ``no``."""
        return self.op("Where", yes, no)


class LawWriter:
    """Writes the law of an estimator. ``x``: known model features by columns, in the order of ``names``."""

    def __init__(
        self,
        build: Builder,
        estimator: Mapping[str, Any],
        x: str,
        names: list[str],
        shared: Mapping[str, str],
    ) -> None:
        self.build, self.shared, self.x, self.names = build, shared, x, names
        self.device, self.dtypes = estimator["law"]["device"], dtypes_of(estimator)
        self.n = {name: float(entry["value"]) for name, entry in estimator["law"]["numbers"].items()}
        self.clock_hz = float(estimator["law"].get("clock_hz") or self.device["max_clock_hz"])
        self.primitives = list(estimator["primitives"])
        self.axis = build.table("law.axis", np.array([1]))

    def filled(self, features: str) -> str:
        """``x`` with the law's columns where ``features``, the graph's input, say none."""
        build, time, energy = self.build, *self._spent()
        found = self.x
        for name, value in ((TIME, time), (ENERGY, energy)):
            if name not in self.names:
                continue
            column = build.op("Unsqueeze", [value.name, self.axis], f"law.{name}")
            here = build.table(f"law.is_{name}", np.array([[other == name for other in self.names]]))
            asked = build.op("And", [build.op("IsNaN", [features], "law.unsaid"), here], "law.asked")
            found = build.op("Where", [asked, column, found], "law.filled")
        return found

    def _column(self, name: str) -> _Value:
        build = self.build
        at = build.table("law.at", np.array(self.names.index(name)))
        return _Value(build, build.op("Gather", [self.x, at], f"law.{name}", axis=1))

    def _condition(self, number: int) -> _Value:
        build = self.build
        at = build.table("law.at", np.array(number))
        return _Value(build, build.op("Gather", ["conditions", at], "law.condition", axis=1))

    def _is(self, primitive: str) -> _Value:
        build = self.build
        number = build.table("law.primitive", np.array(self.primitives.index(primitive)))
        same = _Value(build, build.op("Equal", ["primitive", number], "law.is"))
        return same & self._is_ml()

    def _is_ml(self) -> _Value:
        build = self.build
        return _Value(build, build.op("Equal", ["level", build.table("law.ml", np.array(0))], "law.is_ml"))

    def _by_dtype(self, values: list[float]) -> _Value:
        build, number = self.build, self._condition(0)
        rows = build.op("Cast", [number.name], "law.dtype", to=7)
        table = build.table("law.by_dtype", np.array(values))
        return _Value(build, build.op("Gather", [table, rows], "law.of_dtype"))

    def _static(self) -> tuple[_Value, _Value, _Value]:
        """Clock as a share of the highest, what the voltage makes of joules, and static watts."""
        n, clock = self.n, self._condition(1)
        hz = clock.op("IsNaN").chosen(self.clock_hz, clock * 1e6)
        share = hz / float(self.device["max_clock_hz"])
        voltage = share.op("Max", n["voltage_floor"]) ** n["voltage_power"]
        return share, voltage, share * n["clock_w"] * voltage + n["static_w"]

    def _spent(self) -> tuple[_Value, _Value]:
        """Seconds and joules of every row: leaves by the law, Host by the whole pass, the others as sums."""
        host, zero = self._is("Host"), self._column("kernels") * 0.0
        counts = self._is_ml() & host.op("Not")
        leaf_time, leaf_energy = self._leaf()
        time = counts.chosen(leaf_time, zero)
        launches = counts.chosen(self._column("kernels") + 1.0, zero)
        busy, launched = (self._of_parent(self._sums(value)) for value in (time, launches))
        launching = launched * self.n["host_s"] + self.n["pass_s"]
        whole = (busy**4.0 + launching**4.0) ** 0.25
        gap = launching**4.0 / ((whole + busy) * (whole * whole + busy * busy))
        gap = (launching > 0.0).chosen((launched > 0.0).chosen(gap, zero), zero)
        _, _, static = self._static()
        time = host.chosen(gap, time)
        energy = host.chosen(gap * static * min(1.0, self.n["gap"]), counts.chosen(leaf_energy, zero))
        return self._sums(time), self._sums(energy)

    def _sums(self, own: _Value) -> _Value:
        """A node's own, and that of everything below it."""
        links = [self.shared[name] for name in ("up", "below", "step")]
        one = self.build.op("Expand", [self.build.table("law.one", np.array(1.0)), self._size()], "law.ones")
        total, _ = self.build.call("Aggregate", [own.name, one, *links], "law.sums", "law.root")
        return _Value(self.build, total)

    def _size(self) -> str:
        return self.build.op("Shape", ["parent"], "law.size")

    def _of_parent(self, value: _Value) -> _Value:
        return _Value(self.build, self.build.op("Gather", [value.name, self.shared["up"]], "law.above"))

    def _leaf(self) -> tuple[_Value, _Value]:
        n, device, get = self.n, self.device, self._column
        peaks = {name: float(value) for name, value in device["peak_flops_per_s"].items()}
        single, half = peaks["float32"], peaks.get("float16") or peaks["float32"]
        wide = [dtype in ("float32", "float64") for dtype in self.dtypes]
        each = [
            (peaks.get(dtype) or single, is_wide) for dtype, is_wide in zip(self.dtypes, wide, strict=True)
        ]
        peak = self._by_dtype([value for value, _ in each])
        share = self._by_dtype([value / half if is_wide else 1.0 for value, is_wide in each])
        efficiency = self._by_dtype([n["efficiency_float32"] if w else n["efficiency_16"] for w in wide])
        clock, voltage, static = self._static()
        fused, products, kernels = self._is("Attention"), get("gemm_batch"), get("kernels")
        one = kernels * 0.0 + 1.0
        batched = (products > 1.0).chosen(one * n["efficiency_batched"], one)
        efficiency = efficiency * fused.chosen(one * n["efficiency_attention"], batched)
        matmul, vector = get("matmul_flops") * MEGA, get("elementwise_flops") * MEGA
        rows, columns, inner = get("gemm_m"), get("gemm_n"), get("gemm_k")
        scores = get("attended")
        masked = fused & (scores > 0.0)
        matmul = masked.chosen(matmul.op("Min", scores * 4.0 * inner), matmul)
        vector = masked.chosen(vector.op("Min", scores * 5.0), vector)
        padded = (inner + share * n["fill"]) * (rows + n["tile"]) * (columns + n["tile"])
        extra = products * 2.0 * (padded - inner * rows * columns)
        tail = (share * 4.0).op("Min", 1.0) * n["tail"] * float(device["sms"]) * TILE
        height = (rows + n["tile"]) / (rows + n["tile"] + 128.0)
        extra = extra + inner * 2.0 * tail * height
        pads = (products > 0.0) & fused.op("Not")
        work = matmul + pads.chosen(extra, one * 0.0)
        flop_s = work / (peak * efficiency * clock) + vector / (clock * single * n["efficiency_vector"])
        passing = (get("read_bytes") + get("write_bytes")) * MIB
        cache = kernels * n["cache"] * float(device["l2_bytes"])
        reached = (passing > 0.0).chosen(passing * passing / (passing + cache), one * 0.0)
        stayed = passing - reached
        reached = reached + get("weight_bytes") * MIB
        slow = clock.op("Reciprocal") * n["clock_of_memory"] + (1.0 - n["clock_of_memory"])
        bandwidth = float(device["bandwidth_bytes_per_s"])
        byte_s = reached / (bandwidth * n["bandwidth"]) * slow + stayed / (clock * CACHE_SPEED * bandwidth)
        time = (flop_s**3.0 + byte_s**3.0) ** (1.0 / 3.0) + kernels * n["launch_s"]
        per_flop = self._by_dtype([
            n["flop_float32_j"] if is_wide else n["flop_16_j"] * half / value for value, is_wide in each
        ])  # fmt: skip
        per_flop = per_flop * fused.chosen(one * n["flop_attention"], one)
        joules = (matmul * per_flop + vector * n["flop_float32_j"]) * voltage
        joules = joules + (reached + stayed * CACHE_COST) * n["byte_j"]
        limit = self._condition(2)
        limit = limit.op("IsNaN").chosen(float(device["power_limit_w"]), limit)
        room = (limit * n["limit"] - static).op("Max", limit * 0.1)
        power = n["voltage_power"]
        capped = joules > room * time
        stretched = time ** (power / (1.0 + power)) * (joules / room) ** (1.0 / (1.0 + power))
        time = capped.chosen(stretched, time)
        joules = capped.chosen(room * time, joules)
        return time, joules + static * time
