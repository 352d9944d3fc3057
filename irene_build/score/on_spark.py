"""The Spark runner. Two ways: a log in files, piece by piece (`irene-build score --runner spark`), and any DataFrame.

Workers get the bundle as a file (``SparkContext.addFile``), and need irene-build with NumPy and PyArrow, not torch.
Where Spark runs (``local[*]``, ``spark://host:7077``, YARN, Kubernetes) is Spark's own configuration.
"""

from __future__ import annotations

import atexit
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build.errors import InputError, RunError
from irene_build.score.batches import Scorer, Settings, added_schema
from irene_build.score.parts import Task, score_piece
from irene_build.score.pieces import Piece
from irene_build.score.sources import scorer_of

if TYPE_CHECKING:
    import pyarrow as pa

_FILE = "irene-payload.zip"


def run(task: Task, pieces: Sequence[Piece], payload: bytes, master: str = "") -> None:
    """Score the pieces on a Spark cluster; every worker writes whole parts into ``task.folder``, which all must see.

    A piece whose worker dies is tried again by Spark, and gives the same part. Raises RunError.
    """
    if not pieces:
        return
    session, ours = _session(master)
    try:
        name = _ship(session, payload)

        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            from pyspark import SparkFiles

            scorer = scorer_of(Path(SparkFiles.get(name)), task.settings)
            for batch in batches:
                for index in batch.column(0).to_pylist():
                    score_piece(task, pieces[index], scorer)
                yield batch

        numbers = session.range(0, len(pieces), 1, numPartitions=len(pieces))
        with _one_line():
            done = numbers.mapInArrow(work, "id long").count()
        if done != len(pieces):
            raise RunError(f"Spark returned {done} of {len(pieces)} pieces: run the same command again")
    finally:
        if ours:
            session.stop()


def scored(frame: Any, payload: bytes, settings: Settings) -> Any:
    """A DataFrame of requests with the columns of ``batches.ADDED`` and ``REJECTED``: a table of any source.

    ``payload``: ``Loaded.payload`` of a bundle. Lazy, as Spark is; nothing is dropped.
    """
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    name = _ship(frame.sparkSession, payload)
    schema = added_schema(to_arrow_schema(frame.schema))

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import SparkFiles

        scorer: Scorer = scorer_of(Path(SparkFiles.get(name)), settings)
        for batch in batches:
            yield scorer(batch)

    return frame.mapInArrow(work, from_arrow_schema(schema))


def _session(master: str) -> tuple[Any, bool]:
    """The session that is active, or a new one, and whether it is new."""
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise InputError("--runner spark needs PySpark: pip install 'irene-build[spark]'") from None
    active = SparkSession.getActiveSession()
    if active is not None:
        return active, False
    builder = SparkSession.builder.appName("irene-build score").config(
        "spark.ui.showConsoleProgress", "false"
    )
    try:
        session = (builder.master(master) if master else builder).getOrCreate()
        session.sparkContext.setLogLevel("OFF")  # what goes wrong is told in one line
        return session, True
    except (PySparkException, OSError) as error:
        raise RunError(
            f"Spark does not start ({str(error).splitlines()[0][:160]}): is there a Java?"
        ) from None


def _ship(session: Any, payload: bytes) -> str:
    """Put the payload where every executor finds it, under a name that no other has; the name."""
    folder = Path(tempfile.mkdtemp(prefix="irene-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # Spark serves it from there
    path = folder / f"{secrets.token_hex(8)}-{_FILE}"
    path.write_bytes(payload)
    session.sparkContext.addFile(str(path))
    return path.name


class _one_line:
    """Turns what Spark says when a task failed for good into one line; what our own code raised keeps its words."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or not isinstance(error, Exception):
            return
        lines = [line.strip() for line in str(error).splitlines()]
        own = next((line for line in lines if line.startswith("irene_runtime.errors.")), "")
        if own:
            name, _, text = own.partition(": ")
            raise (RunError if "RunError" in name else InputError)(text) from None
        raise RunError(f"Spark gave up: {(lines or ['no reason'])[0][:200]}") from None
