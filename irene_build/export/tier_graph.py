"""One tier of an estimator as a branch of the graph: equation 3 over the trees, readings, intervals and flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from irene_build.export.builder import OUTPUTS, Builder, Tables, graph_of
from irene_build.export.functions import TINY
from irene_build.export.row_graph import Core, Writer
from irene_build.export.tables import features_of, linear_table, resolved
from irene_runtime.equations import NOTABLE, WIDEST
from irene_runtime.tree import LEVELS


class _Direct(NamedTuple):
    """DIRECT as values of the graph: D(n), whether the node has it, D^omega, 1 - omega, whether the node has a positive
    one, whether it lacks what its level has, and how far it lies outside of what was calibrated (None: nowhere)."""

    reading: str
    reads: str
    power: str
    rest: str
    usable: str
    missing: str
    beyond: str | None


class Branch:
    """One tier: its nodes in ``build``, written in the order of the computation.

    Without a ``core`` that it shares with other tiers, it makes its own."""

    def __init__(
        self,
        estimator: Mapping[str, Any],
        name: str,
        shared: Mapping[str, str],
        tables: Tables,
        core: Core | None,
    ) -> None:
        self.estimator, self.name, self.shared = estimator, name, shared
        self.tier = resolved(estimator, name)
        self.build = Builder(f"{name}.", tables)
        self.writer = Writer(self.build)
        self.core = core or Core(Builder(f"{name}.each.", tables), estimator, self.tier, shared)
        if core is None:
            self.build.nodes += self.core.build.nodes
            self.build.used |= self.core.build.used
        self.nan = self.build.table("nan", np.array(np.nan))
        self.zero = self.build.table("zero", np.array(0.0))
        self.one = self.build.table("one", np.array(1.0))
        self.size = self.build.op("Shape", ["parent"], "size")
        self._write()

    def graph(self) -> Any:
        return graph_of(self.build, self.name, OUTPUTS)

    def _write(self) -> None:
        build, shared, core = self.build, self.shared, self.core
        value = core.spread(core.value, build)
        if core.law is not None:
            value = self._bent(value)
        leaf_joules = build.op("Where", [shared["leaf"], value, self.nan], "leaf_energy")
        own = build.op("Where", [shared["leaf"], leaf_joules, self.zero], "own")
        own = build.op("Where", [shared["sound"], own, self.nan], "own_sound")
        if core.alpha is None:
            alpha = self._all(self.one, "alpha")
        else:
            inner = core.spread(core.alpha, build)
            alpha = build.op("Where", [shared["below"], inner, self.one], "alpha")
        factor = None
        if core.corrects_levels:
            factor = build.op("Where", [shared["inner"], value, self.one], "factor")
        direct = self._reading() if self.tier.get("direct") else None
        links = [shared["up"], shared["below"], shared["step"]]
        if direct and set(self.tier["direct"]) - {"model"}:
            inputs = [own, alpha, factor or self.one, *links, *direct[:-2]]
            sums, root = build.call("AggregatePooled", inputs, "sums", "root")
        else:
            weight = build.op("Mul", [alpha, factor], "weight") if factor else alpha
            sums, root = build.call("Aggregate", [own, weight, *links], "sums", "root")
        total = build.op("Mul", [sums, factor], "total") if factor else sums
        energy = total
        if direct:
            energy = build.call("Pool", [total, *direct[:-2]], "pooled")[0]
        given = (alpha, energy)
        doubted = (own, factor, alpha, sums) if not direct or set(self.tier["direct"]) == {"model"} else None
        if direct and self.tier.get("rescale"):
            gammas = [self.tier["rescale"].get(level) for level in LEVELS]
            energy = build.call(
                "Rescale",
                [energy, total, direct.reads, root, shared["below"], "level",
                 build.table("rescale.gamma", np.array([g or 0.0 for g in gammas]), "per level"),
                 build.table("rescale.named", np.array([g is not None for g in gammas]), "per level")],
                "rescaled",
            )[0]  # fmt: skip
        missing, beyond = (direct.missing, direct.beyond) if direct else (None, None)
        reads = direct.reads if direct else None
        unsure = self._interval(energy, missing, beyond, given, doubted, reads)
        self._flags(missing, beyond, unsure)
        build.op("Identity", [energy], "energy")

    def _all(self, value: str, stem: str) -> str:
        return self.build.op("Expand", [value, self.size], stem)

    def _reading(self) -> _Direct:
        """The columns of DIRECT are made for every node: no two have the same measured features."""
        build, direct = self.build, self.tier["direct"]
        rows = [direct.get(level) for level in LEVELS]
        columns = self.tier["columns"]
        used = {i for row in direct.values() for term in row["terms"] for i in term["columns"]}
        within = sorted({index for row in direct.values() for index, _, _ in row.get("within", ())})
        used |= set(within)
        features, wanted = self.estimator["features"], features_of(columns, used)
        x, names = self.writer.raw("direct.raw", self.shared, features, wanted)
        table, plan = self.writer.columns("direct.columns", x, names, columns, used)
        held = build.op(
            "Clip",
            ["level", build.table("direct.low", np.array(0)), build.table("direct.high", np.array(2))],
            "direct.level",
        )
        doc = "a node's own reading, from its resource features"
        reading = self.writer.linear("direct", table, held, linear_table(rows, plan), doc)
        wants = np.array([r is not None for r in rows])
        has = self.writer.look_up(build.table("direct.has", wants), held, "direct.wanted")
        pool = np.array([0.0 if r is None else float(r["pool"]) for r in rows])
        omega = self.writer.look_up(build.table("direct.pool", pool), held, "direct.omega")
        unknown = build.op("IsNaN", [reading], "direct.unknown")
        missing = build.op("And", [has, unknown], "direct.missing")
        reads = build.op("And", [has, build.op("Not", [unknown], "direct.known")], "direct.reads")
        stems = ("direct.power", "direct.rest", "direct.usable")
        power, rest, usable = build.call("Readings", [reading, reads, omega], *stems)
        beyond = self._beyond(table, plan.picks(within), within, held, reads) if within else None
        return _Direct(reading, reads, power, rest, usable, missing, beyond)

    def _beyond(self, table: str, picks: list[int], within: list[int], level: str, reads: str) -> str:
        """How far readings lie outside of where they were calibrated; a row per level in the tables of the ends."""
        build, rows = self.build, (len(LEVELS), len(within))
        low, high = np.zeros(rows), np.full(rows, np.inf)
        for name, data in self.tier["direct"].items():
            for index, bottom, top in data.get("within", ()):
                at = LEVELS.index(name), within.index(index)
                low[at], high[at] = max(bottom, TINY), max(top, TINY)
        x = self.writer.pick("direct.within", table, np.array(picks))
        ends = [
            self.writer.of_row(f"direct.{name}", v, level) for name, v in (("bottom", low), ("top", high))
        ]
        away = build.call("Away", [x, *ends], "direct.away")[0]
        return build.op("Where", [reads, away, self.zero], "direct.beyond")

    def _bent(self, value: str) -> str:
        """A leaf's joules, held near the law's."""
        build, core, data = self.build, self.core, self.tier["bend"]
        away = core.away or self._all(self.zero, "bend.away")
        limits = np.array([data.get("limits", {}).get(w, data["limit"]) for w in core.kinds.whose])
        limit = self.writer.of_row("bend.limit", limits, self.shared["kind"])
        reach = build.table("bend.reach", np.array(float(data["reach"])))
        inputs = [value, core.spread(str(core.law), build), away, limit, reach]
        bent = build.call("BendBack", inputs, "bend.leaf")[0]
        return build.op("Where", [self.shared["leaf"], bent, value], "bend.value")

    def _interval(
        self,
        energy: str,
        missing: str | None,
        beyond: str | None,
        given: tuple[str, str],
        doubted: tuple[str, str | None, str, str] | None,
        reads: str | None,
    ) -> str | None:
        """Writes low and high; which parents have notable doubts below them, None where none inherits any.

        ``given``: alpha, and the energy before RESCALE; a root counts as far by what its children give it.
        ``doubted``: leaves' joules, factors, alpha and the children's sums, where parents inherit doubt; not where
        a node ``reads``.
        """
        build, core = self.build, self.core
        away = core.away or self._all(self.zero, "away")
        half = plain = self._half(self.tier, away, "interval", given)
        if missing is not None and self.name != "static" and "static" in self.estimator["tiers"]:
            unread = self._half(resolved(self.estimator, "static"), away, "interval.static", given)
            half = build.op("Where", [missing, unread, half], "interval.chosen")
        if beyond is not None:
            wider = build.op("Add", [half, beyond], "interval.beyond")
            half = build.op(
                "Min", [wider, build.table("interval.widest", np.array(WIDEST))], "interval.capped"
            )
        unsure = None
        if doubted is not None and self.tier["interval"].get("inherits"):
            half, unsure = self._inherited(half, plain, doubted, reads)
        build.call("Ends", [energy, half], "low", "high")
        return unsure

    def _inherited(
        self, half: str, plain: str, doubted: tuple[str, str | None, str, str], reads: str | None
    ) -> tuple[str, str]:
        """Parents are as unsure as the leaves below them that nobody measured make them. ``plain``: leaves' half."""
        build, shared, (own, factor, alpha, sums) = self.build, self.shared, doubted
        q, _, _ = self.core.kinds.widths(self.tier["interval"])
        near = np.where(self.core.kinds.flag == 2, 0.0, q)
        inside = self.writer.of_row("interval.near", near, shared["kind"])
        doubt = build.call("Doubt", [own, plain, inside, shared["leaf"]], "interval.doubt")[0]
        weight = build.op("Mul", [alpha, factor], "interval.weight") if factor else alpha
        links = [shared["up"], shared["below"], shared["step"]]
        total, _ = build.call("Aggregate", [doubt, weight, *links], "interval.doubts", "interval.root")
        share, wider = build.call("Inherit", [half, total, sums], "interval.unsure", "interval.inherited")
        above = shared["inner"]
        if reads is not None:
            unread = build.op("Not", [reads], "interval.unread")
            above = build.op("And", [above, unread], "interval.above")
        most = build.table("interval.notable", np.array(NOTABLE))
        notable = build.op("Greater", [share, most], "interval.much")
        unsure = build.op("And", [above, notable], "interval.notably")
        return build.op("Where", [above, wider, half], "interval.final"), unsure

    def _half(self, tier: Mapping[str, Any], away: str, stem: str, given: tuple[str, str]) -> str:
        """Half the interval of every node by the widths of ``tier``."""
        build, kind, of_row = self.build, self.shared["kind"], self.writer.of_row
        q, far_q, slope = self.core.kinds.widths(tier["interval"])
        width = of_row(f"{stem}.q", q, kind)
        known = tier["interval"].get("kinds")
        if known:
            unlike = self.core.spread(self._unlike(tier, known, stem), build)
            inputs = [unlike, "level", self.shared["up"], self.shared["below"], *given]
            far = build.call("Far", inputs, f"{stem}.is_far")[0]
            wide = of_row(f"{stem}.far", far_q, kind)
            width = build.op("Where", [far, wide, width], f"{stem}.width")
        return build.call("HalfWidth", [away, width, of_row(f"{stem}.slope", slope, kind)], f"{stem}.half")[0]

    def _unlike(self, tier: Mapping[str, Any], known: Mapping[str, Any], stem: str) -> str:
        """Which rows lie on no known kind of module (of this tier, or of the one whose widths it takes)."""
        build, core = self.build, self.core
        table, plan = core.table, core.plan
        if tier["columns"] != self.tier["columns"] or not set(known["columns"]) <= core.used:
            used = set(known["columns"])
            x, names = core.x, core.features
            if core.of is None:
                wanted = features_of(tier["columns"], used)
                x, names = self.writer.raw(f"{stem}.raw", self.shared, self.estimator["features"], wanted)
            table, plan = self.writer.columns(f"{stem}.columns", x, names, tier["columns"], used)
        points = np.array(known["points"], dtype=np.float64)
        furthest = build.table(f"{stem}.nowhere", np.zeros((1, 1)))
        for index, position in enumerate(plan.picks(known["columns"])):
            x = self.writer.pick(f"{stem}.kinds.x", table, np.array([position]))
            at = build.table(f"{stem}.points.{index}", points[None, :, index], "known kinds of modules")
            furthest = build.call("Further", [furthest, x, at], f"{stem}.furthest")[0]
        reach = build.table(f"{stem}.reach", np.array(float(known["reach"])))
        return build.call("Unlike", [furthest, reach], f"{stem}.unlike")[0]

    def _flags(self, missing: str | None, beyond: str | None, unsure: str | None) -> None:
        build, core = self.build, self.core
        simulated = 8 if self.estimator["provenance"] == "simulated" else 0
        doc = "2 never calibrated, 8 simulated; a row per kind"
        marks = build.table("flag.kind", core.kinds.flag + simulated, doc)
        flags = self.writer.look_up(marks, self.shared["kind"], "flag.base")
        away = (
            build.op("Add", [core.away, beyond], "flag.away") if core.away and beyond else core.away or beyond
        )
        outside = build.op("Greater", [away, self.zero], "flag.outside") if away else None
        if unsure is not None:
            outside = build.op("Or", [outside, unsure], "flag.unsure") if outside else unsure
        if outside is not None:
            flags = build.op("Add", [flags, build.op("Cast", [outside], "flag.1", to=7)], "flag.own")
        if missing is not None:
            silent = build.op("Cast", [missing], "flag.silent", to=7)
            four = build.op("Mul", [silent, build.table("flag.4", np.array(4))], "flag.fell_back")
            flags = build.op("Add", [flags, four], "flag.with_4")
        build.op("Identity", [flags], "flags")
