"""A disk that fills up and a journal that another process has locked, under a campaign that runs."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.measure.rig import STARVED, Feeder, Rig, labels_are_true, relabels_to_the_bit, rows, trials
from tests.measure.wires import Line

_LOCK = (
    "import sqlite3, sys\n"
    "base = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    "base.execute('BEGIN IMMEDIATE')\n"
    "print('locked', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 1 MiB, or None where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    """A file that takes all the space there is."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        for size in (4096, 1):
            with suppress(OSError):
                while filler.write(bytes(size)):
                    pass


def test_a_full_disk_stops_with_advice_and_loses_nothing(
    line: Line, make_rig: Callable[..., Rig], small_disk: Path | None, tmp_path: Path
) -> None:
    folder = tmp_path / "file" if small_disk is None else small_disk
    rig = make_rig(line.meter(), held=[2])
    with Feeder(rig.curve, line.frame):
        rig.start(journal=str(folder / "campaign.sqlite"))
        with rig.at(2) as process:
            before = rows(rig, "SELECT * FROM trial ORDER BY id")
            if small_disk is not None:
                fill(small_disk)
            else:
                # Who is not root can still not be given more than a file of this size.
                size = rig.path.with_name(rig.path.name + "-wal").stat().st_size + 4096
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
        said = rig.fails()
        assert "MeasurementError" in said and "every finished trial is safe" in said
        assert small_disk is None or "full" in said
        (folder / "filler").unlink(missing_ok=True)
        rig.start(held=[])
        rig.finish()
    assert len(before) == 2 and rows(rig, "SELECT * FROM trial ORDER BY id")[:2] == before
    labels_are_true(rig)
    relabels_to_the_bit(rig)
    assert [file.name for file in folder.iterdir()] == ["campaign.sqlite"]


def locked(rig: Rig) -> subprocess.Popen[bytes]:
    """Another process that holds the journal until its stdin ends."""
    holder = subprocess.Popen(
        [sys.executable, "-I", "-c", _LOCK, str(rig.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
    return holder


def test_a_locked_file_is_waited_for_and_then_given_up_with_advice(
    line: Line, make_rig: Callable[..., Rig]
) -> None:
    rig = make_rig(line.meter(), held=[0, 2], busy_timeout_s=1.0)
    with Feeder(rig.curve, line.frame) as feeder:
        rig.start()
        with rig.at(0):
            holder = locked(rig)
        feeder.wait(15)
        holder.communicate()
        with rig.at(2):
            before = rows(rig, "SELECT * FROM trial ORDER BY id")
            holder = locked(rig)
        said = rig.fails()
        assert "locked" in said and "close the program that holds it" in said
        holder.communicate()
        rig.start(held=[])
        rig.finish()
    assert len(before) == 2 and rows(rig, "SELECT * FROM trial ORDER BY id")[:2] == before
    assert not {reason for *_, why in trials(rig) for reason in why} - STARVED
    labels_are_true(rig)
    relabels_to_the_bit(rig)
