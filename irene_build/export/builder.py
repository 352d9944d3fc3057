"""Builds the nodes and tables of one (sub)graph; knows ONNX, nothing of estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irene_build.export.functions import DOMAIN

TIERS = ("static", "live", "profile")
OUTPUTS = ("energy", "low", "high", "alpha", "leaf_energy", "flags")
DOCS = {
    "features": "float64 [N, F], raw features in the order of the metadata's irene.features; NaN = not known",
    "primitive": "int64 [N], index into the metadata's irene.primitives; any other number = unknown (flag 2)",
    "parent": "int64 [N], index of the parent, which stands before its children; -1 at a root. A forest is several "
    "trees one after the other",
    "level": "int64 [N], 0 ml, 1 module, 2 model",
    "coefficients": "float64 [N, F, K], of a symbolic tree: what every monomial adds to every feature; left out for "
    "plain trees. `features` then holds what no monomial changes (0, and NaN = not known)",
    "monomials": "float64 [S, K], of a symbolic tree: 1, batch, batch times tokens, ... at each of S sizes: "
    "outputs are those of S trees, one after the other",
    "conditions": "float64 [N or 1, 3], of estimators with a law, may be left out: dtype by its number in the "
    "metadata's irene.dtypes, core clock in MHz, power limit in W; NaN = as in the calibration",
    "tier": "int64 scalar, 0 static, 1 live, 2 profile; a tier that the estimator lacks gives NaN",
    "energy": "float64 [N], joules of one run",
    "low": "float64 [N], lower end of the 90 % interval, joules",
    "high": "float64 [N], upper end of the 90 % interval, joules",
    "alpha": "float64 [N], weight with which the node counts in its parent (equation 3), 1 at a root",
    "leaf_energy": "float64 [N], joules of the leaf's own regressor (equation 1), NaN above the leaves",
    "flags": "int64 [N], 1 outside the calibrated ranges, 2 primitive never calibrated, 4 no reading where this tier "
    "has them, 8 simulated",
}


class Tables:
    """The initializers of the whole graph. Equal arrays are one: tiers that share numbers share their tables."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(self, name: str, array: Any, doc: str) -> str:
        """The name under which the array is in the graph; ``name`` if it is new. float64, int64 or bool as it is."""
        from onnx import numpy_helper

        values = np.asarray(array, order="C")
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._names:
            tensor = numpy_helper.from_array(values, name)
            tensor.doc_string = doc
            self.tensors.append(tensor)
            self._names[key] = name
        return self._names[key]


class Builder:
    """Nodes of one (sub)graph; every name starts with the graph's own, so that names are unique."""

    def __init__(self, prefix: str, tables: Tables) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.tables = tables
        self.used: set[str] = set()
        self._count: dict[str, int] = {}

    def name(self, stem: str) -> str:
        self._count[stem] = self._count.get(stem, 0) + 1
        number = self._count[stem]
        return f"{self.prefix}{stem}" if number == 1 else f"{self.prefix}{stem}_{number}"

    def table(self, stem: str, array: Any, doc: str = "") -> str:
        """An initializer of the main graph, which subgraphs see."""
        return self.tables.add(self.name(stem), array, doc)

    def op(self, kind: str, inputs: Sequence[str], stem: str, **attributes: Any) -> str:
        """A node of standard ONNX with one output."""
        return self.ops(kind, inputs, [stem], **attributes)[0]

    def ops(
        self,
        kind: str,
        inputs: Sequence[str],
        stems: Sequence[str],
        doc: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        from onnx import helper

        outputs = [self.name(stem) for stem in stems]
        node = helper.make_node(
            kind, list(inputs), outputs, name=f"{outputs[0]}/{kind}", domain=domain, **attributes
        )
        node.doc_string = doc
        self.nodes.append(node)
        return outputs

    def call(self, function: str, inputs: Sequence[str], *stems: str, doc: str = "") -> list[str]:
        """A call of one of our local functions."""
        self.used.add(function)
        return self.ops(function, inputs, stems, doc, DOMAIN)


def graph_of(build: Builder, name: str, outputs: Sequence[str]) -> Any:
    from onnx import TensorProto, helper

    made = [
        helper.make_tensor_value_info(
            build.prefix + n, TensorProto.INT64 if n == "flags" else TensorProto.DOUBLE, ["N"], DOCS[n]
        )
        for n in outputs
    ]
    return helper.make_graph(build.nodes, name, [], made)
