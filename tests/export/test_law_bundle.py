"""Estimators that stand on the law export: the host's gap is as unsure as what it is a difference of."""

from __future__ import annotations

from pathlib import Path

import pytest

from irene_build.export.bundle import export
from irene_build.hardware.datasheets import datasheet
from irene_build.trace import trace_model


@pytest.mark.parametrize("device", ["A100", "RTX 4090"])
def test_backends_agree_on_trees_with_a_host_leaf(device: str, tmp_path: Path) -> None:
    from irene_build.train.law.datasheet_estimator import estimator

    trees = {
        f"{batch}.json": trace_model("bert_uncased_L-2_H-128_A-2", batch, 32, attention="sdpa")
        for batch in (1, 64)
    }
    done = export(estimator(datasheet(device)), tmp_path / "out", trees=trees)
    assert done.verified.worst.share < 1.0
