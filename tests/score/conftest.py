"""Tables are kept in a folder of the tests, and never in the user's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRENE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
