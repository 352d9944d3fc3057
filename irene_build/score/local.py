"""The local runner: threads over the pieces of a log (Arrow and NumPy work outside of Python's lock)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from irene_build.score.batches import Scorer
from irene_build.score.parts import Task, score_piece
from irene_build.score.pieces import Piece


def run(
    task: Task, pieces: Sequence[Piece], scorer: Scorer, workers: int, done: Callable[[Piece], None]
) -> None:
    """Score all pieces that do not stand yet; ``done`` is told each. The first error ends it, and is raised."""
    stop = threading.Event()
    left = iter(pieces)
    running: dict[Future[None], Piece] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                for piece in left:
                    running[pool.submit(score_piece, task, piece, scorer, stop)] = piece
                    if len(running) > workers:
                        break
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    piece = running.pop(future)
                    future.result()
                    done(piece)
        except BaseException:
            stop.set()
            for future in running:
                future.cancel()
            raise
