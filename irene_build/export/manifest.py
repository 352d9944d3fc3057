"""The manifest: what a bundle is, in one JSON file that is checked when it is read.

``irene_build/schemas/manifest.schema.json`` is its schema; a test holds the two together. To change the format:
raise ``VERSION``, keep reading the older ones, add a bundle of the older version to the tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irene_build import __version__
from irene_build.errors import EstimatorError
from irene_build.export.builder import TIERS
from irene_build.export.functions import OPSET
from irene_build.export.graph import IR_VERSION
from irene_build.export.law_graph import graph_features
from irene_build.export.tables import resolved
from irene_runtime.equations import estimator_digest
from irene_runtime.features import FEATURES

FORMAT = "irene-bundle"
VERSION = 1
FILE_NAME = "manifest.json"
LICENCE = "Apache-2.0"
_DIGITS = set("0123456789abcdef")
#: Keys that must be there, with the type of their value.
_KEYS: dict[str, type | tuple[type, ...]] = {
    "irene_build": str, "digest": str, "licence": str, "hardware": str, "boundary": str, "provenance": str,
    "label_source": str, "method": str, "cost_model": str, "attention": str, "tiers": list, "features": dict,
    "primitives": list, "ranges": dict, "evaluation": dict, "trained_on": dict, "fingerprint": dict,
    "created_by": dict, "onnx": dict, "notes": list,
}  # fmt: skip


def manifest_of(estimator: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of an estimator's bundle, without its ``files``."""
    notes = []
    if estimator["provenance"] == "simulated":
        notes.append(
            "SIMULATED: calibrated on simulated energy. Nothing that this estimator says was measured."
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        "irene_build": __version__,
        "digest": estimator_digest(estimator),
        "licence": LICENCE,
        **{key: estimator[key] for key in ("hardware", "boundary", "provenance", "label_source", "method")},
        **{key: estimator[key] for key in ("cost_model", "attention", "primitives")},
        "tiers": [tier for tier in TIERS if tier in estimator["tiers"]],
        "features": {name: FEATURES[name][1] for name in graph_features(estimator)},
        "ranges": {tier: resolved(estimator, tier).get("ranges") or {} for tier in estimator["tiers"]},
        **{
            key: estimator.get(key) or {} for key in ("evaluation", "trained_on", "fingerprint", "created_by")
        },
        "onnx": {"opset": OPSET, "ir_version": IR_VERSION},
        "notes": notes,
    }


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces: what digests and metadata are made of."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def dumps(manifest: Mapping[str, Any]) -> str:
    """The file's text."""
    return json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def check_manifest(data: Any, where: str) -> dict[str, Any]:
    """Raises EstimatorError that says which field is wrong."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise EstimatorError(f'{where}: not a manifest of irene-build (expected "format": "{FORMAT}")')
    version = data.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise EstimatorError(f"{where}: version is {version!r:.40}, expected a whole number")
    if version > VERSION:
        raise EstimatorError(
            f"{where}: manifest version {version} is newer than {VERSION}, the newest known: update irene-build"
        )
    for key, kind in _KEYS.items():
        if key not in data:
            raise EstimatorError(f"{where}: lacks {key!r}")
        if not isinstance(data[key], kind):
            raise EstimatorError(f"{where}: {key} is {type(data[key]).__name__}, expected {kind.__name__}")  # type: ignore[union-attr]
    if len(data["digest"]) != 64 or not set(data["digest"]) <= _DIGITS:
        raise EstimatorError(f"{where}: digest is {data['digest']!r:.80}, expected 64 hexadecimal digits")
    if not data["tiers"] or not set(data["tiers"]) <= set(TIERS):
        raise EstimatorError(f"{where}: tiers are {data['tiers']!r:.80}, expected some of {', '.join(TIERS)}")
    return data


def load_manifest(folder: Path) -> dict[str, Any]:
    """Read and check ``folder/manifest.json``, with its ``files``. Raises EstimatorError."""
    path = folder / FILE_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / "estimator.json").is_file():
            raise EstimatorError(
                f"{folder} holds an estimator of kernels and servers, which answers with --engine vllm; "
                "for one run without a server: --device NAME"
            ) from None
        raise EstimatorError(
            f"{folder} holds no {FILE_NAME}: `irene-build export {folder}` writes a bundle"
        ) from None
    except OSError as error:
        raise EstimatorError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise EstimatorError(f"{path}: not JSON ({type(error).__name__}: {error!s:.120})") from None
    manifest = check_manifest(data, str(path))
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in files.values()
    ):
        raise EstimatorError(f"{path}: files must map each name to its sha256 and bytes")
    return manifest
