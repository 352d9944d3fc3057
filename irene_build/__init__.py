"""A compiler from a PC and PyTorch models to a standalone energy estimator for that PC.

    import irene_build as irene

    tree = irene.trace_model("bert-base-uncased", batch_size=8, seq_len=128)
    print(irene.predict("pc1", tree).table())

    dataset = irene.load_dataset("pc1")
    estimator = irene.train_estimator(dataset)
    irene.export_bundle(estimator, "out")

Everything is imported when it is first used: ``import irene_build`` itself is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irene_build.api import (
        Dataset,
        Estimator,
        IreneError,
        ModelTree,
        Prediction,
        evaluate_estimator,
        export_bundle,
        load_dataset,
        predict,
        trace_model,
        train_estimator,
    )

    __version__: str

__all__ = [
    "Dataset",
    "Estimator",
    "IreneError",
    "ModelTree",
    "Prediction",
    "__version__",
    "evaluate_estimator",
    "export_bundle",
    "load_dataset",
    "predict",
    "trace_model",
    "train_estimator",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("irene-build")
    if name in __all__:
        from irene_build import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
