"""A small exported estimator with a symbolic tree in it, and logs that it can score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from irene_build.export.bundle import export
from irene_build.files import write_text_atomic
from irene_build.models.build import instantiate
from irene_build.models.specs import Spec
from irene_build.trace.symbolic import dumps, trace_symbolic
from irene_build.train import best
from tests import synthetic


def bundle(folder: Path) -> tuple[Path, Path]:
    """The bundle, and beside it the symbolic tree of a small Llama of 512 positions."""
    import transformers

    export(
        best.fit(synthetic.dataset()), folder / "out", {"tiny-gpt.json": synthetic.tree("tiny-gpt", 2, 16)}
    )
    kind = transformers.LlamaForCausalLM
    config = kind.config_class(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512,
    )  # fmt: skip
    tree = trace_symbolic(instantiate(Spec("small", kind, config), "float32", "sdpa", "meta"))
    write_text_atomic(folder / "small.json", dumps(tree))
    return folder / "out", folder / "small.json"


def log(path: Path, rows: int = 400, seed: int = 0) -> pa.Table:
    """A log of four row groups, with some rows that are wrong."""
    rng = np.random.default_rng(seed)
    table = pa.table({
        "id": np.arange(rows), "prompt": rng.integers(-2, 300, rows), "output": rng.integers(0, 60, rows),
        "batch": rng.choice([1.0, 2.0, 2.5, 8.0], rows), "team": rng.choice(["a", "b"], rows),
    })  # fmt: skip
    pq.write_table(table, path, row_group_size=rows // 4)
    return table
