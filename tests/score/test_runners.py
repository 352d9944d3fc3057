"""One function, many runners: Spark and Ray write what the local runner writes, also where a worker dies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from irene_build.export.load import load_bundle
from irene_build.score import logs, on_ray, on_spark, parts
from irene_build.score.batches import Scorer
from irene_build.score.loaded import Loaded
from irene_build.score.run import Options, score_logs, settings_of
from irene_build.score.sources import load
from tests.score import bundles

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Loaded]:
    """A folder with a bundle, a symbolic tree and a log that was scored locally into `local`."""
    folder = tmp_path_factory.mktemp("runners")
    out, tree = bundles.bundle(folder)
    bundles.log(folder / "log.parquet")
    loaded = load(out, [str(tree)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "ROWS", 100)  # a piece a row group
        score_logs(loaded, [str(folder / "log.parquet")], folder / "local", Options())
    return folder, loaded


class Deadly(list[Any]):
    """Pieces that kill the process that first reads one."""

    def __init__(self, pieces: Any, marker: Path) -> None:
        super().__init__(pieces)
        self.marker = marker

    def __getitem__(self, index: Any) -> Any:
        if not self.marker.exists():
            self.marker.touch()
            os._exit(9)
        return super().__getitem__(index)

    def __reduce__(self) -> Any:
        return Deadly, (list(self), self.marker)


def task(rig: tuple[Path, Loaded], name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[parts.Task, Deadly]:
    """What a runner is given to do, unfinished in a folder of this name."""
    folder, loaded = rig
    monkeypatch.setattr(logs, "ROWS", 100)
    log = logs.open_log([str(folder / "log.parquet")])
    settings, _ = settings_of(log, loaded, Options())
    where = parts.open_folder(folder / name, {"test": name}, True)
    return parts.Task(log.schema, settings, (), where, loaded.about), Deadly(
        log.pieces, folder / f"{name}.died"
    )


def same(rig: tuple[Path, Loaded], done: parts.Task) -> bool:
    """Whether every part is byte for byte the local one."""
    names = sorted(p.name for p in (rig[0] / "local").glob("*.parquet"))
    assert len(names) == 4 and (rig[0] / (done.folder.name.split(".")[0] + ".died")).exists()
    return all((done.folder / n).read_bytes() == (rig[0] / "local" / n).read_bytes() for n in names)


def by_id(table: pa.Table) -> pa.Table:
    return table.sort_by("id").combine_chunks()


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    pyspark = pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("no Java here, and Spark runs on it")
    assert pyspark.__version__ >= "4"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("SPARK_LOCAL_IP", "127.0.0.1"),
            ("PYSPARK_PYTHON", sys.executable),
            ("PYTHONPATH", str(ROOT)),
        ):
            patch.setenv(name, value)
        from pyspark.sql import SparkSession

        session = (
            SparkSession.builder.master("local-cluster[2,1,1024]").config("spark.ui.enabled", "false")
            .config("spark.executorEnv.PYTHONPATH", str(ROOT)).config("spark.sql.shuffle.partitions", "2").getOrCreate()
        )  # fmt: skip
        session.sparkContext.setLogLevel("OFF")
        yield session
        session.stop()


@pytest.mark.timeout(600)
def test_spark_writes_the_same_bytes_though_a_worker_dies(
    rig: tuple[Path, Loaded], spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, pieces = task(rig, "spark", monkeypatch)
    on_spark.run(given, pieces, rig[1].payload)
    assert same(rig, given)


@pytest.mark.timeout(600)
def test_a_spark_table_gets_the_same_values_after_sorting(rig: tuple[Path, Loaded], spark: Any) -> None:
    folder, loaded = rig
    settings, _ = settings_of(logs.open_log([str(folder / "log.parquet")]), loaded, Options())
    frame = on_spark.scored(spark.read.parquet(str(folder / "log.parquet")), loaded.payload, settings)
    found = frame.toArrow()
    good = found.filter(pc.is_null(found["rejected"])).drop_columns(["rejected"])
    local = pq.read_table(folder / "local")
    assert by_id(good).cast(local.schema).equals(by_id(local))
    assert found.num_rows == 400 > local.num_rows


@pytest.mark.timeout(600)
def test_ray_writes_the_same_bytes_though_a_worker_dies_and_maps_any_dataset(
    rig: tuple[Path, Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    import ray
    import ray.data

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=10**8,
    )
    try:
        given, pieces = task(rig, "ray", monkeypatch)
        on_ray.run(given, pieces, rig[1].payload)
        assert same(rig, given)
        table = pq.read_table(rig[0] / "log.parquet")
        found = on_ray.scored(ray.data.from_arrow(table), rig[1].payload, given.settings).take_all()
        local = {row["id"]: row["energy_j"] for row in pq.read_table(rig[0] / "local").to_pylist()}
        assert {row["id"]: row["energy_j"] for row in found if row["rejected"] is None} == local
    finally:
        ray.shutdown()


def test_workers_need_neither_torch_nor_scipy_and_make_the_same_tables(
    rig: tuple[Path, Loaded], tmp_path: Path
) -> None:
    folder, loaded = rig
    (tmp_path / "payload.zip").write_bytes(loaded.payload)
    code = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "scipy", "onnx", "sklearn", "matplotlib"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
from pathlib import Path
import pyarrow.parquet as pq
from irene_build.score.batches import Settings
from irene_build.score.columns import Columns
from irene_build.score.sources import scorer_of
scorer = scorer_of(Path(sys.argv[1]), Settings(Columns(batch="batch"), sys.argv[3]))
rows = pq.read_table(sys.argv[2]).to_batches()[0]
print(sum(value or 0.0 for value in scorer(rows).column("energy_j").to_pylist()).hex())
"""
    (model,) = loaded.sources
    given = [sys.executable, "-c", code, tmp_path / "payload.zip", folder / "log.parquet", model]
    done = subprocess.run(given, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    settings, _ = settings_of(logs.open_log([str(folder / "log.parquet")]), loaded, Options())
    scorer = Scorer(loaded.sources, loaded.digest, replace(settings, model=model))
    rows = pq.read_table(folder / "log.parquet").to_batches()[0]
    assert done.stdout.strip() == sum(v or 0.0 for v in scorer(rows).column("energy_j").to_pylist()).hex()


def test_requests_are_what_the_estimator_says_of_them(rig: tuple[Path, Loaded]) -> None:
    estimator, _ = load_bundle(rig[0] / "out")
    tree = estimator.load_tree(str(rig[0] / "small.json"))
    rows = [r for r in pq.read_table(rig[0] / "local").to_pylist() if r["batch"] != 2.5 and r["output"] > 0]
    for row in rows[:40:5]:
        found = estimator.request(tree, row["prompt"], row["output"], int(row["batch"]), exact=True)
        assert row["energy_j"] * row["batch"] == pytest.approx(found.energy_j, rel=1e-3)
        assert row["decode_energy_j"] * row["batch"] == pytest.approx(found.decode.energy_j, rel=1e-3)
        assert row["energy_high_j"] * row["batch"] == pytest.approx(found.interval_j[1], rel=1e-3)
        assert row["flags"].split() == found.flags
