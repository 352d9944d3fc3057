"""What a node is worth by itself, whatever tree it stands in: equation 1, corrections, alpha, distance from the ranges.

It is computed once for every distinct row of features and then handed to all nodes that have that row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from irene_build.export.builder import Builder
from irene_build.export.tables import (
    Columns,
    KernelTable,
    LinearTable,
    centre_lines,
    features_of,
    kernel_tables,
    kinds,
    linear_table,
    polynomial,
)
from irene_runtime.features import MODEL_FEATURES

_MAP_FUNCTIONS = {"log": "Log", "log1p": "Log1p", "inverse": "Inverse"}
_LEVELS = ("module", "model")
#: Distances are computed by lines where centres have this many times more coordinates than there are lines.
_FEW = 4
#: What a tier must share with another for both to have one core.
KEYS = ("columns", "leaf", "fallback", "aggregation", "correction", "stand_in", "ranges")


def model_features(features: Sequence[str]) -> list[str]:
    """Those that are never unknown: only they can say that two rows are the same."""
    return [name for name in features if name in MODEL_FEATURES]


class Writer:
    """Writes columns, linear forms and corrections into a graph. ``x``: raw ``features`` of some rows, by columns."""

    def __init__(self, build: Builder) -> None:
        self.build = build

    def raw(
        self, stem: str, shared: Mapping[str, str], features: Sequence[str], wanted: Iterable[str]
    ) -> tuple[str, list[str]]:
        """float64 [N, F]: the wanted features, absent model features 0; and their order: resource features last."""
        everything, known = list(features), model_features(features)
        chosen = set(wanted) or set(everything[:1])
        first = [name for name in known if name in chosen]
        last = [name for name in everything if name in chosen - set(first)]
        parts = [shared["model"]] if first and first == known else []
        if first and first != known:
            positions = np.array([known.index(name) for name in first])
            parts.append(self.pick(f"{stem}.model", shared["model"], positions))
        if last:
            positions = np.array([everything.index(name) for name in last])
            parts.append(self.pick(f"{stem}.resource", "features", positions))
        x = self.build.op("Concat", parts, stem, axis=1) if len(parts) > 1 else parts[0]
        return x, [*first, *last]

    def columns(
        self, stem: str, x: str, features: Sequence[str], columns: Sequence[Mapping[str, Any]], used: set[int]
    ) -> tuple[str, Columns]:
        """float64 [rows, C]: raw features, ones, then every mapped column and product of columns that is used."""
        build = self.build
        plan = Columns(columns, features, used)
        found = build.call("WithOnes", [x], f"{stem}.raw")[0]
        waves = sorted({group.wave for group in plan.groups})
        for wave in waves:
            parts = [
                self._group(f"{stem}.{wave}.{group.kind}", found, group)
                for group in plan.groups
                if group.wave == wave
            ]
            found = build.op("Concat", [found, *parts], stem, axis=1)
        return found, plan

    def _group(self, stem: str, columns: str, group: Any) -> str:
        build = self.build
        x = self.pick(f"{stem}.x", columns, group.factors[0])
        for factor in group.factors[1:]:
            x = build.op("Mul", [x, self.pick(f"{stem}.x", columns, factor)], f"{stem}.product")
        if group.kind in _MAP_FUNCTIONS:
            return build.call(_MAP_FUNCTIONS[group.kind], [x], stem)[0]
        if group.kind == "ceil_div":
            return build.call("CeilDiv", [x, build.table(f"{stem}.by", group.by)], stem)[0]
        return x

    def pick(self, stem: str, columns: str, positions: np.ndarray) -> str:
        """Columns that are the same in every row; a slice where they stand side by side."""
        build = self.build
        first, count = int(positions[0]), len(positions)
        if np.array_equal(positions, np.arange(first, first + count)):
            ends = [
                build.table(f"{stem}.{k}", np.array([v]))
                for k, v in (("from", first), ("to", first + count), ("axis", 1))
            ]
            return build.op("Slice", [columns, *ends], stem)
        return build.op("Gather", [columns, build.table(f"{stem}.columns", positions)], stem, axis=1)

    def of_row(self, stem: str, table: np.ndarray, rows: str, doc: str = "a row per kind") -> str:
        """Row by row what a table says; where it says the same for all, that alone."""
        build = self.build
        if (table == table[:1]).all():
            return build.table(stem, table[:1], doc)
        return self.look_up(build.table(stem, table, doc), rows, f"{stem}.here", table.ndim)

    def look_up(self, values: str, rows: str, stem: str, rank: int = 1) -> str:
        """values[rows]. For one number a row, GatherElements takes a quarter of Gather's time in onnxruntime."""
        return self.build.op("Gather" if rank > 1 else "GatherElements", [values, rows], stem, axis=0)

    def factors(self, stem: str, columns: str, rows: str, factors: Sequence[np.ndarray]) -> str:
        """The product of the columns that every table names for a row's kind."""
        build = self.build
        product = ""
        for table in factors:
            if (table == table[:1]).all():
                value = self.pick(stem, columns, table[0])
            else:
                picks = self.of_row(f"{stem}.factor", table, rows, "columns, a row per kind")
                value = build.op("GatherElements", [columns, picks], stem, axis=1)
            product = build.op("Mul", [product, value], f"{stem}.product") if product else value
        return product

    def linear(self, stem: str, columns: str, rows: str, table: LinearTable, doc: str) -> str:
        """Equation 1; steps that would change nothing (mean 0 and scale 1, no floor) are left out."""
        build = self.build
        z = self.factors(f"{stem}.x", columns, rows, table.factors)
        if table.mean.any() or (table.scale != 1.0).any():
            mean = self.of_row(f"{stem}.mean", table.mean, rows)
            scale = self.of_row(f"{stem}.scale", table.scale, rows)
            z = build.call("Standardise", [z, mean, scale], f"{stem}.z")[0]
        weight = self.of_row(f"{stem}.weight", table.weight, rows, "joules per term, a row per kind")
        joules = build.call("Weigh", [z, weight], f"{stem}.linear", doc=doc)[0]
        if np.isfinite(table.floor).any():
            floor = self.of_row(f"{stem}.floor", table.floor, rows)
            joules = build.call("AtLeast", [joules, floor], f"{stem}.raised")[0]
        return joules

    def _chosen(self, stem: str, rows: str, wanted: np.ndarray) -> str:
        """int64: the places of the rows whose kind is wanted."""
        build = self.build
        has = self.look_up(build.table(f"{stem}.has", wanted), rows, f"{stem}.mask")
        found = build.op("NonZero", [has], f"{stem}.found")
        return build.op("Squeeze", [found, build.table(f"{stem}.first", np.array([0]))], f"{stem}.chosen")

    def corrected(
        self, stem: str, columns: str, rows: str, values: str, tables: Sequence[KernelTable]
    ) -> str:
        """values * exp(limit tanh(correction / limit)) in the rows that have a correction."""
        build = self.build
        for table in tables:
            part = f"{stem}.{table.kernel}"
            if table.rows.all():
                factor = self._bend(part, columns, rows, table)
                values = build.op("Mul", [values, factor], f"{part}.corrected")
                continue
            chosen = self._chosen(part, rows, table.rows)
            here = build.op("Gather", [columns, chosen], f"{part}.columns", axis=0)
            count = int(table.rows.sum())
            forms = self.look_up(rows, chosen, f"{part}.forms") if count > 1 else rows
            if count > 1 and not table.rows[:count].all():
                place = np.cumsum(table.rows) - 1
                doc = "row of this correction's tables"
                forms = self.look_up(build.table(f"{part}.place", place, doc), forms, f"{part}.rows")
            factor = self._bend(part, here, forms, table)
            values = build.op(
                "ScatterElements", [values, chosen, factor], f"{part}.corrected", axis=0, reduction="mul"
            )
        return values

    def _bend(self, stem: str, columns: str, rows: str, table: KernelTable) -> str:
        build = self.build

        def own(name: str, values: np.ndarray, doc: str = "a row per kind") -> str:
            return self.of_row(f"{stem}.{name}", values[table.rows], rows, doc)

        x = self.factors(f"{stem}.x", columns, rows, [table.picks[table.rows]])
        inputs = [x, own("mean", table.mean), own("scale", table.scale)]
        z = build.call("Standardise", inputs, f"{stem}.z")[0]
        if table.centres is None:
            z = build.call("WithOnes", [z], f"{stem}.z_one")[0]
            values = self.factors(f"{stem}.monomial", z, rows, [f[table.rows] for f in table.factors])
        else:
            square = self._square(stem, z, rows, table.centres[table.rows])
            kernel = "Matern32" if table.kernel == "matern32" else "Gaussian"
            values = build.call(kernel, [square], f"{stem}.k")[0]
        weighted = build.call("Weigh", [values, own("weight", table.weight)], f"{stem}.weighted")[0]
        total = build.op("Add", [weighted, own("bias", table.bias)], f"{stem}.correction")
        return build.call("Bend", [total, own("limit", table.limit)], f"{stem}.factor")[0]

    def _square(self, stem: str, z: str, rows: str, centres: np.ndarray) -> str:
        """Squared distances from centres over length, float64[kinds, dims, centres]; by lines where they are few."""
        build = self.build
        if len(centres) == 1:
            lines, dim, at = centre_lines(centres[0])
            if _FEW * len(lines) <= centres.size:
                inputs = [
                    z,
                    *(
                        build.table(f"{stem}.{k}", v)
                        for k, v in zip(("lines", "dim", "at"), (lines, dim, at[:, None]), strict=True)
                    ),
                ]
                return build.call("GridDistance", inputs, f"{stem}.square")[0]
        doc = "centre over length: column, kind, centre"
        table = build.table(f"{stem}.centres", centres.transpose(1, 0, 2), doc)
        if len(centres) > 1:
            table = build.op("Gather", [table, rows], f"{stem}.centres.here", axis=1)
        return build.call("SquareDistance", [z, table], f"{stem}.square")[0]


