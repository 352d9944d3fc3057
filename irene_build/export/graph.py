"""The estimator as one ONNX graph: raw node features of a forest in, joules of every node out, for all tiers.

``If`` on the tier picks one branch; each branch calls the local functions of ``functions`` with its own tables.
Loops run over depth, never over nodes. Opset 18, IR 8, float64: what onnxruntime 1.16 and later load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irene_build import __version__
from irene_build.export.functions import DOMAIN, OPSET, local_functions
from irene_build.export.tables import (
    Columns,
    KernelTable,
    LinearTable,
    kernel_tables,
    kind_table,
    leaf_rows,
    linear_table,
    polynomial_tensors,
    resolved,
)
from irene_runtime.features import FEATURES, MODEL_FEATURES
from irene_runtime.tree import LEVELS

IR_VERSION = 8
TIERS = ("static", "live", "profile")
OUTPUTS = ("energy", "low", "high", "alpha", "leaf_energy", "flags")
_FAULTS = ("energy", "low", "high", "alpha", "leaf_energy")
_MAP_FUNCTIONS = {"log": "Log", "log1p": "Log1p", "inverse": "Inverse"}
_DOCS = {
    "features": "float64 [N, F], raw features in the order of the metadata's irene.features; NaN = not known",
    "primitive": "int64 [N], index into the metadata's irene.primitives; any other number = unknown (flag 2)",
    "parent": "int64 [N], index of the parent, which stands before its children; -1 at a root. A forest is several "
    "trees one after the other",
    "level": "int64 [N], 0 ml, 1 module, 2 model",
    "tier": "int64 scalar, 0 static, 1 live, 2 profile; a tier that the estimator lacks gives NaN",
    "energy": "float64 [N], joules of one run",
    "low": "float64 [N], lower end of the 90 % interval, joules",
    "high": "float64 [N], upper end of the 90 % interval, joules",
    "alpha": "float64 [N], weight with which the node counts in its parent (equation 3), 1 at a root",
    "leaf_energy": "float64 [N], joules of the leaf's own regressor (equation 1), NaN above the leaves",
    "flags": "int64 [N], 1 outside the calibrated ranges, 2 primitive never calibrated, 4 no reading where this tier "
    "has them, 8 simulated",
}


class _Builder:
    """Nodes and tables of one graph; every name starts with the graph's own, so that names are unique."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.tables: list[Any] = []
        self.used: set[str] = set()
        self._count: dict[str, int] = {}

    def name(self, stem: str) -> str:
        self._count[stem] = self._count.get(stem, 0) + 1
        number = self._count[stem]
        return f"{self.prefix}{stem}" if number == 1 else f"{self.prefix}{stem}_{number}"

    def table(self, stem: str, array: Any, doc: str = "") -> str:
        """An initializer; float64, int64 or bool as the array is."""
        from onnx import numpy_helper

        tensor = numpy_helper.from_array(np.ascontiguousarray(array), self.name(stem))
        tensor.doc_string = doc
        self.tables.append(tensor)
        return str(tensor.name)

    def op(self, kind: str, inputs: Sequence[str], stem: str, **attributes: Any) -> str:
        """A node of standard ONNX with one output."""
        return self.ops(kind, inputs, [stem], **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], stems: Sequence[str], doc: str = "", domain: str = "", **attributes: Any) -> list[str]:
        from onnx import helper

        outputs = [self.name(stem) for stem in stems]
        node = helper.make_node(kind, list(inputs), outputs, name=f"{outputs[0]}/{kind}", domain=domain, **attributes)
        node.doc_string = doc
        self.nodes.append(node)
        return outputs

    def call(self, function: str, inputs: Sequence[str], *stems: str, doc: str = "") -> list[str]:
        """A call of one of our local functions."""
        self.used.add(function)
        return self.ops(function, inputs, stems, doc, DOMAIN)


