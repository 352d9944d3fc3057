"""An exported bundle as an estimator, without running its module.

The constants are read out of the module's text as literals, and its hash and the digest are compared with the
manifest; what evaluates them is `irene_runtime`, the very source that the module is made of.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from irene_build.errors import EstimatorError
from irene_build.export.manifest import load_manifest
from irene_build.export.verify import MODULE_NAME, ONNX_NAME, constants_of
from irene_runtime.equations import estimator_digest
from irene_runtime.model import Estimator


def load_bundle(folder: Path, backend: str = "python") -> tuple[Estimator, dict[str, Any]]:
    """The estimator of a bundle and its manifest. ``backend``: ``python`` or ``onnx``.

    Raises EstimatorError where the folder is no bundle, or where module and manifest do not belong together.
    """
    if not folder.is_dir():
        raise EstimatorError(f"{folder} is no folder: `irene-build export {folder}` writes a bundle")
    manifest = load_manifest(folder)
    path = folder / MODULE_NAME
    constants = constants_of(path)
    entry = manifest["files"].get(MODULE_NAME, {})
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry.get("sha256"):
        raise EstimatorError(
            f"{path} is not the file that {folder / 'manifest.json'} describes: export it again"
        )
    data = constants["ESTIMATOR"]
    if not isinstance(data, dict):
        raise EstimatorError(f"{path}: ESTIMATOR is {type(data).__name__}, expected a table; export it again")
    try:
        digest = estimator_digest(data)
    except (TypeError, ValueError) as error:
        raise EstimatorError(f"{path}: ESTIMATOR is not plain data ({error})") from None
    if not digest == manifest["digest"] == constants["DIGEST"]:
        raise EstimatorError(
            f"{path}: digest {digest}, the manifest says {manifest['digest']}: export it again"
        )
    return Estimator(data, backend, str(folder / ONNX_NAME)), manifest
