"""``import irene_build as irene``: its names, its version, that it costs nothing, and that it works from end to end."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import irene_build as irene
import irene_runtime
from irene_build.errors import InputError, ModelError
from tests.runtime.examples import estimator, tree


def test_the_public_names() -> None:
    assert irene.__all__ == [
        "Dataset", "Estimator", "IreneError", "ModelTree", "Prediction", "__version__", "evaluate_estimator",
        "export_bundle", "load_dataset", "predict", "trace_model", "train_estimator",
    ]  # fmt: skip
    for name in irene.__all__:
        found = getattr(irene, name)
        assert name in dir(irene)
        if inspect.isfunction(found):
            assert found.__doc__ and "Raises" in found.__doc__ and "return" in found.__annotations__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = irene.nothing


def test_version_and_types() -> None:
    assert irene.__version__ == importlib.metadata.version("irene-build")
    for package in (irene, irene_runtime):
        assert (Path(str(package.__file__)).parent / "py.typed").is_file()


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, irene_build as irene\n"
        "assert not {'torch', 'numpy', 'scipy', 'onnx'} & set(sys.modules)\n"
        "irene.Estimator, irene.predict\n"
        "assert not {'torch', 'transformers', 'scipy', 'onnx'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_module_of_one_s_own_to_joules(tmp_path: Path) -> None:
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(8, 4)

        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.fc(x) * scale
            return out

    est = irene.Estimator(estimator(cost_model="analytic", attention="sdpa"))
    x, scale = torch.zeros(2, 8), torch.ones(4)
    traced = irene.trace_model(Net(), inputs={"x": x, "scale": scale})
    assert traced.header["batch_size"] == 2
    for inputs in ((x, scale), [x, scale], lambda *_: {"x": x, "scale": scale}):
        assert irene.trace_model(Net(), inputs=inputs).dumps() == traced.dumps()
    assert irene.trace_model(Net().fc, inputs=x).nodes[0].type == "Linear"
    with pytest.raises(ModelError, match="does not take these 3 inputs"):
        irene.trace_model(Net(), inputs=(x, x, x))
    p = irene.predict(est, traced)
    assert p.energy_j > 0.0
    traced.save(str(tmp_path / "net.json"))
    for again in (tmp_path / "net.json", str(tmp_path / "net.json"), traced.dumps(), traced.to_json()):
        assert irene.predict(est, again).energy_j == p.energy_j
    with pytest.raises(InputError, match="phase: options of a model that is traced"):
        irene.predict(est, traced, phase="decode")


def test_export_and_predict_by_every_name_of_an_estimator(tmp_path: Path) -> None:
    data = estimator()
    done = irene.export_bundle(data, tmp_path / "out", {"net.json": tree()})
    for given in (done.folder, str(done.folder), data, irene.Estimator(data)):
        assert irene.predict(given, tree()).energy_j == 15.0
    assert irene.predict(done.folder, tree(), backend="onnx").energy_j == pytest.approx(15.0)
    with pytest.raises(InputError, match="nowhere"):
        irene.predict("nowhere", tree())