def build_model(estimator: Mapping[str, Any], metadata: Mapping[str, str]) -> Any:
    """Compile an estimator (train/FORMAT.md) into a checked ModelProto; ``metadata`` goes into metadata_props.

    Raises EstimatorError where the estimator uses a form that the format does not know.
    """
    import onnx
    from onnx import TensorProto, helper

    features, primitives = list(estimator["features"]), list(estimator["primitives"])
    main = _Builder("")
    absent = [0.0 if name in MODEL_FEATURES else np.nan for name in features]
    known = main.call(
        "Known", ["features", main.table("absent", np.array(absent), "what an absent feature stands for")], "known"
    )[0]
    up, step, leaf, sound = main.call("Family", ["parent", "level"], "up", "step", "leaf", "sound")
    unknown = main.table("unknown", np.array(len(primitives)), "the row of unknown primitives")
    row, kind = main.call("Kind", ["primitive", "level", "leaf", unknown], "row", "kind")
    depth, root = main.call("Depth", [up, step], "depth", "root")
    leaves = main.op("Squeeze", [main.op("NonZero", [leaf], "leaf_found"), main.table("axis_0", np.array([0]))], "leaves")
    leaf_row = main.op("Gather", [row, leaves], "leaf_row", axis=0)
    shared = {
        "known": known, "up": up, "leaf": leaf, "sound": sound, "row": row, "kind": kind, "depth": depth,
        "root": root, "leaves": leaves, "leaf_row": leaf_row, "parent": "parent", "level": "level",
    }  # fmt: skip
    graph: Any = None
    branches = {}
    for name in TIERS:
        if name in estimator["tiers"]:
            branches[name] = _Branch(estimator, name, shared)
            main.used |= branches[name].build.used
    graph = _nothing()
    for name in reversed(TIERS):
        if name not in branches:
            continue
        outer = _Builder(f"choose.{name}.")
        is_tier = outer.op("Equal", ["tier", outer.table("number", np.array(TIERS.index(name)))], "is")
        outer.ops("If", [is_tier], OUTPUTS, f"tier {name}", then_branch=branches[name].graph(), else_branch=graph)
        graph = _graph(outer, f"choose_{name}", OUTPUTS)
    main.nodes += graph.node
    main.tables += graph.initializer
    for node_output, name in zip([o.name for o in graph.output], OUTPUTS, strict=True):
        main.nodes.append(helper.make_node("Identity", [node_output], [name], name=f"{name}/out"))
    sizes = {"features": ["N", len(features)], "tier": []}
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.DOUBLE if name == "features" else TensorProto.INT64, sizes.get(name, ["N"]), _DOCS[name]
        )
        for name in ("features", "primitive", "parent", "level", "tier")
    ]
    outputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64 if n == "flags" else TensorProto.DOUBLE, ["N"], _DOCS[n])
        for n in OUTPUTS
    ]
    simulated = " SIMULATED ground truth: no joule of it was measured." if estimator["provenance"] == "simulated" else ""
    whole = helper.make_graph(main.nodes, "irene_estimator", inputs, outputs, main.tables)
    whole.doc_string = (
        f"Joules of every node of a model tree on {estimator['hardware']} (boundary {estimator['boundary']}, "
        f"provenance {estimator['provenance']}). Equations 1 and 3 of IrEne (ACL 2021).{simulated}"
    )
    model = helper.make_model(
        whole,
        functions=local_functions(main.used),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=IR_VERSION,
        producer_name="irene-build",
        producer_version=__version__,
        doc_string=whole.doc_string,
    )
    units = {name: FEATURES[name][1] for name in features}
    properties = {
        "irene.features": ",".join(f"{name} [{unit}]" for name, unit in units.items()),
        "irene.primitives": ",".join(primitives),
        **metadata,
    }
    helper.set_model_props(model, dict(sorted(properties.items())))
    onnx.checker.check_model(model, full_check=True)
    return model


def _graph(build: _Builder, name: str, outputs: Sequence[str]) -> Any:
    from onnx import TensorProto, helper

    made = [
        helper.make_tensor_value_info(
            build.prefix + n, TensorProto.INT64 if n == "flags" else TensorProto.DOUBLE, ["N"], _DOCS[n]
        )
        for n in outputs
    ]
    return helper.make_graph(build.nodes, name, [], made, build.tables)


def _nothing() -> Any:
    """The branch of a tier that is not there: NaN everywhere."""
    build = _Builder("none.")
    shape = build.op("Shape", ["parent"], "shape")
    nan = build.table("nan", np.array(np.nan))
    for name in _FAULTS:
        build.op("Expand", [nan, shape], name)
    build.op("Expand", [build.table("no_flags", np.array(0)), shape], "flags")
    return _graph(build, "none", OUTPUTS)


