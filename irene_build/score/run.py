"""Scores the requests of a log on an estimator: from files to a folder of files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from irene_build.errors import InputError
from irene_build.score import local, overlap, parts
from irene_build.score.batches import Scorer, Settings, added_schema
from irene_build.score.columns import resolve
from irene_build.score.loaded import Loaded
from irene_build.score.logs import Log, cores, open_log
from irene_build.score.totals import Rates, check_keys

RUNNERS = ("local", "spark", "ray")


@dataclass(frozen=True)
class Options:
    """What a run of `irene-build score` was asked for. ``batch_size`` 0: by the log, its time stamps, or else 1."""

    preset: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    batch_size: float = 0.0
    max_batch: float = overlap.LIMIT
    failed: str = "prefill"
    by: tuple[str, ...] = ()
    rates: Rates = field(default_factory=Rates)
    runner: str = "local"
    master: str = ""
    workers: int = 0
    force: bool = False


def score_logs(
    loaded: Loaded, names: Sequence[str], out: Path, options: Options,
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> dict[str, Any]:  # fmt: skip
    """Score the log ``names`` into the folder ``out``; the totals, as ``_totals.json`` has them.

    ``progress`` is told the share that is done, and of what. Raises InputError and DatasetError for what is wrong with
    the log (nothing is left behind), RunError where the work fails (whole parts stay, and the next run goes on).
    """
    if options.runner not in RUNNERS:
        raise InputError(f"--runner {options.runner!r}: {', '.join(RUNNERS)}")
    out = out.absolute()
    log = open_log(names)
    if not log.pieces:
        raise InputError("the log holds no row")
    settings, source = settings_of(log, loaded, options)
    added_schema(log.schema)
    check_keys(log.schema, options.by, settings)
    scorer = Scorer(loaded.sources, loaded.digest, settings, loaded.store)
    run = {
        "digest": loaded.digest, "models": sorted(loaded.sources), "files": log.stamp, "settings": asdict(settings),
        "by": options.by, "concurrency": [source, options.max_batch],
    }  # fmt: skip
    folder = parts.open_folder(out, run, options.force)
    task = parts.Task(log.schema, settings, options.by, folder, loaded.about, source == "overlap")
    workers = options.workers or cores()
    try:
        if task.overlap and not parts.has_overlap(folder):
            with ThreadPoolExecutor(workers) as pool:
                overlap.find(
                    task,
                    log.pieces,
                    scorer,
                    pool,
                    options.max_batch,
                    lambda share: progress(share, "overlap"),
                )
        _run(task, log, scorer, loaded, options, workers, progress)
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    result = parts.finish(task, log.pieces, out, options.rates)
    return {
        **loaded.about,
        **result,
        "out": str(out),
        "columns": settings.columns.named(),
        "concurrency": source,
    }


def settings_of(log: Log, loaded: Loaded, options: Options) -> tuple[Settings, str]:
    """How the rows are read, and where their batch comes from: ``option``, ``column``, ``overlap`` or ``one``."""
    columns = resolve(log.schema, options.preset, options.columns)
    model = options.model
    if not model and not columns.model and len(loaded.sources) == 1:
        model = next(iter(loaded.sources))
    if options.batch_size:
        source, columns = "option", replace(columns, batch="")
    elif columns.batch:
        source = "column"
    elif columns.time:
        source = "overlap"
    else:
        source = "one"
    batch_size = options.batch_size or 1.0
    return Settings(columns, model, dict(options.aliases), batch_size, options.failed), source


def _run(
    task: parts.Task, log: Log, scorer: Scorer, loaded: Loaded, options: Options, workers: int,
    progress: Callable[[float, str], None],
) -> None:  # fmt: skip
    total, finished = sum(piece.size for piece in log.pieces) or 1, 0

    def done(piece: Any) -> None:
        nonlocal finished
        finished += piece.size
        progress(finished / total, "scoring")

    if options.runner == "local":
        local.run(task, log.pieces, scorer, workers, done)
        return
    left = [piece for piece in log.pieces if not task.is_done(piece.number)]
    if options.runner == "spark":
        from irene_build.score import on_spark

        on_spark.run(task, left, loaded.payload, options.master)
    else:
        from irene_build.score import on_ray

        on_ray.run(task, left, loaded.payload, options.master)
    progress(1.0, "scoring")
