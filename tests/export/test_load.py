"""A bundle as an estimator: verified, never run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irene_build.errors import EstimatorError
from irene_build.export.bundle import export
from irene_build.export.load import load_bundle
from irene_runtime.model import Estimator
from tests.runtime.examples import estimator, tree


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "out"
    export(estimator(), folder, {"net.json": tree()})
    return folder


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    for path in exported.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_both_backends_say_what_the_runtime_says(bundle: Path) -> None:
    expected = Estimator(estimator())
    for live in (None, {"latency": 0.02, "gpu_energy": 5.0}):
        want = expected.predict(tree(), live)
        for backend in ("python", "onnx"):
            loaded, manifest = load_bundle(bundle, backend)
            got = loaded.predict(tree(), live)
            assert got.about["digest"] == manifest["digest"]
            assert (got.tier, got.flags) == (want.tier, want.flags)
            for a, b in zip(got, want, strict=True):
                assert a.energy_j == pytest.approx(b.energy_j, rel=1e-14)
                assert a.interval_j == pytest.approx(b.interval_j, rel=1e-14)
                assert (a.flags, a.tier) == (b.flags, b.tier)


def test_the_module_is_not_run(bundle: Path) -> None:
    """Even code that the manifest vouches for is only read."""
    import hashlib

    module = bundle / "irene_estimator.py"
    module.write_text(f"open({str(bundle / 'ran')!r}, 'w')\n" + module.read_text())
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["irene_estimator.py"]["sha256"] = hashlib.sha256(module.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert load_bundle(bundle)[0].predict(tree()).energy_j == 15.0
    assert not (bundle / "ran").exists()


def test_a_changed_module_is_refused(bundle: Path) -> None:
    module = bundle / "irene_estimator.py"
    module.write_text(module.read_text().replace("0.5", "0.4", 1))
    with pytest.raises(EstimatorError, match=r"is not the file that .* describes"):
        load_bundle(bundle)


def test_a_manifest_of_another_estimator_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["digest"] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EstimatorError, match="the manifest says 0000"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["irene_estimator.py", "manifest.json"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(EstimatorError, match=f"holds no {name}"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(" * 5000, "cannot read"),
        ("ESTIMATOR = open('x')", "not a plain constant"),
        ("x = 1", "irene_estimator.py"),
    ],
)
def test_a_module_that_is_none(bundle: Path, text: str, message: str) -> None:
    (bundle / "irene_estimator.py").write_text(text)
    with pytest.raises(EstimatorError, match=message):
        load_bundle(bundle)


def test_a_graph_of_another_estimator_is_refused(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other") / "out"
    export(estimator(hardware="other"), other, {"net.json": tree()})
    (bundle / "irene_estimator.onnx").write_bytes((other / "irene_estimator.onnx").read_bytes())
    with pytest.raises(EstimatorError, match=r"irene_estimator\.onnx: digest"):
        load_bundle(bundle, "onnx")
    (bundle / "irene_estimator.onnx").write_bytes(b"none")
    with pytest.raises(EstimatorError, match=r"irene_estimator\.onnx: "):
        load_bundle(bundle, "onnx")
    (bundle / "irene_estimator.onnx").unlink()
    with pytest.raises(EstimatorError, match="not there"):
        load_bundle(bundle, "onnx")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(EstimatorError, match="is no folder: `irene-build export"):
        load_bundle(tmp_path / "nowhere")
