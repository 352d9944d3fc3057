"""What tables are filled from: a bundle's estimator on symbolic trees, and both as one file for workers.

Needs NumPy and the runtime; neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irene_build import __version__
from irene_build.errors import InputError, TreeError
from irene_build.score.batches import Scorer, Settings
from irene_build.score.loaded import Loaded
from irene_build.score.tables import FIRST_SIZES, GOLDEN, TOLERANCE
from irene_runtime.equations import EXTRAPOLATES
from irene_runtime.generation import Generation

if TYPE_CHECKING:
    from irene_runtime.model import Estimator

_MODULE, _MANIFEST = "irene_estimator.py", "manifest.json"


class TreeSource:
    """Passes of one symbolic tree on one estimator, as ``Estimator.request`` evaluates them: static tier.

    Raises TreeError where the tree holds no requests (no decode steps, another cost model).
    """

    def __init__(self, estimator: Estimator, tree: Any, content: bytes) -> None:
        estimator.request(tree, 2, 2)
        self._estimator, self._tree = estimator, tree
        text = f"{estimator.digest} {__version__} {TOLERANCE} {FIRST_SIZES} {GOLDEN} ".encode()
        self.key = hashlib.sha256(text + content).hexdigest()[:32]
        dtypes = (estimator.data.get("trained_on") or {}).get("dtypes") or [tree.header["dtype"]]
        self._flags = 0 if tree.header["dtype"] in dtypes else EXTRAPOLATES

    def passes(self, phase: str, tokens: np.ndarray, batch_size: int) -> np.ndarray:
        """As ``tables.EnergySource``. Seconds are NaN where the estimator predicts none, all is where the tree ends."""
        out = np.empty((len(tokens), 5))
        steps = Generation(self._estimator, self._tree)  # a new one each time: it keeps all steps
        for row, count in enumerate(tokens.tolist()):
            size = (count, 0) if phase == "prefill" else (1, count)
            try:
                values = steps.step(phase, batch_size, *size)[2]
            except TreeError:  # more than the model takes
                out[row] = math.nan, math.nan, math.nan, math.nan, 0.0
                continue
            time_s = math.nan if values.time_s is None else values.time_s
            flags = values.flags | self._flags
            out[row] = values.energy_j[0], values.low_j[0], values.high_j[0], time_s, flags
        return out


def tables_folder() -> Path:
    """Where tables are kept: ``IRENE_CACHE``, or irene-build in the user's cache (``XDG_CACHE_HOME``, ~/.cache)."""
    own = os.environ.get("IRENE_CACHE")
    if own:
        return Path(own) / "tables"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irene-build" / "tables"


def load(bundle: Path, trees: Sequence[str]) -> Loaded:
    """A bundle with the symbolic trees that lie in it and those of ``trees`` (files and folders; ``NAME=FILE`` names
    the model). Raises EstimatorError, TreeError, InputError."""
    from irene_build.export.load import load_bundle

    estimator, manifest = load_bundle(bundle)
    found: dict[str, tuple[Path, TreeSource]] = {}
    for path in sorted((bundle / "trees").glob("*.json")):
        _take(found, "", path, estimator, quiet=True)
    for text in trees:
        name, equals, rest = text.partition("=")
        path = Path(rest if equals and not Path(text).exists() else text)
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"--tree {path}: the folder holds no tree file")
        for one in inside:
            _take(found, name if equals and rest == str(path) else "", one, estimator, quiet=path.is_dir())
    if not found:
        raise InputError(
            "no symbolic tree: `irene-build trace MODEL --symbolic -o FILE` makes one, --tree FILE adds it"
        )
    about = {key: str(manifest[key]) for key in ("hardware", "boundary", "provenance", "method", "digest")}
    sources = {name: source for name, (_, source) in found.items()}
    paths = {name: path for name, (path, _) in found.items()}
    return Loaded(sources, estimator.digest, about, _packed(bundle, paths), tables_folder())


def _take(
    found: dict[str, tuple[Path, TreeSource]], name: str, path: Path, estimator: Estimator, quiet: bool
) -> None:
    """Add a symbolic tree under its model's name. ``quiet``: pass over files that are none, or hold no requests."""
    try:
        tree: Any = estimator.load_tree(str(path))
        if not hasattr(tree, "at"):
            raise TreeError(
                f"{path} is a tree of one size: `irene-build trace MODEL --symbolic -o FILE` makes one of every size"
            )
        found[name or str(tree.header["model"])] = path, TreeSource(estimator, tree, path.read_bytes())
    except TreeError:
        if not quiet:
            raise


def _packed(bundle: Path, trees: Mapping[str, Path]) -> bytes:
    """The bundle's module and manifest, and the trees, as the bytes of a zip file; the same for the same contents."""
    out = io.BytesIO()
    names = {f"{number}.json": name for number, name in enumerate(trees)}
    content: dict[str, bytes] = {name: (bundle / name).read_bytes() for name in (_MODULE, _MANIFEST)}
    content["models.json"] = json.dumps(names).encode()
    for file, name in names.items():
        content[file] = trees[name].read_bytes()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file_:
        for name, data in content.items():
            file_.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def unpacked(payload: Path) -> Loaded:
    """What ``Loaded.payload`` was made of, from its file."""
    from irene_build.export.load import load_bundle

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(payload) as packed:
        packed.extractall(folder)
        estimator, manifest = load_bundle(Path(folder))
        names = json.loads((Path(folder) / "models.json").read_text(encoding="utf-8"))
        sources = {}
        for file, name in names.items():
            path = Path(folder) / file
            sources[name] = TreeSource(estimator, estimator.load_tree(str(path)), path.read_bytes())
    return Loaded(sources, str(manifest["digest"]), store=tables_folder())


_SCORERS: dict[tuple[str, str], Scorer] = {}


def scorer_of(path: Path, settings: Settings) -> Scorer:
    """The scorer of a payload file, made once a process: its tables are what a worker gathers."""
    key = (str(path), json.dumps(asdict(settings), sort_keys=True))
    if key not in _SCORERS:
        found = unpacked(path)
        _SCORERS[key] = Scorer(found.sources, found.digest, settings, found.store)
    return _SCORERS[key]
