"""Proof that a bundle is what it says: one digest everywhere, and every engine within the parity bound.

``verify_bundle`` reads nothing but the folder, and believes none of it: the estimator comes out of the module's text as
a literal, and the module is run, in a process of its own, only where it is to the last character what this irene-build
writes for these constants.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irene_build import __version__
from irene_build.errors import EstimatorError, ParityError, TreeError
from irene_build.export import backends, oracle
from irene_build.export.arrays import without_law
from irene_build.export.builder import TIERS
from irene_build.export.manifest import FILE_NAME, canonical, load_manifest
from irene_build.export.module import render_module
from irene_build.export.parity import Deviation, compare, scales
from irene_build.export.samples import sized, with_resources
from irene_runtime.equations import EXTRAPOLATES, estimator_digest
from irene_runtime.main import golden_tree
from irene_runtime.symbolic import load_any
from irene_runtime.tree import ModelTree
from irene_runtime.unmeasured import unmeasured, widened

_MAX_MODULE_BYTES = 16 * 2**20
ONNX_NAME = "irene_estimator.onnx"
MODULE_NAME = "irene_estimator.py"


@dataclass
class Verified:
    """What was compared. ``engines``: per engine its largest deviation from the module, over ``cases`` predictions.

    ``refused``: predictions that the module would not make (a tree without what a tier needs), by reason.
    """

    folder: Path
    manifest: dict[str, Any]
    estimator: dict[str, Any]
    cases: int = 0
    nodes: int = 0
    engines: dict[str, Deviation] = field(default_factory=dict)
    selftest: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)

    @property
    def worst(self) -> Deviation:
        worst = Deviation()
        for deviation in self.engines.values():
            worst = worst.worst(deviation)
        return worst


def constants_of(path: Path) -> dict[str, Any]:
    """ESTIMATOR (written out), DIGEST, VERSION and GOLDEN of a generated module, read as literals: nothing is run.

    Raises EstimatorError.
    """
    try:
        if path.stat().st_size > _MAX_MODULE_BYTES:
            raise EstimatorError(
                f"{path} is larger than {_MAX_MODULE_BYTES >> 20} MiB: no module of irene-build is"
            )
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EstimatorError(f"{path.parent} holds no {path.name}: export it again") from None
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise EstimatorError(f"cannot read {path}: {type(error).__name__}") from None
    out: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("ESTIMATOR", "DIGEST", "VERSION", "GOLDEN"):
                try:
                    out[name] = ast.literal_eval(node.value)
                except (ValueError, TypeError, RecursionError):
                    raise EstimatorError(f"{path}: {name} is not a plain constant; export it again") from None
    missing = {"ESTIMATOR", "DIGEST", "GOLDEN"} - set(out)
    if missing:
        raise EstimatorError(f"{path}: no {', '.join(sorted(missing))}; it was not written by irene-build")
    return out


def open_bundle(folder: Path) -> tuple[dict[str, Any], dict[str, Any], backends.OnnxRuntime]:
    """Manifest, constants of the module and the graph, after checking files and digests. Raises EstimatorError."""
    manifest = load_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise EstimatorError(f"{folder / FILE_NAME}: file name {name!r} leads out of the bundle")
        if not path.is_file():
            raise EstimatorError(f"{folder} lacks {name}; export it again")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != entry["sha256"]:
            raise EstimatorError(
                f"{path} was changed after the export (sha256 {found[:12]}, manifest {entry['sha256'][:12]})"
            )
    for name in (ONNX_NAME, MODULE_NAME):
        if name not in manifest["files"]:
            raise EstimatorError(f"{folder / FILE_NAME}: files does not name {name}")
    constants = constants_of(folder / MODULE_NAME)
    graph = backends.OnnxRuntime((folder / ONNX_NAME).read_bytes())
    digests = {
        "manifest": manifest["digest"],
        "module": constants["DIGEST"],
        "module's constants": estimator_digest(constants["ESTIMATOR"]),
        "ONNX metadata": graph.metadata.get("irene.digest"),
    }
    if len(set(digests.values())) != 1:
        shown = ", ".join(f"{where} {str(digest)[:12]}" for where, digest in digests.items())
        raise EstimatorError(f"{folder}: the parts belong to different estimators ({shown}); export it again")
    embedded = graph.metadata.get("irene.manifest", "")
    if embedded != canonical({k: v for k, v in manifest.items() if k != "files"}):
        raise EstimatorError(f"{folder / ONNX_NAME}: its manifest differs from {FILE_NAME}; export it again")
    return manifest, constants, graph


def cases_of(
    folder: Path, estimator: Mapping[str, Any], golden: Mapping[str, Any]
) -> list[tuple[str, str, ModelTree]]:
    """(name, tier, tree) to compare engines on: the golden tree, and the example trees in every tier."""
    out = [
        (f"golden-{case['name']}", case["tier"], golden_tree(golden, case["times"]))
        for case in golden["cases"]
    ]
    for path in sorted((folder / "trees").glob("*.json")):
        for size, tree in sized(load_any(str(path))).items():
            measured = with_resources(tree, estimator)
            out += [
                (path.stem + size, tier, tree if tier == "static" else measured)
                for tier in TIERS
                if tier in estimator["tiers"]
            ]
    return out


def verify_bundle(folder: Path, python: Sequence[str] = (sys.executable, "-I", "-S")) -> Verified:
    """Check a bundle and compare its engines. Raises EstimatorError (it is not what it says) or ParityError."""
    import onnx

    manifest, constants, graph = open_bundle(folder)
    estimator = constants["ESTIMATOR"]
    report = Verified(folder, manifest, estimator)
    text = own_text(folder / MODULE_NAME, constants)
    model = onnx.load_model_from_string((folder / ONNX_NAME).read_bytes())  # a path could lead to other files
    onnx.checker.check_model(model, full_check=True)
    with tempfile.TemporaryDirectory() as scratch:
        module = Path(scratch) / MODULE_NAME
        module.write_text(text, encoding="utf-8")
        report.selftest = selftest(module, python)
        others = _Others(module, python, graph, backends.Reference(model), oracle.Oracle(estimator))
        for number, (name, tier, tree) in enumerate(cases_of(folder, estimator, constants["GOLDEN"])):
            path = Path(scratch) / f"{number}.json"
            tree.save(str(path))
            _compare(report, name, tier, tree, path, others)
    if not report.cases:
        raise ParityError(f"{folder}: no tree of the bundle can be predicted, nothing was compared")
    for engine, deviation in report.engines.items():
        if not deviation.agrees:
            raise ParityError(
                f"{engine} disagrees with the module: {deviation.where} is off by {deviation.absolute:.3g}, "
                f"{deviation.share:.3g} times the tolerance (16 eps x sum of |terms|)"
            )
    return report


@dataclass
class _Others:
    """The module, the Python that runs it, and what it is held against."""

    module: Path
    python: Sequence[str]
    graph: backends.OnnxRuntime
    reference: backends.Reference
    oracle: oracle.Oracle


def _compare(report: Verified, name: str, tier: str, tree: ModelTree, path: Path, others: _Others) -> None:
    estimator = report.estimator
    arrays = backends.arrays_of(estimator, tree)
    try:
        ours = backends.module(others.module, path, tier, others.python)
    except ParityError as error:
        raise ParityError(f"{name}: {error}") from None
    except TreeError as error:
        report.refused.setdefault(str(error), []).append(f"{name}, tier {tier}")
        return
    bound = scales(estimator, tier, arrays)
    raw = without_law(estimator, arrays)
    found = {
        "onnxruntime": others.graph.run_arrays(raw, tier),
        "onnx.reference": others.reference.run_arrays(raw, tier),
    }
    try:
        found["trainer"] = backends.trainer(estimator, tree, tier)
    except TreeError as error:
        raise ParityError(
            f"{name}, tier {tier}: the trainer refuses what the module predicts: {error}"
        ) from None
    leaf = found["onnxruntime"]["leaf_energy"]
    for engine, outputs in found.items():
        outputs = _of_whole_run(estimator, tree, outputs)
        both = {**ours, "leaf_energy": leaf}
        _note(report, engine, compare(outputs, both, bound, arrays["parent"], f"{name}, tier {tier}:"))
    expected = others.oracle.leaf_energies(tier, arrays)
    by_oracle = compare(
        {"leaf_energy": expected}, {"leaf_energy": leaf}, bound, arrays["parent"], f"{name}, tier {tier}:"
    )
    _note(report, "skl2onnx", by_oracle)
    report.cases += 1
    report.nodes += len(tree.nodes)


def _of_whole_run(
    estimator: Mapping[str, Any], tree: ModelTree, outputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Outputs of an engine with what a run as a whole adds: ends further apart, and a flag, where it is unmeasured."""
    wider, remarks = unmeasured(estimator, tree.header, tree.nodes[0].features)
    flags = np.asarray(outputs["flags"]) & backends.NODE_FLAGS
    found = {**outputs, "flags": flags | EXTRAPOLATES if remarks else flags}
    if wider > 0.0:
        ends = zip(outputs["energy"], outputs["low"], outputs["high"], strict=True)
        pairs = [widened(float(e), float(low), float(high), wider) for e, low, high in ends]
        found["low"], found["high"] = (np.array(side) for side in zip(*pairs, strict=True))
    return found


