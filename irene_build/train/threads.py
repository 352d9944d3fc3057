"""Fits work on small matrices: threads cost them more than they give, and sums would depend on how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread: as fast on a busy machine, and the same bits on every number of cores."""
    import numpy  # noqa: F401  (a limit holds for the libraries that are loaded)
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
