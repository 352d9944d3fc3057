"""What tables are filled from: a bundle's estimator on symbolic trees, and both as one file for workers.

Needs NumPy and the runtime; neither torch nor transformers.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irene_build.errors import InputError, TreeError
from irene_build.score.batches import Scorer, Settings
from irene_build.score.run import Loaded
from irene_runtime.equations import FLAGS

if TYPE_CHECKING:
    from irene_runtime.model import Estimator

_MODULE, _MANIFEST = "irene_estimator.py", "manifest.json"


class TreeSource:
    """Passes of one symbolic tree on one estimator, in the static tier."""

    def __init__(self, estimator: Estimator, tree: Any) -> None:
        self._estimator, self._tree = estimator, tree

    def passes(self, phase: str, tokens: np.ndarray, batch_size: int) -> np.ndarray:
        """As ``tables.EnergySource``. Seconds are NaN where the estimator predicts none, all is where the tree ends."""
        out = np.empty((len(tokens), 5))
        for row, count in enumerate(tokens.tolist()):
            seq_len, past_len = (count, 0) if phase == "prefill" else (1, count)
            try:
                tree = self._tree.at(batch_size=batch_size, seq_len=seq_len, past_len=past_len, phase=phase)
            except TreeError:  # more than the model takes
                out[row] = math.nan, math.nan, math.nan, math.nan, 0.0
                continue
            p = self._estimator.predict(tree, tier="static")
            time_s = getattr(p, "time_s", None)
            out[row] = (p.energy_j, *p.interval_j, math.nan if time_s is None else time_s, _bits(p.flags))
        return out


def _bits(flags: Sequence[str]) -> int:
    return sum(bit for bit, name in FLAGS.items() if name in flags)


def load(bundle: Path, trees: Sequence[str]) -> Loaded:
    """A bundle with the symbolic trees that lie in it and those of ``trees`` (files and folders; ``NAME=FILE`` names
    the model). Raises EstimatorError, TreeError, InputError."""
    from irene_build.export.load import load_bundle

    estimator, manifest = load_bundle(bundle)
    found: dict[str, Path] = {}
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
    sources = {name: TreeSource(estimator, estimator.load_tree(str(path))) for name, path in found.items()}
    return Loaded(sources, estimator.digest, about, _packed(bundle, found))


def _take(found: dict[str, Path], name: str, path: Path, estimator: Estimator, quiet: bool) -> None:
    """Add a symbolic tree under its model's name. ``quiet``: pass over trees of one size."""
    try:
        tree: Any = estimator.load_tree(str(path))
    except TreeError:
        if quiet:
            return
        raise
    if not hasattr(tree, "at"):
        if quiet:
            return
        raise InputError(
            f"{path} is a tree of one size: `irene-build trace MODEL --symbolic -o FILE` makes one of every size"
        )
    if tree.header["cost_model"] != estimator.cost_model:
        if quiet:
            return
        raise InputError(
            f"{path} was traced under the cost model {tree.header['cost_model']}, the estimator wants "
            f"{estimator.cost_model}: trace it with --cost-model {estimator.cost_model}"
        )
    found[name or str(tree.header["model"])] = path


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


def unpacked(path: Path) -> Loaded:
    """What ``Loaded.payload`` was made of, from its file."""
    from irene_build.export.load import load_bundle

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as packed:
        packed.extractall(folder)
        estimator, manifest = load_bundle(Path(folder))
        names = json.loads((Path(folder) / "models.json").read_text(encoding="utf-8"))
        sources = {
            name: TreeSource(estimator, estimator.load_tree(str(Path(folder) / file)))
            for file, name in names.items()
        }
    return Loaded(sources, str(manifest["digest"]))


_SCORERS: dict[tuple[str, str], Scorer] = {}


def scorer_of(path: Path, settings: Settings) -> Scorer:
    """The scorer of a payload file, made once a process: its tables are what a worker gathers."""
    key = (str(path), json.dumps(asdict(settings), sort_keys=True))
    if key not in _SCORERS:
        found = unpacked(path)
        _SCORERS[key] = Scorer(found.sources, found.digest, settings)
    return _SCORERS[key]