def _note(report: Verified, engine: str, deviation: Deviation) -> None:
    report.engines[engine] = report.engines.get(engine, Deviation()).worst(deviation)


def own_text(path: Path, constants: Mapping[str, Any]) -> str:
    """The module's text, which is what this irene-build writes for its constants: only then may it be run.

    Raises EstimatorError that names the first line that differs.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    text = render_module(constants["ESTIMATOR"], constants["DIGEST"], constants["GOLDEN"])
    own = text.splitlines()
    if lines != own:
        at = next(
            (i for i, (a, b) in enumerate(zip(lines, own, strict=False)) if a != b), min(len(lines), len(own))
        )
        raise EstimatorError(
            f"{path} is not what irene-build {__version__} writes for its constants, from line {at + 1} on, and was "
            f"not run: export it again, or verify it with version {constants.get('VERSION')!s:.20}, its own"
        )
    return text


def selftest(path: Path, python: Sequence[str]) -> list[str]:
    """What the module's own self test prints, in a separate Python. Raises ParityError where it fails."""
    done = backends.run([*python, str(path), "selftest"])
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0:
        failed = [line for line in lines if line.startswith("FAIL")] or done.stderr.strip().splitlines()[-1:]
        raise ParityError(f"{path.name} selftest fails: {'; '.join(failed) or 'no message'}")
    return lines


def a_few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def to_json(report: Verified) -> dict[str, Any]:
    """The result of ``verify --json``."""
    return {
        "format": "irene-verify", "version": 1, "ok": True, "folder": str(report.folder),
        "digest": report.manifest["digest"], "hardware": report.manifest["hardware"],
        "provenance": report.manifest["provenance"], "cases": report.cases, "nodes": report.nodes,
        "bound": "16 eps x sum of |terms|; 1e-12 relative at a root",
        "engines": {
            name: {
                "largest_absolute_j": d.absolute, "largest_relative": d.relative, "root_relative": d.root_relative,
                "share_of_bound": d.share, "where": d.where,
            }
            for name, d in report.engines.items()
        },
        "selftest": report.selftest,
        "refused": report.refused,
        "files": json.loads(json.dumps(report.manifest["files"])),
    }  # fmt: skip
