"""Symbolic trees stay in the cache of the user; finding one there imports neither torch nor transformers.

A tree's key is the model's configuration, the options, and the versions of all that has a say in it, our own source
among them. Models whose code we cannot see the whole of (factories) are traced each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from irene_build.errors import IreneError
from irene_build.files import write_text_atomic
from irene_runtime.symbolic import SymbolicTree, load_any

#: Where the cache is, instead of the user's.
ENVIRONMENT = "IRENE_CACHE"
#: Files that are kept; the ones that were used longest ago go first. A file takes some 15 kB.
MAX_FILES = 1_000
_PACKAGES = ("irene-build", "torch", "transformers")


def cache_folder() -> Path:
    """The folder of cached trees (it may not exist)."""
    own = os.environ.get(ENVIRONMENT)
    if own:
        return Path(own) / "trees"
    from platformdirs import user_cache_path

    return Path(user_cache_path("irene-build", appauthor=False)) / "trees"


def tree_of_every_size(
    model: str,
    phases: Sequence[str] = (),
    dtype: str | None = None,
    attention: str = "sdpa",
    weights: str | None = None,
    all_logits: bool = False,
    use_cache: bool = True,
    before: Callable[[], None] = lambda: None,
) -> SymbolicTree:
    """What ``trace_symbolic`` gives, from the cache where it is there; ``before``: called where it is traced.

    Raises ModelError.
    """
    options = {"dtype": dtype, "attention": attention, "weights": weights, "all_logits": all_logits}
    identity = identity_of(model) if use_cache else None
    path = None
    if identity is not None:
        path = cache_folder() / f"{_key(identity, list(phases), options)}.json"
        if (found := _kept(path)) is not None:
            return found
    from .symbolic import dumps, trace_symbolic

    tree = trace_symbolic(model, phases, before=before, **options)  # type: ignore[arg-type]
    if path is not None:
        # A cache that cannot be written costs time and nothing else.
        with contextlib.suppress(IreneError, OSError):
            write_text_atomic(path, dumps(tree))
            _bound(path.parent)
    return tree


def _kept(path: Path) -> SymbolicTree | None:
    """A tree of the cache; a file that is damaged counts as none."""
    if not path.is_file():
        return None
    try:
        found = load_any(str(path))
    except IreneError:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return found if isinstance(found, SymbolicTree) else None


def identity_of(model: str) -> Any:
    """What a model's name stands for, as JSON; None where that cannot be told without running code."""
    from irene_build.models.specs import architectures

    entry = architectures().get(model) or architectures().get(model.rpartition("/")[2])
    if entry is not None:
        return [model, entry]
    path = Path(model)
    file = path / "config.json" if path.is_dir() else path
    if file.is_file():
        return [str(model), hashlib.sha256(file.read_bytes()).hexdigest()]
    if "/" in model and ":" not in model:
        return _of_hub(model)
    return None


def _of_hub(name: str) -> Any:
    """A model of the hub whose configuration is on this machine."""
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "config.json")
    except (ImportError, ValueError):
        return None
    return [name, hashlib.sha256(Path(found).read_bytes()).hexdigest()] if isinstance(found, str) else None


def _key(identity: Any, phases: list[str], options: dict[str, Any]) -> str:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    text = json.dumps([identity, phases, options, versions, _own_source()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@cache
def _own_source() -> str:
    """Size and time of every source file that has a say in a tree: a development version has no number of its own."""
    import irene_build
    import irene_runtime

    found = hashlib.sha256()
    here = Path(irene_build.__file__).parent
    for folder in (here / "trace", here / "models", Path(irene_runtime.__file__).parent):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.toml")]):
            stat = path.stat()
            found.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _bound(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[: max(0, len(files) - MAX_FILES)]:
        path.unlink(missing_ok=True)
