"""The Ray runner: a log in files, piece by piece (`irene-build score --runner ray`), and any Ray dataset.

Workers get the bundle through Ray's object store and write it to a file of theirs; they need irene-build with NumPy and
PyArrow, not torch. Which cluster: ``--master ray://host:10001``, or what RAY_ADDRESS says, or this machine.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irene_build.errors import InputError, IreneError, RunError
from irene_build.score.batches import Settings
from irene_build.score.parts import Task, score_piece
from irene_build.score.pieces import Piece
from irene_build.score.sources import scorer_of


def run(task: Task, pieces: Sequence[Piece], payload: bytes, master: str = "") -> None:
    """Score the pieces on a Ray cluster; every worker writes whole parts into ``task.folder``, which all must see.

    A piece whose worker dies is tried again by Ray, and gives the same part. Raises RunError.
    """
    if not pieces:
        return
    ray, ours = _started(master)
    kept = ray.put(payload)

    def work(batch: Any) -> Any:
        scorer = scorer_of(_file(kept), task.settings)
        for index in batch.column("id").to_pylist():
            score_piece(task, pieces[index], scorer)
        return batch

    try:
        blocks = min(len(pieces), 200)
        numbers = ray.data.range(len(pieces), override_num_blocks=blocks)
        done = numbers.map_batches(work, batch_format="pyarrow", batch_size=1, zero_copy_batch=True).count()
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, IreneError):
            raise cause from None
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RunError(f"Ray gave up: {(lines or ['no reason'])[-1][:200]}") from None
    finally:
        if ours:
            ray.shutdown()
    if done != len(pieces):
        raise RunError(f"Ray returned {done} of {len(pieces)} pieces: run the same command again")


def scored(dataset: Any, payload: bytes, settings: Settings) -> Any:
    """A Ray dataset of requests with the columns of ``batches.ADDED`` and ``REJECTED``; lazy, nothing is dropped."""
    import pyarrow as pa
    import ray

    kept = ray.put(payload)

    def work(table: Any) -> Any:
        scorer = scorer_of(_file(kept), settings)
        return pa.Table.from_batches([scorer(batch) for batch in table.combine_chunks().to_batches()])

    return dataset.map_batches(work, batch_format="pyarrow", batch_size=None)


def _started(master: str) -> tuple[Any, bool]:
    """Ray, and whether it was started here."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("--runner ray needs Ray: pip install 'irene-build[ray]'") from None
    ours = not ray.is_initialized()
    try:
        if ours:
            ray.init(
                address=master or None, log_to_driver=False, logging_level="error", include_dashboard=False
            )
    except Exception as error:  # Ray raises a bare one where a node does not come up in time
        raise RunError(f"Ray does not start: {str(error).splitlines()[0][:160]}") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray, ours


def _file(kept: Any) -> Path:
    """The payload as a file of this worker's machine, written once."""
    import ray

    payload = ray.get(kept)
    path = Path(tempfile.gettempdir()) / f"irene-{hashlib.sha256(payload).hexdigest()[:16]}.zip"
    if not path.is_file() or path.read_bytes() != payload:
        from irene_build.files import write_bytes_atomic

        write_bytes_atomic(path, payload)
    return path
