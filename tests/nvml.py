"""The fixture ``fake_nvml``: the real ``pynvml`` bound to a small C library with NVML's interface.

Import the fixtures into a folder's ``conftest.py`` (``from tests.nvml import fake_nvml, nvml_library``). In
this process ``pynvml`` is bound to the library for one test; for a child process pass
``env=fake_nvml.environment()``.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_SOURCE = Path(__file__).resolve().parent / "nvml_fake" / "nvml.c"


class FakeNvml:
    """A GPU under a test's control. Keys of ``set`` are those of ``load`` in nvml.c, numbers all of them."""

    def __init__(self, library: Path, state: Path) -> None:
        self.library, self.state = library, state
        self._values: dict[str, float] = {}
        self._write()

    def set(self, **values: float) -> None:
        self._values.update(values)
        self._write()

    def _write(self) -> None:
        text = "".join(f"{key} {value!r}\n" for key, value in self._values.items())
        # Replaced in one step: the library reads the file at every call.
        fresh = self.state.with_suffix(".new")
        fresh.write_text(text, encoding="ascii")
        fresh.replace(self.state)

    def environment(self) -> dict[str, str]:
        """Variables of a process whose own ``pynvml`` loads this library."""
        folders = [str(self.library.parent), os.environ.get("LD_LIBRARY_PATH", "")]
        return {
            **os.environ,
            "LD_LIBRARY_PATH": ":".join(f for f in folders if f),
            "NVML_FAKE_STATE": str(self.state),
        }


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libnvidia-ml.so.1 of a GPU that is not there; skips where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for NVML")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(_SOURCE)],
        check=True,
    )
    return library


@pytest.fixture
def fake_nvml(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """``pynvml`` in this process talks to a copy of the stand-in, whose counters start afresh."""
    import pynvml

    copy = tmp_path / "nvml" / nvml_library.name
    copy.parent.mkdir()
    shutil.copy(nvml_library, copy)
    fake = FakeNvml(copy, tmp_path / "nvml" / "state")
    monkeypatch.setenv("NVML_FAKE_STATE", str(fake.state))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(copy)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    yield fake
