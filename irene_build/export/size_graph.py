"""Symbolic trees in the graph: coefficients and monomials come in, and one tree at many sizes is a forest.

Both inputs have values of their own, with which the graph takes plain trees: they need not be given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from irene_build.export.builder import DOCS, Builder, Tables

#: Inputs that are trees; what comes behind the front of the graph reads ``trees.NAME``.
TREES = ("features", "primitive", "parent", "level")
_PREFIX = "trees."


def with_sizes(
    nodes: list[Any], tables: Tables, used: set[str], features: int
) -> tuple[list[Any], list[Any]]:
    """The graph's nodes behind a front that makes trees of the inputs, and the inputs that this adds."""
    from onnx import TensorProto, helper, numpy_helper

    for node in nodes:
        _renamed(node)
    many, one = Builder("trees.many.", tables), Builder("trees.one.", tables)
    inputs = ["features", "coefficients", "monomials", "primitive", "parent", "level"]
    many.call("AtSizes", inputs, *TREES)
    for name in TREES:
        one.op("Identity", [name], name)
    used |= many.used
    front = Builder("trees.", tables)
    size = front.op("Size", ["coefficients"], "size")
    given = front.op("Greater", [size, front.table("one_number", np.array(1))], "given")
    branches = [_graph(build, features) for build in (many, one)]
    front.ops(
        "If", [given], TREES, "one tree at many sizes", then_branch=branches[0], else_branch=branches[1]
    )
    added = []
    for name, shape in (("coefficients", ["C0", "C1", "K"]), ("monomials", ["S", "K"])):
        default = np.zeros((1, 1, 1) if name == "coefficients" else (1, 1))
        tables.tensors.append(numpy_helper.from_array(default, name))
        tables.tensors[-1].doc_string = "of a plain tree"
        added.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape, DOCS[name]))
    return [*front.nodes, *nodes], added


def _renamed(node: Any) -> None:
    """Lets a node, and what is inside of it, read the trees of the front in place of the inputs."""
    from onnx import AttributeProto

    for index, name in enumerate(node.input):
        if name in TREES:
            node.input[index] = _PREFIX + name
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _renamed(inner)


def _graph(build: Builder, features: int) -> Any:
    from onnx import TensorProto, helper

    outputs = [
        helper.make_tensor_value_info(
            build.prefix + name,
            TensorProto.DOUBLE if name == "features" else TensorProto.INT64,
            ["M", features] if name == "features" else ["M"],
            DOCS[name],
        )
        for name in TREES
    ]
    return helper.make_graph(build.nodes, build.prefix.strip(".").replace(".", "_"), [], outputs)
