"""Tables of whole-model measurements: what is read, what is refused, what becomes of repetitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irene_build.dataset.whole_models import Run, build, read
from irene_build.errors import DatasetError, ModelError
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import ModelTree
from tests import synthetic

LATENCY, GPU = RESOURCE_FEATURES.index("latency"), RESOURCE_FEATURES.index("gpu_energy")


def trace(run: Run) -> ModelTree:
    if run.spec not in synthetic.MODELS:
        raise ModelError(f"unknown model {run.spec!r}")
    return synthetic.tree(run.spec, run.batch_size, run.seq_len)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_roots_carry_the_labels_and_nothing_else_does(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv",
        "model,batch_size,seq_len,energy_j,latency_s,gpu_energy_j,note\n"
        "tiny-bert,2,16,1.5,0.01,1.0,a\ntiny-bert,4,32,3.5,0.02,,b\n",
    )
    rows, unused = read(path)
    assert unused == ["note"]
    dataset, summary = build(rows, "lab", trace)
    assert (summary["trees"], summary["repetitions"]) == (2, 0)
    first, second = dataset.trees
    assert (first.energy_j[0], second.energy_j[0]) == (1.5, 3.5)
    assert np.isnan(first.energy_j[1:]).all() and (first.measurement[1:] == -1).all()
    assert (first.resources[0, LATENCY], first.resources[0, GPU]) == (0.01, 1.0)
    assert np.isnan(second.resources[0, GPU]) and np.isnan(first.resources[1:]).all()


def test_repetitions_become_a_mean_with_its_standard_error(tmp_path: Path) -> None:
    lines = "".join(f"tiny-bert,2,16,{energy}\n" for energy in (1.0, 2.0, 3.0))
    rows, _ = read(write(tmp_path / "t.csv", "model,batch_size,seq_len,energy_j\n" + lines))
    dataset, summary = build(rows, "lab", trace)
    assert summary["repetitions"] == 2
    assert dataset.trees[0].energy_j[0] == 2.0
    assert dataset.trees[0].energy_std_j[0] == pytest.approx(1.0 / np.sqrt(3.0))


def test_configurations_are_found_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    rows, _ = read(
        write(
            tmp_path / "t.csv",
            "config,batch_size,seq_len,energy_j,phase,past_len\nmine.json,1,16,2,decode,64\n",
        )
    )
    assert rows[0].run == Run(str(tmp_path / "mine.json"), 1, 16, "decode", 64, "float32", "eager")
    assert rows[0].name == "mine"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("batch_size,seq_len,energy_j\n1,2,3\n", "needs a column 'model'"),
        ("model,batch_size,seq_len\nx,1,2\n", "line 1: column 'energy_j' is missing"),
        ("model,batch_size,seq_len,energy_j\n,1,2,3\n", "line 2: neither model nor config"),
        ("model,batch_size,seq_len,energy_j\nx,1,2,0\n", "line 2: energy_j is 0"),
        ("model,batch_size,seq_len,energy_j\nx,1.5,2,3\n", "line 2: batch_size"),
        ("model,batch_size,seq_len,energy_j,latency_s\nx,1,2,3,fast\n", "line 2: latency_s"),
        ("config,batch_size,seq_len,energy_j\nno.json,1,2,3\n", "line 2: config 'no.json': there is no such"),
        ("model,batch_size,seq_len,energy_j,latency_s,latency\nx,1,2,3,1,1\n", "latency is there in two"),
    ],
)
def test_broken_tables_say_where(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        read(write(tmp_path / "t.csv", text))


def test_a_model_that_cannot_be_traced_names_its_row(tmp_path: Path) -> None:
    rows, _ = read(write(tmp_path / "t.csv", "model,batch_size,seq_len,energy_j\ntiny-bert,1,2,3\nx,1,2,3\n"))
    with pytest.raises(DatasetError, match=r"t.csv, line 3: unknown model 'x'"):
        build(rows, "lab", trace)


def test_clock_power_limit_and_weights_are_part_of_what_was_run(tmp_path: Path) -> None:
    text = (
        "model,batch_size,seq_len,energy_j,freq,power_limit_w\n"
        "tiny-bert,2,16,1.0,900,\ntiny-bert,2,16,2.0,1410,\ntiny-bert,2,16,2.1,1410,\ntiny-bert,2,16,1.5,1410,200\n"
    )
    traced = []
    rows, unused = read(write(tmp_path / "t.csv", text))
    dataset, summary = build(rows, "lab", lambda run: traced.append(run) or trace(run))
    assert (summary["trees"], summary["repetitions"], unused) == (3, 1, [])
    assert [tree.tree.header["clock_mhz"] for tree in dataset.trees] == [900.0, 1410.0, 1410.0]
    assert [tree.tree.header["power_limit_w"] for tree in dataset.trees] == [None, None, 200.0]
    assert len(traced) == 1  # one tree for all clocks


def test_repetitions_that_are_far_apart_are_told(tmp_path: Path) -> None:
    rows, _ = read(
        write(
            tmp_path / "t.csv",
            "model,batch_size,seq_len,energy_j\ntiny-bert,2,16,1.0\ntiny-bert,2,16,9.0\n",
        )
    )
    (text,) = build(rows, "lab", trace)[0].info["far_apart"]
    assert "line 2: 2 rows of one run, 1 to 9 J" in text


def test_a_run_longer_than_the_model_is_kept_and_said(tmp_path: Path) -> None:
    rows, _ = read(write(tmp_path / "t.csv", "model,batch_size,seq_len,energy_j\ntiny-bert,2,64,1.0\n"))

    def cut(run: Run) -> ModelTree:
        tree = synthetic.tree(run.spec, run.batch_size, 32)
        tree.header["traced_by"] = {"seq_len_asked": run.seq_len}
        return tree

    dataset, _ = build(rows, "lab", cut)
    assert "64 tokens, but the model has 32 positions" in dataset.info["implausible"]["0"]["reason"]
