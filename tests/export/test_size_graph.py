"""A symbolic tree in the graph: monomials come in, and one call gives the joules of every size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from irene_build.errors import TreeError
from irene_build.export.arrays import encode_symbolic, without_law
from irene_build.export.backends import OnnxRuntime, Reference
from irene_build.export.graph import build_model
from irene_runtime.features import MODEL_FEATURES, PRIMITIVES
from irene_runtime.model import Estimator
from irene_runtime.symbolic import SymbolicTree
from tests.export.test_law_graph import with_law
from tests.runtime.examples import estimator, term
from tests.trace.test_symbolic import symbolic


def of_everything(law: bool) -> dict[str, Any]:
    """An estimator that reads every feature that a symbolic tree has, and maps of them."""
    data = with_law() if law else estimator()
    data.update(features=[n for n in MODEL_FEATURES if law or "law" not in n] + ["latency", "gpu_energy"],
                primitives=list(PRIMITIVES), attention="sdpa")  # fmt: skip
    static = data["tiers"]["static"]
    names = [n for n in data["features"] if n not in ("latency", "gpu_energy") and "2021" not in n]
    first = len(static["columns"])
    static["columns"] = [
        *static["columns"],
        *({"feature": n} for n in names),
        {"feature": "flops", "map": "log"},
    ]
    terms = [term(n, [first + i], 0.01) for i, n in enumerate([*names, "log"])]
    static["leaf"] = {"Linear": {"terms": terms}}
    static["fallback"] = {"terms": terms[::2]}
    static["ranges"] = {}
    return data


SIZES = {
    "prefill": [(1, 5, 0), (3, 40, 0), (2, 17, 0)],
    "decode": [(1, 1, 40), (4, 1, 7)],
    "forward": [(2, 9, 0), (1, 30, 0)],
}


@pytest.mark.parametrize(
    ("model", "phase", "law"),
    [("BertModel", "forward", False), ("LlamaForCausalLM", "prefill", True), ("LlamaForCausalLM", "decode", False),
     ("MixtralForCausalLM", "prefill", False)],
)  # fmt: skip
def test_one_call_gives_every_size(model: str, phase: str, law: bool) -> None:
    """Also where features are no polynomials: experts that are expected, means over bytes."""
    tree, data = symbolic(model), of_everything(law)
    if phase not in tree.phases:
        phase = tree.phases[0]
    sizes = SIZES[phase]
    arrays = without_law(data, encode_symbolic(data, tree, sizes, phase))
    assert arrays["monomials"].shape[0] == len(sizes)
    proto = build_model(data, {})
    expected = [[n.energy_j for n in Estimator(data).predict(tree.at(*size, phase))] for size in sizes]
    for graph in (OnnxRuntime(proto.SerializeToString()), Reference(proto)):
        found = graph.run_arrays(arrays, "static")["energy"].reshape(len(sizes), -1)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sizes_of_two_sections_are_two_calls() -> None:
    tree = symbolic("Gemma3ForCausalLM")
    assert isinstance(tree, SymbolicTree)
    with pytest.raises(TreeError, match="lie in 2 sections"):
        encode_symbolic(of_everything(False), tree, [(1, 5, 0), (1, 60, 0)], "prefill")


def test_plain_trees_need_neither_input() -> None:
    session = OnnxRuntime(build_model(estimator(), {}).SerializeToString()).session
    assert [i.name for i in session.get_inputs()] == ["features", "primitive", "parent", "level", "tier"]
    optional = {i.name: i.shape for i in session.get_overridable_initializers()}
    assert json.loads(json.dumps(optional)) == {"coefficients": ["C0", "C1", "K"], "monomials": ["S", "K"]}
