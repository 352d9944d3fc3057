"""The library's public face: one function a stage, for programs and notebooks. ``import irene_build as irene``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build.dataset.table import Dataset
from irene_build.errors import InputError, IreneError
from irene_build.trace import trace_model
from irene_runtime.model import Estimator
from irene_runtime.prediction import Prediction
from irene_runtime.tree import ModelTree

if TYPE_CHECKING:
    from irene_build.export.bundle import Exported

__all__ = [
    "Dataset", "Estimator", "IreneError", "ModelTree", "Prediction", "evaluate_estimator", "export_bundle",
    "load_dataset", "predict", "trace_model", "train_estimator",
]  # fmt: skip

_TIERS = ("static", "live", "profile")
#: What ``predict`` and ``export_bundle`` take for an estimator.
AnyEstimator = Estimator | Mapping[str, Any] | str | Path


def load_dataset(hardware: str | Path) -> Dataset:
    """The labelled trees of a PC: by its name (``artifacts/NAME/campaign.sqlite``), or by a file's path.

    Raises InputError where there is none, DatasetError where the file is not one.
    """
    from irene_build.dataset import store
    from irene_build.paths import find_artifact

    path = Path(hardware)
    return store.load_dataset(path if path.is_file() else find_artifact(str(hardware), "campaign.sqlite"))


def train_estimator(
    dataset: Dataset, method: str = "best", *, tiers: Sequence[str] = _TIERS, seed: int = 0
) -> Estimator:
    """Fit ``method`` (``best`` or ``paper``) to a dataset; ``Estimator.to_dict()`` is what files hold.

    A tier that the dataset cannot give is left out. Raises InputError, DatasetError.
    """
    from irene_build.train import api

    return Estimator(api.fit(dataset, method, tiers=tiers, seed=seed))


def evaluate_estimator(
    dataset: Dataset, method: str = "best", protocol: str = "model-out", *, tiers: Sequence[str] = _TIERS,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """How well a method predicts what it was not trained on: errors in percent by tier and level, as
    ``irene-build evaluate --json`` prints them, with single predictions under ``pairs``.

    Raises DatasetError where the protocol needs more models, InputError for unknown names.
    """
    from irene_build.evaluate.run import evaluate

    return evaluate(dataset, method, protocol, tiers, seed=seed)


def export_bundle(
    estimator: AnyEstimator,
    out: str | Path,
    trees: Mapping[str, ModelTree] | None = None,
    *,
    force: bool = False,
) -> Exported:
    """Compile an estimator into the bundle ``out``: ONNX graph, Python module, manifest, README, example trees.

    ``estimator``: what ``train_estimator`` gave, its data, its file, or the name of a hardware. ``trees``: example
    trees by file name (default: real models, traced now). ``force``: also into a folder with other files, which stay.
    Raises InputError where the folder is not ours or cannot be written, ParityError where backends disagree; then
    nothing was written.
    """
    from irene_build.export.bundle import export

    return export(_estimator(estimator).data, Path(out), trees, force)


def predict(
    estimator: AnyEstimator,
    model: Any,
    batch_size: int = 8,
    seq_len: int = 128,
    *,
    live: Any = None,
    tier: str | None = None,
    backend: str = "python",
    **options: Any,
) -> Prediction:
    """The joules of one pass, node by node.

    ``estimator``: a bundle's folder, an estimator, its data, its file, or the name of a hardware. ``model``: a tree,
    its JSON or its file; or what ``trace_model`` takes (a name, an ``nn.Module``), traced at ``batch_size`` and
    ``seq_len`` as the estimator was calibrated, with further ``options`` of ``trace_model``. ``live``, ``tier``: as in
    ``Estimator.predict``. ``backend``: ``python``, or ``onnx`` for the graph of a bundle. Raises InputError.
    """
    chosen = _estimator(estimator, backend)
    if isinstance(model, (ModelTree, Mapping, bytes)) or (
        isinstance(model, str) and model.lstrip()[:1] == "{"
    ):
        tree: Any = model
    elif isinstance(model, (str, Path)) and _is_tree_file(Path(model)):
        tree = chosen.load_tree(str(model))
    else:
        from irene_build.export.samples import attention_of

        settings = {"attention": attention_of(chosen.attention), "cost_model": chosen.cost_model, **options}
        tree = trace_model(str(model) if isinstance(model, Path) else model, batch_size, seq_len, **settings)
        return chosen.predict(tree, live, tier)
    if options:
        raise InputError(
            f"{', '.join(options)}: options of a model that is traced, but this is a tree already"
        )
    return chosen.predict(tree, live, tier)


def _estimator(given: AnyEstimator, backend: str = "python") -> Estimator:
    """An estimator from what stands for one."""
    from irene_build.export.load import load_bundle
    from irene_build.paths import find_artifact
    from irene_build.train import estimator_file

    if isinstance(given, Estimator):
        return given
    if isinstance(given, Mapping):
        return Estimator(given, backend)
    if Path(given).is_dir():
        return load_bundle(Path(given), backend)[0]
    path = Path(given) if Path(given).is_file() else find_artifact(str(given), "estimator.json")
    return Estimator(estimator_file.load(path), backend)


def _is_tree_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b'"irene-tree"' in file.read(200)
    except OSError:
        return False
