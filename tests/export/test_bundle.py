"""A bundle: the same estimator gives the same bytes, everything in it names one digest, and nothing is overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from irene_build.errors import EstimatorError, InputError, ParityError
from irene_build.export import backends
from irene_build.export import bundle as bundles
from irene_build.export.bundle import export
from irene_build.export.manifest import check_manifest, load_manifest
from irene_build.export.samples import attention_of
from irene_build.export.verify import constants_of, open_bundle, verify_bundle
from irene_runtime.equations import estimator_digest
from tests.export import examples


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_holds_what_the_design_says(bundle: Path) -> None:
    assert set(files(bundle)) == {
        "irene_estimator.onnx", "irene_estimator.py", "manifest.json", "README.md", "trees/tree-0.json",
    }  # fmt: skip


def test_one_digest_in_graph_module_and_manifest(bundle: Path, estimator: dict[str, Any]) -> None:
    manifest, constants, graph = open_bundle(bundle)
    digest = estimator_digest(estimator)
    assert manifest["digest"] == constants["DIGEST"] == graph.metadata["irene.digest"] == digest
    assert constants["ESTIMATOR"] == estimator
    assert json.loads(graph.metadata["irene.manifest"]) == {k: v for k, v in manifest.items() if k != "files"}


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_the_same_estimator_gives_the_same_bytes(
    bundle: Path, estimator: dict[str, Any], tmp_path: Path, seed: str, repository: Path
) -> None:
    """In another process, under another hash seed, from a file whose keys stand in another order."""
    source = tmp_path / "estimator.json"
    source.write_text(json.dumps(dict(reversed(estimator.items()))), encoding="utf-8")
    code = (
        "import json, sys; from pathlib import Path\n"
        "from irene_build.export import bundle; from tests.export import examples\n"
        "data = json.loads(Path(sys.argv[1]).read_text()); folder = Path(sys.argv[2]); folder.mkdir()\n"
        "bundle._write(data, folder, examples.trees(data))"
    )
    out = tmp_path / "again"
    subprocess.run(
        [sys.executable, "-c", code, str(source), str(out)], check=True, cwd=repository,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{repository}:{repository / 'runtime'}"},
    )  # fmt: skip
    assert files(out) == files(bundle)


def test_the_manifest_follows_its_schema(bundle: Path, repository: Path) -> None:
    schema = json.loads(
        (repository / "irene_build" / "schemas" / "manifest.schema.json").read_text(encoding="utf-8")
    )
    manifest = load_manifest(bundle)
    jsonschema.validate(manifest, schema)
    for key in schema["required"]:
        broken = {k: v for k, v in manifest.items() if k != key}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)
        if key != "files":  # checked by load_manifest, since the graph's copy has none
            with pytest.raises(EstimatorError):
                check_manifest(broken, "m")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "newer than 1"),
        ({"version": True}, "whole number"),
        ({"version": "1"}, "whole number"),
        ({"format": "other"}, "not a manifest"),
        ({"digest": "12"}, "64 hexadecimal"),
        ({"tiers": ["best"]}, "some of static"),
        ({"ranges": []}, "expected dict"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(bundle: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(EstimatorError, match=says):
        check_manifest({**load_manifest(bundle), **change}, "manifest.json")


def test_a_changed_file_is_refused(copied: Path) -> None:
    module = copied / "irene_estimator.py"
    module.write_text(
        module.read_text(encoding="utf-8").replace("'limit': ", "'limit': 1", 1), encoding="utf-8"
    )
    with pytest.raises(EstimatorError, match=r"irene_estimator\.py was changed after the export"):
        open_bundle(copied)


def test_parts_of_two_estimators_are_refused(copied: Path, tmp_path: Path) -> None:
    """Even where somebody made the hashes fit."""
    other = tmp_path / "other"
    other.mkdir()
    data = examples.estimator(examples.PAPER)
    bundles._write(data, other, {})
    (copied / "irene_estimator.onnx").write_bytes((other / "irene_estimator.onnx").read_bytes())
    manifest = load_manifest(copied)
    manifest["files"]["irene_estimator.onnx"] = load_manifest(other)["files"]["irene_estimator.onnx"]
    (copied / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(EstimatorError, match="different estimators"):
        open_bundle(copied)


@pytest.mark.parametrize(
    "name", ["irene_estimator.onnx", "irene_estimator.py", "manifest.json", "trees/tree-0.json"]
)
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(EstimatorError, match=Path(name).name.replace(".", r"\.")):
        verify_bundle(copied)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "irene-bundle"}', "null", "9" * 9000, "[" * 9000]
)
def test_a_manifest_that_is_none(copied: Path, text: str) -> None:
    (copied / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(EstimatorError):
        open_bundle(copied)


def test_a_manifest_that_leads_out_of_the_bundle_is_refused(copied: Path) -> None:
    manifest = load_manifest(copied)
    manifest["files"]["../../etc/passwd"] = {"bytes": 1, "sha256": "0" * 64}
    (copied / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(EstimatorError, match="leads out"):
        open_bundle(copied)


def test_reading_constants_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "irene_estimator.py"
    path.write_text("import os\nESTIMATOR = os.abort()\nDIGEST = ''\nGOLDEN = []\n", encoding="utf-8")
    with pytest.raises(EstimatorError, match="not a plain constant"):
        constants_of(path)


@pytest.fixture
def small() -> dict[str, Any]:
    return examples.estimator(examples.PAPER)


def quick(data: dict[str, Any], out: Path, force: bool = False) -> bundles.Exported:
    return export(data, out, {}, force)


def test_a_folder_that_is_not_ours_is_left_alone(small: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a bundle of ours"):
        quick(small, out)
    assert files(out) == {"thesis.txt": b"years of work"}
    quick(small, out, force=True)
    assert (out / "thesis.txt").read_text() == "years of work"
    verify_bundle(out)


def test_a_file_is_no_folder(small: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        quick(small, tmp_path / "out")


def test_our_own_folder_is_replaced_whole(copied: Path, small: dict[str, Any]) -> None:
    (copied / "__pycache__").mkdir()
    (copied / "__pycache__" / "x.pyc").write_bytes(b"x")
    quick(small, copied)
    assert load_manifest(copied)["digest"] == estimator_digest(small)
    assert not (copied / "trees").exists()
    assert not [p for p in copied.parent.iterdir() if p.name.startswith(".out")]


def test_engines_that_disagree_leave_the_old_bundle(
    copied: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(copied)
    real = backends.OnnxRuntime.run_arrays

    def off(self: Any, arrays: Any, tier: str) -> Any:
        out = real(self, arrays, tier)
        return {**out, "energy": out["energy"] * (1 + 1e-11)}

    monkeypatch.setattr(backends.OnnxRuntime, "run_arrays", off)
    with pytest.raises(ParityError, match="onnxruntime disagrees"):
        quick(small, copied)
    assert files(copied) == before
    assert not [p for p in copied.parent.iterdir() if p.name.startswith(".out")]


def test_a_tree_that_cannot_be_predicted_is_left_out_and_named(small: dict[str, Any], tmp_path: Path) -> None:
    tree = next(iter(examples.trees(small).values()))
    tree.header["cost_model"] = "irene2021"
    done = export(small, tmp_path / "out", {"foreign.json": tree})
    assert "cost model" in done.left_out["foreign.json"]
    assert not (tmp_path / "out" / "trees").exists()


def test_simulated_is_written_across_everything(small: dict[str, Any], tmp_path: Path) -> None:
    assert small["provenance"] == "simulated"
    out = tmp_path / "out"
    quick(small, out)
    manifest, _, graph = open_bundle(out)
    assert "SIMULATED" in (out / "README.md").read_text(encoding="utf-8")
    assert "SIMULATED" in (out / "irene_estimator.py").read_text(encoding="utf-8").split('"""')[1]
    assert manifest["provenance"] == "simulated" and "SIMULATED" in manifest["notes"][0]
    assert graph.metadata["irene.provenance"] == "simulated"
    assert "SIMULATED" in graph.session.get_modelmeta().description
    info = subprocess.run(
        [sys.executable, "-I", "-S", str(out / "irene_estimator.py"), "info"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "SIMULATED" in info.stdout


def test_its_readme_traces_as_predict_does(bundle: Path) -> None:
    """The command of the README and `predict` by name ask the same question: one attention."""
    text = (bundle / "README.md").read_text(encoding="utf-8")
    manifest = load_manifest(bundle)
    assert (
        f"--cost-model {manifest['cost_model']} --attention {attention_of(manifest['attention'])} -o" in text
    )


def test_measured_is_not_called_simulated(bundle: Path) -> None:
    text = (bundle / "irene_estimator.py").read_text(encoding="utf-8").split('"""')[1]
    assert "SIMULATED" not in text + (bundle / "README.md").read_text(encoding="utf-8")


def test_a_module_that_is_too_large_says_so(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = quick(small, tmp_path / "out")
    size = done.sizes["irene_estimator.py"]
    assert [f"{size:,} bytes" in text for text in done.warnings] == [True] * (size > bundles.MAX_BYTES)
    monkeypatch.setattr(bundles, "MAX_BYTES", size - 1)
    assert (
        f"irene_estimator.py has {size:,} bytes, more than {size - 1:,}"
        in quick(small, tmp_path / "out").warnings[0]
    )
    monkeypatch.setattr(bundles, "MAX_BYTES", size)
    assert quick(small, tmp_path / "out").warnings == []