class _Branch:
    """One tier: its nodes in ``build``, written in the order of the computation."""

    def __init__(self, estimator: Mapping[str, Any], name: str, shared: Mapping[str, str]) -> None:
        self.estimator, self.name, self.shared = estimator, name, shared
        self.tier = resolved(estimator, name)
        self.build = _Builder(f"{name}.")
        self.columns_plan = Columns(self.tier["columns"], estimator["features"])
        self._write()

    def graph(self) -> Any:
        return _graph(self.build, self.name, OUTPUTS)

    def _write(self) -> None:
        build, shared = self.build, self.shared
        nan = build.table("nan", np.array(np.nan))
        zero = build.table("zero", np.array(0.0))
        one = build.table("one", np.array(1.0))
        shape = build.op("Shape", ["parent"], "shape")
        columns = self._columns()
        nothing = build.op("Expand", [nan, shape], "nothing")
        leaf_joules = self._leaves(columns)
        leaf_all = build.op("ScatterElements", [nothing, shared["leaves"], leaf_joules], "leaf_energy", axis=0)
        own = build.op("Where", [shared["leaf"], leaf_all, zero], "own")
        own = build.op("Where", [shared["sound"], own, nan], "own_sound")
        alpha = self._alpha(columns, one, shape)
        factor = self._level_corrections(columns, one, shape)
        missing, reads = None, None
        direct = self.tier.get("direct") or {}
        if direct:
            reading, reads, omega, missing = self._reading(columns)
        if set(direct) - {"model"}:
            factor = factor or build.op("Expand", [one, shape], "no_correction")
            sums = build.call(
                "AggregatePooled", [own, alpha, factor, shared["depth"], shared["up"], reading, reads, omega], "sums"
            )[0]
        else:
            weight = build.op("Mul", [alpha, factor], "weight") if factor else alpha
            sums = build.call("Aggregate", [own, weight, shared["depth"], shared["up"]], "sums")[0]
        total = build.op("Mul", [sums, factor], "total") if factor else sums
        energy = build.call("Pool", [total, reading, reads, omega], "pooled")[0] if direct else total
        if direct and self.tier.get("rescale"):
            gammas = [self.tier["rescale"].get(level) for level in LEVELS]
            energy = build.call(
                "Rescale",
                [energy, total, str(reads), shared["root"], "parent", "level",
                 build.table("rescale.gamma", np.array([g or 0.0 for g in gammas]), "per level"),
                 build.table("rescale.named", np.array([g is not None for g in gammas]), "per level")],
                "rescaled",
            )[0]  # fmt: skip
        away = self._interval(energy, missing)
        self._flags(away, missing)
        build.op("Identity", [energy], "energy")

    def _columns(self) -> str:
        """float64 [N, C]: raw features, ones, then every mapped column and product of columns."""
        build = self.build
        columns = self.shared["known"]
        for number, group in enumerate(self.columns_plan.groups):
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

    def _factors(self, stem: str, columns: str, rows: str, factors: Sequence[np.ndarray]) -> str:
        build = self.build
        values = [
            build.call("Factor", [columns, rows, build.table(f"{stem}.factor", table, "columns per row")], f"{stem}.x")[0]
            for table in factors
        ]
        product = values[0]
        for other in values[1:]:
            product = build.op("Mul", [product, other], f"{stem}.product")
        return product

    def _linear(self, stem: str, columns: str, rows: str, table: LinearTable, doc: str) -> str:
        build = self.build
        product = self._factors(stem, columns, rows, table.factors)
        inputs = [
            build.table(f"{stem}.{key}", getattr(table, key), f"{key} of every term, a row per primitive or level")
            for key in ("mean", "scale", "weight", "floor")
        ]
        return build.call("Linear", [product, rows, *inputs], f"{stem}.linear", doc=doc)[0]

    def _leaves(self, columns: str) -> str:
        """Equation 1 for the leaves alone: float64 [leaves], joules."""
        build, shared = self.build, self.shared
        rows, _ = leaf_rows(self.estimator, self.tier)
        at = build.op("Gather", [columns, shared["leaves"]], "leaf.columns", axis=0)
        joules = self._linear(
            "leaf", at, shared["leaf_row"], linear_table(rows, self.columns_plan), "equation 1: one row per leaf"
        )
        tables = kernel_tables([row.get("correction") for row in rows], self.columns_plan)
        return self._corrected("leaf", at, shared["leaf_row"], joules, tables)

    def _corrected(self, stem: str, columns: str, rows: str, joules: str, tables: Sequence[KernelTable]) -> str:
        """joules * exp(limit tanh(correction / limit)) in the rows that have a correction."""
        build = self.build
        for table in tables:
            part = f"{stem}.{table.kernel}"
            if table.rows.all():
                joules = self._correct(part, columns, rows, joules, table)
                continue
            has = build.op("Gather", [build.table(f"{part}.has", table.rows), rows], f"{part}.mask", axis=0)
            axis = build.table(f"{part}.axis", np.array([0]))
            chosen = build.op("Squeeze", [build.op("NonZero", [has], f"{part}.found"), axis], f"{part}.chosen")
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
            length = build.op("Gather", [build.table(f"{stem}.length", table.length), rows], f"{stem}.l", axis=0)
            z = build.op("Div", [z, length], f"{stem}.z_scaled")
            square = build.table(f"{stem}.square_0", np.zeros((1, 1)))
            for d, centres in enumerate(table.centres):
                square = build.call(
                    "SquareDistance",
                    [square, z, rows, build.table(f"{stem}.coordinate", np.array([d])),
                     build.table(f"{stem}.centres.{d}", centres, "centre over length, a row per primitive")],
                    f"{stem}.square",
                )[0]  # fmt: skip
            values = build.call("Matern32" if table.kernel == "matern32" else "Gaussian", [square], f"{stem}.k")[0]
        weight, bias = build.table(f"{stem}.weight", table.weight), build.table(f"{stem}.bias", table.bias)
        total = build.call("Weighted", [values, rows, weight, bias], f"{stem}.correction")[0]
        limit = build.table(f"{stem}.limit", table.limit)
        return build.call("Correct", [joules, rows, total, limit], f"{stem}.corrected")[0]

    def _level_corrections(self, columns: str, one: str, shape: str) -> str | None:
        """The factor of every inner node; None where no level has a correction."""
        corrections = self.tier.get("correction") or {}
        if not corrections:
            return None
        build = self.build
        tables = kernel_tables([corrections.get(level) for level in LEVELS] + [None], self.columns_plan)
        ones = build.op("Expand", [one, shape], "level.ones")
        leaf_level = build.table("level.leaf", np.array(len(LEVELS)), "leaves have no level correction")
        rows = build.op("Where", [self.shared["leaf"], leaf_level, "level"], "level.rows")
        return self._corrected("level", columns, rows, ones, tables)

    def _alpha(self, columns: str, one: str, shape: str) -> str:
        build, data = self.build, self.tier.get("aggregation")
        if data is None:
            return build.op("Expand", [one, shape], "alpha")
        picks = np.array(self.columns_plan.picks(data["columns"]), dtype=np.int64)
        x = build.op("Gather", [columns, build.table("alpha.columns", picks)], "alpha.x", axis=1)
        centred = build.op("Sub", [x, build.table("alpha.mean", np.array(data["mean"], dtype=np.float64))], "alpha.centred")
        z = build.op("Div", [centred, build.table("alpha.scale", np.array(data["scale"], dtype=np.float64))], "alpha.z")
        value = self._polynomial(z, polynomial_tensors(data["weights"], len(picks), int(data["degree"])))
        value = build.op("Add", [value, build.table("alpha.bias", np.array(float(data["bias"])))], "alpha.polynomial")
        tau = build.table("alpha.tau", np.array(float(data["tau"])))
        return build.call("Alpha", [value, tau, "parent"], "alpha")[0]

    def _polynomial(self, z: str, tensors: Sequence[np.ndarray]) -> str:
        """sum_i z_i (w_i + sum_j z_j (w_ij + ...)): one matrix product for the highest degree, then sums."""
        build = self.build
        n, degree = tensors[0].shape[0], len(tensors)
        matrix = tensors[-1].reshape(-1, n).T if degree > 1 else tensors[0]
        inner = build.op("MatMul", [z, build.table(f"alpha.weights.{degree}", matrix)], "alpha.inner")
        for lower in range(degree - 1, 0, -1):
            shape = build.table("alpha.shape", np.array([-1] + [n] * lower))
            shaped = build.op("Reshape", [inner, shape], "alpha.shaped") if lower > 1 else inner
            around = build.table("alpha.z_shape", np.array([-1] + [1] * (lower - 1) + [n]))
            z_shaped = build.op("Reshape", [z, around], "alpha.z_shaped") if lower > 1 else z
            weights = build.table(f"alpha.weights.{lower}", tensors[lower - 1])
            inner = build.call("Raise", [z_shaped, shaped, weights], "alpha.raised")[0]
        return inner

    def _reading(self, columns: str) -> tuple[str, str, str, str]:
        """DIRECT: the reading of every node, where there is one, its weight, and where it is missing."""
        build, direct = self.build, self.tier["direct"]
        rows = [direct.get(level) for level in LEVELS]
        held = build.op("Clip", ["level", build.table("direct.low", np.array(0)), build.table("direct.high", np.array(2))], "direct.level")
        reading = self._linear(
            "direct", columns, held, linear_table(rows, self.columns_plan), "a node's own reading, from its resource features"
        )
        has = build.op("Gather", [build.table("direct.has", np.array([r is not None for r in rows])), held], "direct.wanted", axis=0)
        pool = np.array([0.0 if r is None else float(r["pool"]) for r in rows])
        omega = build.op("Gather", [build.table("direct.pool", pool), held], "direct.omega", axis=0)
        unknown = build.op("IsNaN", [reading], "direct.unknown")
        missing = build.op("And", [has, unknown], "direct.missing")
        reads = build.op("And", [has, build.op("Not", [unknown], "direct.known")], "direct.reads")
        return reading, reads, omega, missing

    def _interval(self, energy: str, missing: str | None) -> str:
        """Writes low and high; gives how far every node is outside the ranges."""
        build, kind = self.build, self.shared["kind"]
        own = kind_table(self.estimator, self.tier)
        if len(own.features):
            away = build.call(
                "Away",
                [self.shared["known"], kind, build.table("ranges.features", own.features),
                 build.table("ranges.low", own.low, "a row per kind of node"), build.table("ranges.high", own.high)],
                "away",
            )[0]  # fmt: skip
        else:
            away = build.op("Expand", [build.table("nowhere", np.array(0.0)), build.op("Shape", ["parent"], "size")], "away")
        half = self._half(own.q, own.slope, away, "interval")
        if missing is not None and self.name != "static" and "static" in self.estimator["tiers"]:
            other = kind_table(self.estimator, self.tier, resolved(self.estimator, "static")["interval"])
            unread = self._half(other.q, other.slope, away, "interval.static")
            half = build.op("Where", [missing, unread, half], "interval.chosen")
        build.call("Ends", [energy, half], "low", "high")
        return away

    def _half(self, q: np.ndarray, slope: np.ndarray, away: str, stem: str) -> str:
        build = self.build
        tables = [build.table(f"{stem}.q", q, "a row per kind of node"), build.table(f"{stem}.slope", slope)]
        return build.call("HalfWidth", [away, self.shared["kind"], *tables], f"{stem}.half")[0]

    def _flags(self, away: str, missing: str | None) -> None:
        build = self.build
        _, uncalibrated = leaf_rows(self.estimator, self.tier)
        outside = build.op("Greater", [away, build.table("inside", np.array(0.0))], "outside")
        marks = build.table("leaf.flag", np.where(uncalibrated, 2, 0), "2 where a primitive was never calibrated")
        mark = build.op("Gather", [marks, self.shared["row"]], "leaf.mark", axis=0)
        none = build.table("none", np.array(8 if self.estimator["provenance"] == "simulated" else 0))
        mark = build.op("Where", [self.shared["leaf"], mark, build.table("inner", np.array(0))], "uncalibrated")
        flags = build.op("Add", [mark, none], "flags.base")
        for condition, bit in ((outside, 1), (missing, 4)):
            if condition is not None:
                value = build.table(f"flag.{bit}", np.array(bit))
                empty = build.table(f"flag.{bit}.not", np.array(0))
                flags = build.op("Add", [flags, build.op("Where", [condition, value, empty], f"flag.{bit}.set")], "flags.sum")
        build.op("Identity", [flags], "flags")
