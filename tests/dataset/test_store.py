"""The dataset on disk: comes back bit for bit, refuses what is wrong, leaves the journal beside it alone."""

from __future__ import annotations

import math
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irene_build.dataset.store import load_dataset, save_dataset
from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError, InputError, RunError
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import ModelTree, Node

NAN = math.nan


def make_tree(leaves: int = 2, model: str = "toy", energies: list[float] | None = None) -> LabelledTree:
    nodes = [Node("", "Toy", "model", -1, features={"batch_size": 8.0})]
    nodes += [
        Node(f"l{i}", "Linear", "ml", 0, "Linear", features={"flops": 1.0 + i}, shapes={"in": [8, 4]})
        for i in range(leaves)
    ]
    n = len(nodes)
    energy = np.array(energies if energies is not None else [1.5] * n, dtype=float)
    resources = np.full((n, len(RESOURCE_FEATURES)), NAN)
    resources[:, RESOURCE_FEATURES.index("latency")] = 0.25
    measurement = np.where(np.isnan(energy), -1, np.arange(n))
    tree = ModelTree(nodes, {"model": model, "batch_size": 8, "seq_len": 32})
    return LabelledTree(tree, energy, resources, measurement, energy * 0.01)


def make_dataset(*trees: LabelledTree) -> Dataset:
    return Dataset("virtual", "wall", "simulated", "emonpi", list(trees), {"seed": 7})


def assert_same(one: Dataset, other: Dataset) -> None:
    for key in ("hardware", "boundary", "provenance", "label_source", "info"):
        assert getattr(one, key) == getattr(other, key)
    assert len(one.trees) == len(other.trees)
    for a, b in zip(one.trees, other.trees, strict=True):
        assert a.tree.dumps() == b.tree.dumps()
        for key in ("energy_j", "energy_std_j", "resources", "measurement"):
            assert getattr(a, key).tobytes() == getattr(b, key).tobytes(), key


positive = st.floats(min_value=1e-12, max_value=1e12) | st.just(NAN)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(positive, min_size=1, max_size=6), max_size=3))
def test_what_was_saved_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, all_energies: list[list[float]]
) -> None:
    path = tmp_path_factory.mktemp("store") / "campaign.sqlite"
    dataset = make_dataset(*(make_tree(len(e) - 1, energies=e) for e in all_energies))
    save_dataset(dataset, path)
    assert_same(load_dataset(path), dataset)


def test_saving_again_replaces_the_dataset_and_leaves_other_tables(tmp_path: Path) -> None:
    path = tmp_path / "campaign.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE trial(id INTEGER)")
        database.execute("INSERT INTO trial VALUES(42)")
    database.close()
    save_dataset(make_dataset(make_tree(), make_tree(3)), path)
    save_dataset(make_dataset(make_tree(4)), path)
    assert [len(t.tree.nodes) for t in load_dataset(path).trees] == [5]
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT id FROM trial").fetchall() == [(42,)]
    database.close()


def test_same_dataset_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_dataset(make_dataset(make_tree()), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_missing_file_and_a_file_without_a_dataset_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="irene-build calibrate"):
        load_dataset(tmp_path / "nothing.sqlite")
    sqlite3.connect(tmp_path / "empty.sqlite").execute("CREATE TABLE trial(id)").connection.close()
    with pytest.raises(InputError, match="relabel"):
        load_dataset(tmp_path / "empty.sqlite")
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be read as one\n" * 40)
    with pytest.raises(DatasetError, match="not a usable SQLite file"):
        load_dataset(tmp_path / "text.sqlite")


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE dataset SET value = '\"other\"' WHERE key = 'format'", "format"),
        ("UPDATE dataset SET value = '2' WHERE key = 'version'", "newer"),
        ("UPDATE dataset SET value = 'true' WHERE key = 'version'", "version"),
        ("UPDATE dataset SET value = '{' WHERE key = 'info'", "info is not JSON"),
        ("UPDATE dataset SET value = '\"guessed\"' WHERE key = 'provenance'", "provenance"),
        ("UPDATE dataset SET value = '[\"latency\", \"latency\"]' WHERE key = 'resources'", "twice"),
        ("DELETE FROM dataset WHERE key = 'hardware'", "hardware"),
        ("UPDATE dataset_tree SET energy_j = x'00'", "energy_j has not"),
        ("UPDATE dataset_tree SET energy_j = zeroblob(24)", "positive"),
        ("UPDATE dataset_tree SET tree = x'00ff'", "unpacked"),
        ("UPDATE dataset_tree SET tree = substr(tree, 1, 40)", "cut off"),
        ("UPDATE dataset_tree SET nodes = 4", "nodes in the tree"),
        ("UPDATE dataset_tree SET position = 1", "dataset_tree 0 is missing"),
    ],
)
def test_a_damaged_dataset_is_named(tmp_path: Path, statement: str, what: str) -> None:
    path = tmp_path / "campaign.sqlite"
    save_dataset(make_dataset(make_tree()), path)
    with sqlite3.connect(path) as database:
        assert database.execute(statement).rowcount == 1
    database.close()
    with pytest.raises(DatasetError, match=what) as caught:
        load_dataset(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf])
def test_a_label_that_is_not_one_is_never_stored(tmp_path: Path, bad: float) -> None:
    with pytest.raises(DatasetError, match="energy_j"):
        save_dataset(make_dataset(make_tree(1, energies=[1.0, bad])), tmp_path / "x.sqlite")
    assert not (tmp_path / "x.sqlite").exists()


def test_a_locked_file_keeps_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "campaign.sqlite"
    save_dataset(make_dataset(make_tree(2)), path)
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda p, timeout, **k: connect(p, timeout=0.1, **k))
    with pytest.raises(RunError, match="locked"):
        save_dataset(make_dataset(make_tree(5)), path)
    holder.rollback()
    holder.close()
    monkeypatch.undo()
    assert len(load_dataset(path).trees[0].tree.nodes) == 3


def test_a_full_disk_keeps_the_old_dataset(tmp_path: Path) -> None:
    path = tmp_path / "campaign.sqlite"
    save_dataset(make_dataset(make_tree(2)), path)
    script = (
        "import resource, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from tests.dataset.test_store import make_dataset, make_tree\n"
        "from irene_build.dataset.store import save_dataset\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "save_dataset(make_dataset(*(make_tree(40, model=f'm{i}') for i in range(200))), sys.argv[1])\n"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", script, path, root], capture_output=True, text=True, cwd=root)
    assert run.returncode == 1 and "RunError" in run.stderr and "nothing was changed" in run.stderr, (
        run.stderr
    )
    assert len(load_dataset(path).trees[0].tree.nodes) == 3


def test_a_shipped_file_loads_from_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "shipped"
    folder.mkdir()
    save_dataset(make_dataset(make_tree()), folder / "campaign.sqlite")
    folder.chmod(0o555)
    try:
        assert_same(load_dataset(folder / "campaign.sqlite"), make_dataset(make_tree()))
        assert [path.name for path in folder.iterdir()] == ["campaign.sqlite"]
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
