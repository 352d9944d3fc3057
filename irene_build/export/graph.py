"""The estimator as one ONNX graph: raw node features of a forest in, joules of every node out, for all tiers.

What looks at one row alone (``core``) is computed once for every distinct row; then ``If`` on the tier picks a branch
(``branch``), which looks at the trees. Loops run over depth, never over nodes. Opset 18, IR 8, float64: what
onnxruntime 1.16 and later load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from irene_build import __version__
from irene_build.export.builder import DOCS, OUTPUTS, TIERS, Builder, Tables, graph_of
from irene_build.export.functions import DOMAIN, OPSET, local_functions
from irene_build.export.law_graph import (
    LawWriter,
    default_conditions,
    dtypes_of,
    evaluates_law,
    graph_features,
)
from irene_build.export.row_graph import KEYS, Core, Writer, model_features
from irene_build.export.size_graph import with_sizes
from irene_build.export.tables import resolved
from irene_build.export.tier_graph import Branch
from irene_runtime.features import FEATURES

IR_VERSION = 8
_REALS = ("energy", "low", "high", "alpha", "leaf_energy")


def build_model(estimator: Mapping[str, Any], metadata: Mapping[str, str]) -> Any:
    """Compile an estimator (train/FORMAT.md) into a checked ModelProto; ``metadata`` goes into metadata_props.

    Raises EstimatorError where the estimator uses a form that the format does not know.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    estimator = {**estimator, "features": graph_features(estimator)}
    features, primitives = list(estimator["features"]), list(estimator["primitives"])
    tables = Tables()
    main = Builder("", tables)
    shared = _shared(main, estimator, features, len(primitives))
    tiers = {name: resolved(estimator, name) for name in TIERS if name in estimator["tiers"]}
    first, *others = tiers.values()
    core = None
    if all(first.get(key) == other.get(key) for other in others for key in KEYS):
        each = Builder("each.", tables)
        core = Core(each, estimator, {**first, "interval": _all_kinds(tiers.values())}, shared)
        main.nodes += each.nodes
        main.used |= each.used
    branches = {}
    for name in tiers:
        branches[name] = Branch(estimator, name, shared, tables, core)
        main.used |= branches[name].build.used
    graph = _nothing(tables)
    for name in reversed(TIERS):
        if name not in branches:
            continue
        outer = Builder(f"choose.{name}.", tables)
        is_tier = outer.op("Equal", ["tier", outer.table("number", np.array(TIERS.index(name)))], "is")
        outer.ops(
            "If", [is_tier], OUTPUTS, f"tier {name}", then_branch=branches[name].graph(), else_branch=graph
        )
        graph = graph_of(outer, f"choose_{name}", OUTPUTS)
    main.nodes += graph.node
    for node_output, name in zip([o.name for o in graph.output], OUTPUTS, strict=True):
        main.nodes.append(helper.make_node("Identity", [node_output], [name], name=f"{name}/out"))
    sizes = {"features": ["N", len(features)], "tier": []}
    inputs = [
        helper.make_tensor_value_info(
            name,
            TensorProto.DOUBLE if name == "features" else TensorProto.INT64,
            sizes.get(name, ["N"]),
            DOCS[name],
        )
        for name in ("features", "primitive", "parent", "level", "tier")
    ]
    law = evaluates_law(estimator)
    if law:  # an input with a value of its own: it need not be given
        inputs.append(
            helper.make_tensor_value_info("conditions", TensorProto.DOUBLE, ["C", 3], DOCS["conditions"])
        )
        tables.tensors.append(numpy_helper.from_array(default_conditions(estimator), "conditions"))
    nodes, added = with_sizes(list(main.nodes), tables, main.used, len(features))
    inputs += added
    outputs = [
        helper.make_tensor_value_info(
            n, TensorProto.INT64 if n == "flags" else TensorProto.DOUBLE, ["M"], DOCS[n]
        )
        for n in OUTPUTS
    ]
    simulated = (
        " SIMULATED ground truth: no joule of it was measured."
        if estimator["provenance"] == "simulated"
        else ""
    )
    whole = helper.make_graph(nodes, "irene_estimator", inputs, outputs, tables.tensors)
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
        **({"irene.dtypes": ",".join(dtypes_of(estimator))} if law else {}),
        **metadata,
    }
    helper.set_model_props(model, dict(sorted(properties.items())))
    onnx.checker.check_model(model, full_check=True)
    return model


def _shared(
    main: Builder, estimator: Mapping[str, Any], features: list[str], primitives: int
) -> dict[str, str]:
    """What every tier needs to know of the nodes, by name."""
    listed = main.table("listed", np.array(primitives), "how many primitives have a number")
    outputs = ("index", "up", "below", "step", "leaf", "inner", "sound", "kind")
    family = main.call("Family", ["primitive", "parent", "level", listed], *outputs)
    shared = dict(zip(outputs, family, strict=True))
    names = model_features(features)
    if names:
        x = Writer(main).pick("model.raw", "features", np.array([features.index(name) for name in names]))
        shared["model"] = main.call("Known", [x], "model")[0]
        if evaluates_law(estimator):
            shared["model"] = LawWriter(main, estimator, shared["model"], names, shared).filled(x)
    return shared


def _all_kinds(tiers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Known kinds that ask for the columns of all tiers' known kinds."""
    return {
        "kinds": {
            "columns": [c for tier in tiers for c in tier["interval"].get("kinds", {}).get("columns", ())]
        }
    }


def _nothing(tables: Tables) -> Any:
    """The branch of a tier that is not there: NaN everywhere."""
    build = Builder("none.", tables)
    shape = build.op("Shape", ["parent"], "shape")
    nan = build.table("nan", np.array(np.nan))
    for name in _REALS:
        build.op("Expand", [nan, shape], name)
    build.op("Expand", [build.table("no_flags", np.array(0)), shape], "flags")
    return graph_of(build, "none", OUTPUTS)
