"""What an estimator may leave out means the same to every engine (train/FORMAT.md: defaults, grid)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from irene_build.export.arrays import encode
from irene_build.export.backends import OnnxRuntime, trainer
from irene_build.export.graph import build_model
from irene_build.export.parity import compare, scales
from irene_build.export.samples import with_resources
from irene_build.train import estimator_file
from irene_runtime.model import Estimator
from tests.export import examples


def plain(value: Any) -> Any:
    """The same estimator with default values wherever there is a default, all of them written down."""
    if isinstance(value, dict):
        value = {key: plain(item) for key, item in value.items()}
        if "weight" in value:
            value.update(mean=0.0, scale=1.0)
        if "centers" in value:
            value.update(bias=0.0, scale=[1.0] * len(value["columns"]))
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_a_compact_estimator_is_the_same_to_every_engine(monkeypatch: Any) -> None:
    monkeypatch.setattr(estimator_file, "DIGITS", 17)
    monkeypatch.setattr(estimator_file, "RANGE_DIGITS", 17)
    full = plain(examples.estimator())
    short = estimator_file.compact(full)
    assert "grid" in json.dumps(short) and len(json.dumps(short)) < len(json.dumps(full))
    graphs = [OnnxRuntime(build_model(data, {}).SerializeToString()) for data in (full, short)]
    for tree in examples.trees(full, 2).values():
        tree = with_resources(tree, full)
        arrays = encode(short, [tree])
        for tier in short["tiers"]:
            one, other = (Estimator(data).predict(tree, tier=tier) for data in (full, short))
            assert [n[7:9] for n in one] == [n[7:9] for n in other]
            found = [graph.run_arrays(arrays, tier) for graph in graphs]
            np.testing.assert_array_equal(found[0]["energy"], found[1]["energy"])
            bound = scales(short, tier, arrays)
            if one.tier == tier:
                numbers = trainer(short, tree, tier)
                assert compare({"energy": found[1]["energy"]}, numbers, bound, arrays["parent"]).agrees