class Core(Writer):
    """The part of a tier that looks at one row alone.

    Values of the graph: ``value`` (joules of a leaf, the factor of an inner node) and ``alpha`` (None: 1), one entry a
    distinct row, which ``spread`` hands to the nodes; ``away``, one entry a node.
    """

    def __init__(
        self, build: Builder, estimator: Mapping[str, Any], tier: Mapping[str, Any], shared: Mapping[str, str]
    ) -> None:
        super().__init__(build)
        self.estimator, self.tier = estimator, tier
        self.kinds = kinds(estimator, tier)
        self.used = used_columns(tier)
        self.of: str | None = None
        if "model" in shared and is_static(tier):
            self.features = model_features(estimator["features"])
            self.x, self.kind, self.of = self._distinct(shared)
        else:
            names = used_features(tier)
            self.x, self.features = self.raw("raw", shared, estimator["features"], names)
            self.kind = shared["kind"]
        self.table, self.plan = self.columns("columns", self.x, self.features, tier["columns"], self.used)
        self.corrects_levels = any((tier.get("correction") or {}).values())
        self.value = self._value()
        #: What the law (the fallback) says of every row's joules, where learned leaves are held near it.
        self.law = self._law() if tier.get("bend") else None
        self.alpha = self._alpha()
        self.away = self._away(shared)

    def _distinct(self, shared: Mapping[str, str]) -> tuple[str, str, str]:
        """The distinct rows of model features, their kinds, and which of them every node has."""
        build, width = self.build, len(self.features)
        # Any numbers without a common measure will do; roots are the same on every machine.
        mix = build.table("mix", np.sqrt(np.arange(2.0, width + 2.0))[:, None], "makes one number of a row")
        kind_mix = build.table("mix.kind", np.sqrt(np.array(width + 2.0)))
        inputs = [shared["model"], shared["kind"], shared["index"], mix, kind_mix]
        first, of = build.call("Distinct", inputs, "first", "of")
        x = build.op("Gather", [shared["model"], first], "x", axis=0)
        return x, self.look_up(shared["kind"], first, "kind"), of

    def spread(self, value: str, build: Builder) -> str:
        """One entry a node."""
        if self.of is None:
            return value
        name = value.split("each.", 1)[-1].removeprefix(build.prefix)
        return Writer(build).look_up(value, self.of, f"every.{name}")

    def _value(self) -> str:
        """Leaves by equation 1 with their correction; inner nodes 1 with theirs."""
        build, tier = self.build, self.tier
        forms, form_of = self.kinds.forms()
        leaves = len(forms)
        if self.corrects_levels:
            inner = len(self.kinds.leaves) - 4
            one = {"terms": [{"columns": [], "weight": 1.0}]}
            for place, level in enumerate(_LEVELS):
                form_of[inner + place] = len(forms)
                forms = [*forms, {**one, "correction": tier["correction"].get(level)}]
        form = build.table("form", form_of, "row of the tables below, per kind of node")
        rows = self.look_up(form, self.kind, "rows")
        doc = "equation 1, a leaf a row; 1 for the others"
        value = self.linear("leaf", self.table, rows, linear_table(forms, self.plan), doc)
        corrections = [form.get("correction") for form in forms]
        # A level is a table of its own: its rows, a quarter of all, have many centres in common.
        groups = {"leaf": range(leaves), **{_LEVELS[k - leaves]: [k] for k in range(leaves, len(forms))}}
        for stem, group in groups.items():
            own = [correction if k in group else None for k, correction in enumerate(corrections)]
            value = self.corrected(stem, self.table, rows, value, kernel_tables(own, self.plan))
        return value

    def _law(self) -> str:
        build = self.build
        rows = build.op("Sub", [self.kind, self.kind], "law.rows")
        table = linear_table([self.tier["fallback"]], self.plan)
        return self.linear("law", self.table, rows, table, "equation 1 of the fallback")

    def _alpha(self) -> str | None:
        build, data = self.build, self.tier.get("aggregation")
        if data is None:
            return None
        plan = self.plan
        picks = np.array([*plan.picks(data["columns"]), plan.ones], dtype=np.int64)
        x = self.pick("alpha.x", self.table, picks)
        mean, scale = np.array([*data["mean"], 0.0]), np.array([*data["scale"], 1.0])
        inputs = [x, build.table("alpha.mean", mean), build.table("alpha.scale", scale)]
        rows = build.call("Standardise", inputs, "alpha.standardised")[0]
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
        return build.call("Alpha", [value, build.table("alpha.tau", np.array(float(data["tau"])))], "alpha")[
            0
        ]

    def _away(self, shared: Mapping[str, str]) -> str | None:
        """How far every node lies outside the ranges; None where there are none."""
        own = self.kinds
        if not own.names:
            return None
        if self.of and set(own.names) <= set(self.features):
            x, kind, order = self.x, self.kind, self.features
            spread = True
        else:
            x, order = self.raw("ranges", shared, self.estimator["features"], own.names)
            kind, spread = shared["kind"], False
        positions = [order.index(name) for name in own.names]
        x = self.pick("ranges.x", x, np.array(positions)) if positions != list(range(len(order))) else x
        ends = [self.of_row("ranges.low", own.low, kind), self.of_row("ranges.high", own.high, kind)]
        away = self.build.call("Away", [x, *ends], "away")[0]
        return self.spread(away, self.build) if spread else away


def used_columns(tier: Mapping[str, Any]) -> set[int]:
    """The columns that the core of a (resolved) tier reads, and its known kinds of modules."""
    leaves = [*tier["leaf"].values(), tier["fallback"]]
    found = {i for leaf in leaves for term in leaf["terms"] for i in term["columns"]}
    for correction in [
        *(leaf.get("correction") for leaf in leaves),
        *(tier.get("correction") or {}).values(),
    ]:
        found |= set(correction["columns"] if correction else ())
    found |= set((tier.get("aggregation") or {}).get("columns", ()))
    return found | set((tier["interval"].get("kinds") or {}).get("columns", ()))


def used_features(tier: Mapping[str, Any]) -> set[str]:
    """The raw features that the core of a tier reads."""
    return features_of(tier["columns"], used_columns(tier))


def is_static(tier: Mapping[str, Any]) -> bool:
    """Whether the core of a tier reads model features only."""
    return used_features(tier) <= set(MODEL_FEATURES)
