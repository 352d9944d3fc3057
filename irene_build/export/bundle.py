"""Writes a bundle: everything into a folder beside the target, checked there, then moved into place.

Nothing is replaced before every engine has agreed; a folder that is not ours is never touched.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irene_build.errors import EstimatorError, InputError, TreeError
from irene_build.export import manifest as manifests
from irene_build.export.graph import build_model
from irene_build.export.module import MAX_BYTES, render_module, render_readme
from irene_build.export.samples import example_trees, golden, sized, text_of, with_resources
from irene_build.export.verify import MODULE_NAME, ONNX_NAME, Verified, verify_bundle
from irene_build.files import check_writable, write_bytes_atomic, write_folder_atomic
from irene_runtime.model import Estimator
from irene_runtime.symbolic import SymbolicTree
from irene_runtime.tree import ModelTree

#: A tree of one size, or of every size.
AnyTree = ModelTree | SymbolicTree
#: What Python leaves beside a module that was imported.
_IGNORED = {"__pycache__"}


@dataclass
class Exported:
    """A bundle that was written. ``sizes``: bytes of every file by its name in the folder.

    ``left_out``: example trees that this estimator cannot predict, with the reason. ``warnings``: what is not as it
    should be, though right.
    """

    folder: Path
    manifest: dict[str, Any]
    sizes: dict[str, int]
    verified: Verified
    left_out: dict[str, str]
    warnings: list[str]


def export(
    estimator: Mapping[str, Any], out: Path, trees: Mapping[str, AnyTree] | None = None, force: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:  # fmt: skip
    """Compile an estimator (train/FORMAT.md) into the bundle ``out``.

    ``trees``: example trees by file name (default: real models, traced now). ``force`` also writes into a folder
    that holds other files, and leaves those alone. ``say`` is told what takes seconds. Raises InputError where the
    folder is not ours, ParityError where backends disagree; then nothing was written.
    """
    out = out.absolute()
    owned = _check_target(out, force)
    check_writable(out)
    if trees is None:
        say("tracing example trees")
    chosen, left_out = _predictable(estimator, example_trees(estimator) if trees is None else trees)
    if owned:
        with write_folder_atomic(out) as staging:
            manifest = _write(estimator, staging, chosen)
            say("comparing backends")
            verified = verify_bundle(staging)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            manifest = _write(estimator, Path(scratch), chosen)
            verified = verify_bundle(Path(scratch))
            for name in [
                *manifest["files"],
                manifests.FILE_NAME,
            ]:  # the manifest last: it tells of the others
                write_bytes_atomic(out / name, (Path(scratch) / name).read_bytes())
    verified.folder = out
    sizes = {name: (out / name).stat().st_size for name in [*manifest["files"], manifests.FILE_NAME]}
    warnings = []
    if sizes[MODULE_NAME] > MAX_BYTES:
        warnings.append(
            f"{MODULE_NAME} has {sizes[MODULE_NAME]:,} bytes, more than {MAX_BYTES:,}: its constants are many"
        )
    return Exported(out, manifest, sizes, verified, left_out, warnings)


def _predictable(
    estimator: Mapping[str, Any], trees: Mapping[str, AnyTree]
) -> tuple[dict[str, AnyTree], dict[str, str]]:
    """The trees that can be predicted in some tier once resource features are there, and why others cannot."""
    runtime = Estimator(estimator)
    reasons = {
        name: _refusal(runtime, [with_resources(one, estimator) for one in sized(tree).values()])
        for name, tree in trees.items()
    }
    left_out = {name: reason for name, reason in reasons.items() if reason}
    return {name: tree for name, tree in trees.items() if name not in left_out}, left_out


def _refusal(runtime: Estimator, sizes: list[ModelTree]) -> str:
    """Why a tree cannot be predicted at any of its sizes; empty where it can."""
    reason = ""
    for tree in sizes:
        reason = _refused(runtime, tree)
        if not reason:
            break
    return reason


def _refused(runtime: Estimator, tree: ModelTree) -> str:
    try:
        runtime.predict(tree)
    except TreeError as error:
        return str(error)
    return ""


def _check_target(out: Path, force: bool) -> bool:
    """Whether the whole folder may be replaced: it is not there, empty, or holds a bundle and nothing else."""
    if not out.exists():
        return True
    if not out.is_dir():
        raise InputError(f"{out} is a file; export writes a folder")
    present = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file() and not _IGNORED & set(p.parts)}
    if not present:
        return True
    try:
        known = set(manifests.load_manifest(out)["files"]) | {manifests.FILE_NAME}
    except EstimatorError:
        known = set()
    foreign = sorted(present - known)
    if known and not foreign:
        return True
    if force:
        return False
    shown = ", ".join(foreign[:3]) + (" ..." if len(foreign) > 3 else "")
    if known:
        raise InputError(
            f"{out} holds files that are not the bundle's ({shown}): move them, or use --force to keep them"
        )
    raise InputError(
        f"{out} is not empty and not a bundle of ours ({shown}): choose another folder, or use --force"
    )


def _write(estimator: Mapping[str, Any], folder: Path, trees: Mapping[str, AnyTree]) -> dict[str, Any]:
    """All files of the bundle; returns the manifest with their hashes."""
    # In canonical order, so that the order of keys in the estimator's file leaves no trace.
    estimator = json.loads(manifests.canonical(estimator))
    manifest = manifests.manifest_of(estimator)
    model = build_model(
        estimator,
        {
            "irene.digest": manifest["digest"],
            "irene.manifest": manifests.canonical(manifest),
            "irene.provenance": manifest["provenance"],
        },
    )
    files: dict[str, bytes] = {
        ONNX_NAME: model.SerializeToString(deterministic=True),
        MODULE_NAME: render_module(estimator, manifest["digest"], golden(estimator)).encode("utf-8"),
    }
    files |= {f"trees/{name}": text_of(tree).encode("utf-8") for name, tree in trees.items()}
    files["README.md"] = render_readme(manifest, sorted(files)).encode("utf-8")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    manifest["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(files.items())
    }
    (folder / manifests.FILE_NAME).write_text(manifests.dumps(manifest), encoding="utf-8")
    return manifest
