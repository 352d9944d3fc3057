"""Files and folders that appear whole or not at all: written beside their place, then moved into it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from irene_build.errors import OutputError

#: What the disk does, whatever place is named: a failure (exit code 1), not wrong input (2).
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


def write_text_atomic(path: str | Path, text: str, parents: bool = True) -> None:
    """Write UTF-8 text. What was there stays where that fails. Raises OutputError.

    ``parents``: make the folders above it; without, a folder that is not there is an error, as it is for a file that
    a person names. Half a surrogate pair, which no encoding has, is written as its escape.
    """
    write_bytes_atomic(path, text.encode("utf-8", "backslashreplace"), parents)


def write_bytes_atomic(path: str | Path, content: bytes, parents: bool = True) -> None:
    """Write a file, as ``write_text_atomic``.

    A link is followed; a device or a pipe (``/dev/stdout``) is written to as it is.
    """
    path = Path(path)
    with _explained(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as stream:
                stream.write(content)
            return
        target = path.resolve()
        if parents:
            target.parent.mkdir(parents=True, exist_ok=True)
        part = _beside(target)
        try:
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if target.is_file():
                shutil.copymode(target, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def write_folder_atomic(path: str | Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which takes the place of ``path``, and of all in it, when the block ends.

    Where the block or the move fails, ``path`` is as it was. Raises OutputError, also for an OSError of the block
    that names a file in the folder.
    """
    target = Path(path).resolve()
    with _explained(Path(path)):
        target.parent.mkdir(parents=True, exist_ok=True)
        part, old = _beside(target), _beside(target)
        part.mkdir()
    try:
        with _explained(Path(path), within=part):
            yield part
        with _explained(Path(path)):
            if target.exists():
                target.rename(old)
            try:
                part.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def check_writable(path: str | Path) -> None:
    """Raises OutputError where a file or folder ``path`` could not be written: to be asked before long work.

    Nothing is left behind; folders that would have to be made are not made.
    """
    path = Path(path)
    with _explained(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            return
        above = path.resolve().parent
        while not above.exists():
            above = above.parent
        part = _beside(above / path.name)
        part.mkdir()
        part.rmdir()


def _beside(path: Path) -> Path:
    """A name of its own in the same folder, so that a move is a rename."""
    return path.with_name(f".{path.name[:100]}-{secrets.token_hex(6)}.part")


@contextlib.contextmanager
def _explained(path: Path, within: Path | None = None) -> Iterator[None]:
    """Turns an OSError (``within``: of a file in that folder) into an OutputError about ``path``."""
    try:
        yield
    except OSError as error:
        named = str(error.filename or "")
        if within is not None and not named.startswith(str(within)) and error.errno not in _DISK:
            raise
        raise _output_error(path, error) from None


def _output_error(path: Path, error: OSError) -> OutputError:
    above = path.absolute().parent
    reason, advice = error.strerror or str(error), "name another place"
    if error.errno in _DISK:
        advice = "make room, or name another place"
    elif path.is_dir():
        reason, advice = "it is a folder", "name a file"
    elif not all(p.is_dir() for p in above.parents if p.exists()) or (above.exists() and not above.is_dir()):
        reason = "what is above it is a file"
    elif not above.exists():
        reason = f"there is no folder {above}"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
        reason = f"{above} takes no new files ({reason})"
    found = OutputError(f"cannot write {path}: {reason}; {advice}")
    if error.errno in _DISK:
        found.exit_code = 1
    return found
