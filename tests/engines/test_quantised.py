"""bitsandbytes: what quantised products launch, and the signs that this has on a GPU that waits for its host."""

import pytest

from irene_build.engines.quantised import LAUNCHES, launched
from irene_build.hardware.datasheets import datasheet
from irene_build.trace import trace_model
from irene_build.train.law.datasheet_estimator import estimator
from irene_runtime.model import Estimator


def decode(model, weights=None, **size):
    run = {"batch_size": 1, "seq_len": 1, "phase": "decode", "past_len": 100, "dtype": "float16"} | size
    return trace_model(model, weights=weights, **run)


def test_products_launch_more_and_nothing_else_changes():
    tree = decode("Qwen2.5-0.5B", "nf4")
    seen = launched(tree)
    changed = {
        n.primitive
        for n, m in zip(tree.nodes, seen.nodes, strict=True)
        if n.level == "ml" and n.features != m.features
    }
    assert changed == {"Linear"}
    quantised = sum(
        n.level == "ml" and n.features != m.features for n, m in zip(tree.nodes, seen.nodes, strict=True)
    )
    assert quantised == 24 * 7  # the output projection keeps 16 bit
    added = seen.nodes[0].features["kernels"] - tree.nodes[0].features["kernels"]
    assert added == quantised * LAUNCHES["nf4"]
    full = decode("Qwen2.5-0.5B")
    assert launched(full) is full


def test_many_rows_write_the_whole_matrix_first():
    tree = decode("Qwen2.5-0.5B", "nf4", phase="prefill", past_len=0, seq_len=64)
    assert launched(tree).nodes[0].features["write_bytes"] > tree.nodes[0].features["write_bytes"] + 500.0


@pytest.mark.parametrize(
    ("model", "weights", "dearer"),
    [
        ("Qwen2.5-0.5B", "nf4", True),
        ("Qwen2.5-7B", "nf4", False),
        ("Qwen2.5-0.5B", "int8", True),
        ("Qwen2.5-7B", "int8", True),
    ],
)
def test_nf4_saves_on_large_models_alone_and_default_int8_never(model, weights, dearer):
    compiled = Estimator(estimator(datasheet("RTX 4090D")))
    full, quantised = (compiled.predict(launched(decode(model, one))).energy_j for one in (None, weights))
    assert (quantised > full) == dearer
