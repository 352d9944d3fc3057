"""One tier of an estimator as a branch of the graph: equations 1 and 3 in the order in which they are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from irene_build.export.builder import OUTPUTS, Builder, Tables, graph_of
from irene_build.export.tables import (
    Columns,
    KernelTable,
    LinearTable,
    kernel_tables,
    kinds,
    linear_table,
    polynomial,
    resolved,
)
from irene_runtime.tree import LEVELS

_MAP_FUNCTIONS = {"log": "Log", "log1p": "Log1p", "inverse": "Inverse"}


class _Direct(NamedTuple):
    """DIRECT as values of the graph: D(n), whether the node has it, its weight, whether it lacks what its level has."""

    reading: str
    reads: str
    omega: str
    missing: str


class Branch:
    """One tier: its nodes in ``build``, written in the order of the computation."""

    def __init__(
        self, estimator: Mapping[str, Any], name: str, shared: Mapping[str, str], tables: Tables
    ) -> None:
        self.estimator, self.name, self.shared = estimator, name, shared
        self.tier = resolved(estimator, name)
        self.build = Builder(f"{name}.", tables)
        self.columns_plan = Columns(self.tier["columns"], estimator["features"])
        self.kinds = kinds(estimator, self.tier)
        self._write()

    def graph(self) -> Any:
        return graph_of(self.build, self.name, OUTPUTS)

    def _write(self) -> None:
        build, shared = self.build, self.shared
        nan = build.table("nan", np.array(np.nan))
        zero = build.table("zero", np.array(0.0))
        shape = build.op("Shape", ["parent"], "shape")
        columns = self._columns(self.columns_plan)
        nothing = build.op("Expand", [nan, shape], "nothing")
        leaf_joules = self._leaves(columns)
        leaf_all = build.op(
            "ScatterElements", [nothing, shared["leaves"], leaf_joules], "leaf_energy", axis=0
        )
        own = build.op("Where", [shared["leaf"], leaf_all, zero], "own")
        own = build.op("Where", [shared["sound"], own, nan], "own_sound")
        alpha = self._alpha(columns, shape)
        factor = self._level_corrections(columns, shape)
        direct = self._reading(columns) if self.tier.get("direct") else None
        if direct and set(self.tier["direct"]) - {"model"}:
            factor = factor or self._ones(shape, "no_correction")
            inputs = [
                own,
                alpha,
                factor,
                shared["depth"],
                shared["up"],
                direct.reading,
                direct.reads,
                direct.omega,
            ]
            sums = build.call("AggregatePooled", inputs, "sums")[0]
        else:
            weight = build.op("Mul", [alpha, factor], "weight") if factor else alpha
            sums = build.call("Aggregate", [own, weight, shared["depth"], shared["up"]], "sums")[0]
        total = build.op("Mul", [sums, factor], "total") if factor else sums
        energy = total
        if direct:
            energy = build.call("Pool", [total, direct.reading, direct.reads, direct.omega], "pooled")[0]
        given = (alpha, energy)
        if direct and self.tier.get("rescale"):
            gammas = [self.tier["rescale"].get(level) for level in LEVELS]
            energy = build.call(
                "Rescale",
                [energy, total, direct.reads, shared["root"], "parent", "level",
                 build.table("rescale.gamma", np.array([g or 0.0 for g in gammas]), "per level"),
                 build.table("rescale.named", np.array([g is not None for g in gammas]), "per level")],
                "rescaled",
            )[0]  # fmt: skip
        missing = direct.missing if direct else None
        away = self._interval(energy, missing, columns, given)
        self._flags(away, missing)
        build.op("Identity", [energy], "energy")

    def _ones(self, shape: str, stem: str) -> str:
        return self.build.op("Expand", [self.build.table("one", np.array(1.0)), shape], stem)

    def _columns(self, plan: Columns) -> str:
        """float64 [N, C]: raw features, ones, then every mapped column and product of columns."""
        build = self.build
        columns = self.shared["known"]
        for number, group in enumerate(plan.groups):
            stem = f"columns.{number}.{group.kind}"
            values = [
                build.op("Gather", [columns, build.table(f"{stem}.source", factor)], f"{stem}.x", axis=1)
                for factor in group.factors
            ]
            x = values[0]
            for other in values[1:]:
                x = build.op("Mul", [x, other], f"{stem}.product")
            if group.kind in _MAP_FUNCTIONS:
                x = build.call(_MAP_FUNCTIONS[group.kind], [x], stem)[0]
            elif group.kind == "ceil_div":
                x = build.call("CeilDiv", [x, build.table(f"{stem}.by", group.by)], stem)[0]
            columns = build.op("Concat", [columns, x], "columns", axis=1)
        return columns

    def _pick(self, stem: str, columns: str, positions: np.ndarray) -> str:
        """Columns that are the same in every row; a slice where they stand side by side."""
        build = self.build
        first, count = int(positions[0]), len(positions)
        if np.array_equal(positions, np.arange(first, first + count)):
            ends = [
                build.table(f"{stem}.{k}", np.array([v]))
                for k, v in (("from", first), ("to", first + count), ("axis", 1))
            ]
            return build.op("Slice", [columns, *ends], f"{stem}.x")
        return build.op("Gather", [columns, build.table(f"{stem}.columns", positions)], f"{stem}.x", axis=1)

    def _factors(self, stem: str, columns: str, rows: str, factors: Sequence[np.ndarray]) -> str:
        """The product of the columns that every table names for a row's kind."""
        build = self.build
        values = []
        for table in factors:
            if (table == table[0]).all():
                values.append(self._pick(stem, columns, table[0]))
            else:
                picks = build.table(f"{stem}.factor", table, "columns, a row per kind")
                values.append(build.call("Factor", [columns, rows, picks], f"{stem}.x")[0])
        product = values[0]
        for other in values[1:]:
            product = build.op("Mul", [product, other], f"{stem}.product")
        return product

    def _linear(self, stem: str, columns: str, rows: str, table: LinearTable, doc: str) -> str:
        """Equation 1; steps that would change nothing (mean 0 and scale 1, no floor) are left out."""
        build = self.build
        z = self._factors(stem, columns, rows, table.factors)
        if table.mean.any() or (table.scale != 1.0).any():
            mean, scale = build.table(f"{stem}.mean", table.mean), build.table(f"{stem}.scale", table.scale)
            z = build.call("Standardise", [z, rows, mean, scale], f"{stem}.z")[0]
        weight = build.table(f"{stem}.weight", table.weight, "joules per term, a row per kind")
        joules = build.call("Weigh", [z, rows, weight], f"{stem}.linear", doc=doc)[0]
        if np.isfinite(table.floor).any():
            joules = build.call(
                "AtLeast", [joules, rows, build.table(f"{stem}.floor", table.floor)], f"{stem}.raised"
            )[0]
        return joules

    def _leaves(self, columns: str) -> str:
        """Equation 1 for the leaves alone: float64 [leaves], joules."""
        build, shared = self.build, self.shared
        forms, form_of = self.kinds.forms()
        at = build.op("Gather", [columns, shared["leaves"]], "leaf.columns", axis=0)
        rows = self._rows("leaf", form_of, shared["leaf_kind"])
        joules = self._linear(
            "leaf", at, rows, linear_table(forms, self.columns_plan), "equation 1, one row a leaf"
        )
        tables = kernel_tables([form.get("correction") for form in forms], self.columns_plan)
        return self._corrected("leaf", at, rows, joules, tables)

    def _rows(self, stem: str, form_of: np.ndarray, kind: str) -> str:
        """Kinds that share a form share its row in the tables."""
        table = self.build.table(f"{stem}.form", form_of, "row of the tables below, per kind of node")
        return self.build.op("Gather", [table, kind], f"{stem}.rows", axis=0)

    def _corrected(
        self, stem: str, columns: str, rows: str, joules: str, tables: Sequence[KernelTable]
    ) -> str:
        """joules * exp(limit tanh(correction / limit)) in the rows that have a correction."""
        build = self.build
        for table in tables:
            part = f"{stem}.{table.kernel}"
            if table.rows.all():
                joules = self._correct(part, columns, rows, joules, table)
                continue
            has = build.op("Gather", [build.table(f"{part}.has", table.rows), rows], f"{part}.mask", axis=0)
            axis = build.table(f"{part}.axis", np.array([0]))
            chosen = build.op(
                "Squeeze", [build.op("NonZero", [has], f"{part}.found"), axis], f"{part}.chosen"
            )
            inner = self._correct(
                part,
                build.op("Gather", [columns, chosen], f"{part}.columns", axis=0),
                build.op("Gather", [rows, chosen], f"{part}.rows", axis=0),
                build.op("Gather", [joules, chosen], f"{part}.before", axis=0),
                table,
            )
            joules = build.op("ScatterElements", [joules, chosen, inner], f"{part}.after", axis=0)
        return joules

    def _correct(self, stem: str, columns: str, rows: str, joules: str, table: KernelTable) -> str:
        build = self.build
        x = self._factors(f"{stem}.z", columns, rows, [table.picks])
        mean, scale = build.table(f"{stem}.mean", table.mean), build.table(f"{stem}.scale", table.scale)
        z = build.call("Standardise", [x, rows, mean, scale], f"{stem}.z")[0]
        if table.kernel == "poly":
            pads = build.table(f"{stem}.right", np.array([0, 0, 0, 1]))
            z = build.op("Pad", [z, pads, build.table(f"{stem}.one", np.array(1.0))], f"{stem}.z_one")
            values = self._factors(f"{stem}.monomial", z, rows, table.factors)
        else:
            length = build.op(
                "Gather", [build.table(f"{stem}.length", table.length), rows], f"{stem}.l", axis=0
            )
            z = build.op("Div", [z, length], f"{stem}.z_scaled")
            square = build.table(f"{stem}.square_0", np.zeros((1, 1)))
            for d, centres in enumerate(table.centres):
                square = build.call(
                    "SquareDistance",
                    [square, z, rows, build.table(f"{stem}.coordinate", np.array([d])),
                     build.table(f"{stem}.centres.{d}", centres, "centre over length, a row per primitive")],
                    f"{stem}.square",
                )[0]  # fmt: skip
            values = build.call(
                "Matern32" if table.kernel == "matern32" else "Gaussian", [square], f"{stem}.k"
            )[0]
        weight, bias = build.table(f"{stem}.weight", table.weight), build.table(f"{stem}.bias", table.bias)
        total = build.call("Weigh", [values, rows, weight], f"{stem}.weighted")[0]
        base = build.op("Gather", [bias, rows], f"{stem}.base", axis=0)
        total = build.op("Add", [total, base], f"{stem}.correction")
        limit = build.table(f"{stem}.limit", table.limit)
        return build.call("Correct", [joules, rows, total, limit], f"{stem}.corrected")[0]

    def _level_corrections(self, columns: str, shape: str) -> str | None:
        """The factor of every inner node; None where no level has a correction."""
        corrections = self.tier.get("correction") or {}
        if not corrections:
            return None
        inner = len(self.kinds.leaves) - 4
        present = [level for level in ("module", "model") if level in corrections]
        form_of = np.zeros(len(self.kinds.leaves), dtype=np.int64)
        for row, level in enumerate(present, start=1):
            form_of[inner - 1 + LEVELS.index(level)] = row
        tables = kernel_tables([None, *(corrections[level] for level in present)], self.columns_plan)
        ones = self._ones(shape, "level.ones")
        rows = self._rows("level", form_of, self.shared["kind"])
        return self._corrected("level", columns, rows, ones, tables)

    def _alpha(self, columns: str, shape: str) -> str:
        build, data = self.build, self.tier.get("aggregation")
        if data is None:
            return self._ones(shape, "alpha")
        plan = self.columns_plan
        picks = np.array([*plan.picks(data["columns"]), plan.ones], dtype=np.int64)
        x = self._pick("alpha", columns, picks)
        mean, scale = np.array([*data["mean"], 0.0]), np.array([*data["scale"], 1.0])
        centred = build.op("Sub", [x, build.table("alpha.mean", mean)], "alpha.centred")
        rows = build.op("Div", [centred, build.table("alpha.scale", scale)], "alpha.standardised")
        z = build.op("Transpose", [rows], "alpha.z", perm=[1, 0])
        form = polynomial(data["weights"], float(data["bias"]), len(picks) - 1, int(data["degree"]))
        weight = build.table("alpha.weight", form.weight, "of the last factor and the monomial of the others")
        if int(data["degree"]) == 1:
            parts = build.op("Mul", [weight, z], "alpha.parts")
            first = build.table("alpha.axis", np.array([0]))
            value = build.op("ReduceSum", [parts, first], "alpha.polynomial", keepdims=0)
        else:
            monomials = z
            for left, right in form.steps:
                sides = [build.table("alpha.left", left), build.table("alpha.right", right)]
                monomials = build.call("Products", [monomials, z, *sides], "alpha.monomials")[0]
            value = build.call("Form", [z, monomials, weight], "alpha.polynomial")[0]
        tau = build.table("alpha.tau", np.array(float(data["tau"])))
        return build.call("Alpha", [value, tau, "parent"], "alpha")[0]

    def _reading(self, columns: str) -> _Direct:
        build, direct = self.build, self.tier["direct"]
        rows = [direct.get(level) for level in LEVELS]
        held = build.op(
            "Clip",
            ["level", build.table("direct.low", np.array(0)), build.table("direct.high", np.array(2))],
            "direct.level",
        )
        reading = self._linear(
            "direct",
            columns,
            held,
            linear_table(rows, self.columns_plan),
            "a node's own reading, from its resource features",
        )
        has = build.op(
            "Gather",
            [build.table("direct.has", np.array([r is not None for r in rows])), held],
            "direct.wanted",
            axis=0,
        )
        pool = np.array([0.0 if r is None else float(r["pool"]) for r in rows])
        omega = build.op("Gather", [build.table("direct.pool", pool), held], "direct.omega", axis=0)
        unknown = build.op("IsNaN", [reading], "direct.unknown")
        missing = build.op("And", [has, unknown], "direct.missing")
        reads = build.op("And", [has, build.op("Not", [unknown], "direct.known")], "direct.reads")
        return _Direct(reading, reads, omega, missing)

    def _interval(self, energy: str, missing: str | None, columns: str, given: tuple[str, str]) -> str:
        """Writes low and high; gives how far every node is outside the ranges.

        ``given``: alpha, and the energy before RESCALE; a root counts as far by what its children give it.
        """
        build, kind = self.build, self.shared["kind"]
        own = self.kinds
        if len(own.features):
            x = self._pick("ranges", self.shared["known"], own.features)
            ends = [
                build.table("ranges.low", own.low, "a row per kind"),
                build.table("ranges.high", own.high),
            ]
            away = build.call("Away", [x, kind, *ends], "away")[0]
        else:
            size = build.op("Shape", ["parent"], "size")
            away = build.op("Expand", [build.table("nowhere", np.array(0.0)), size], "away")
        half = self._half(self.tier, away, "interval", self.columns_plan, columns, given)
        if missing is not None and self.name != "static" and "static" in self.estimator["tiers"]:
            static = resolved(self.estimator, "static")
            plan, at = self.columns_plan, columns
            if static["columns"] != self.tier["columns"] and static["interval"].get("kinds"):
                plan = Columns(static["columns"], self.estimator["features"])
                at = self._columns(plan)
            unread = self._half(static, away, "interval.static", plan, at, given)
            half = build.op("Where", [missing, unread, half], "interval.chosen")
        build.call("Ends", [energy, half], "low", "high")
        return away

    def _half(
        self,
        tier: Mapping[str, Any],
        away: str,
        stem: str,
        plan: Columns,
        columns: str,
        given: tuple[str, str],
    ) -> str:
        """Half the interval of every node by the widths of ``tier``, which has the columns ``plan``."""
        build, kind = self.build, self.shared["kind"]
        q, far_q, slope = self.kinds.widths(tier["interval"])
        narrow = build.op("Gather", [build.table(f"{stem}.q", q, "a row per kind"), kind], f"{stem}.near")
        known = tier["interval"].get("kinds")
        if known:
            points = np.array(known["points"], dtype=np.float64)
            furthest = build.table(f"{stem}.nowhere", np.zeros((1, 1)))
            for index, position in enumerate(plan.picks(known["columns"])):
                x = self._pick(f"{stem}.kinds", columns, np.array([position]))
                at = build.table(f"{stem}.points.{index}", points[None, :, index], "known kinds of modules")
                furthest = build.call("Further", [furthest, x, at], f"{stem}.furthest")[0]
            reach = build.table(f"{stem}.reach", np.array(float(known["reach"])))
            inputs = [furthest, reach, "level", "parent", self.shared["up"], *given]
            far = build.call("Far", inputs, f"{stem}.is_far")[0]
            wide = build.op(
                "Gather", [build.table(f"{stem}.far", far_q, "a row per kind"), kind], f"{stem}.wide"
            )
            narrow = build.op("Where", [far, wide, narrow], f"{stem}.width")
        return build.call(
            "HalfWidth", [away, kind, narrow, build.table(f"{stem}.slope", slope)], f"{stem}.half"
        )[0]

    def _flags(self, away: str, missing: str | None) -> None:
        build = self.build
        simulated = 8 if self.estimator["provenance"] == "simulated" else 0
        marks = build.table(
            "flag.kind", self.kinds.flag + simulated, "2 never calibrated, 8 simulated; a row per kind"
        )
        flags = build.op("Gather", [marks, self.shared["kind"]], "flag.base", axis=0)
        if missing is not None:
            silent = build.op("Cast", [missing], "flag.silent", to=7)
            four = build.op("Mul", [silent, build.table("flag.4", np.array(4))], "flag.fell_back")
            flags = build.op("Add", [flags, four], "flag.with_4")
        outside = build.op("Greater", [away, build.table("flag.inside", np.array(0.0))], "flag.outside")
        build.op("Add", [flags, build.op("Cast", [outside], "flag.1", to=7)], "flags")
