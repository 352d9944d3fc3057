"""``trace``: one forward pass of a module without its weights, as a ``ModelTree``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from irene_build.errors import ModelError
from irene_runtime.tree import ModelTree

COST_MODELS = ("analytic", "irene2021")
PHASES = ("forward", "prefill", "decode")


def trace(
    model: Any,
    batch_size: int = 8,
    seq_len: int = 128,
    phase: str = "forward",
    past_len: int = 0,
    dtype: str = "float32",
    attention: str = "sdpa",
    cost_model: str = "analytic",
) -> ModelTree:
    """The model tree of one forward pass of ``model`` (an ``nn.Module``, or what ``models.build`` takes).

    Nothing is computed: modules run on the meta device. Features are in the units of
    ``irene_runtime.features``. Raises ModelError where the model cannot be built or traced.
    """
    from irene_build import models

    name = model if isinstance(model, str) else type(model).__name__
    if cost_model == "irene2021":
        attention = "eager"
    module = models.build(model, dtype=dtype, attention=attention) if isinstance(model, str) else model
    tree, _ = record(module, name, batch_size, seq_len, dtype=dtype, attention=attention)
    if cost_model == "irene2021":
        from .irene2021 import published_tree

        return published_tree(tree)
    return tree


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Evaluation mode without gradients; the module's own modes are put back."""
    import torch

    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in modes:
            m.training = training


def record(
    module: Any, name: str, batch_size: int, seq_len: int, dtype: str = "float32", attention: str = "sdpa",
    phase: str = "forward", past_len: int = 0, keep: Any = None,
) -> tuple[ModelTree, dict[tuple[int, str | None], int]]:  # fmt: skip
    """The tree of one pass on the device that holds ``module``, and which call became which node.

    Keys of the second are (number of the call, primitive of its own operations or None).
    """
    from .assemble import Assembler
    from .inputs import example_inputs, on_device
    from .recorder import Recorder
    from .shadow import Shadows

    device = next((p.device.type for p in module.parameters()), "meta")
    shadows = Shadows() if device == "meta" else None
    inputs = on_device(example_inputs(module, batch_size, seq_len), device, shadows)
    with evaluating(module):
        recorder = Recorder(module, keep, shadows)
        try:
            with recorder:
                module(**inputs)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:200]
            raise ModelError(
                f"{name} cannot be traced: {type(error).__name__} in {recorder.path}: {first}"
            ) from error
    header = {
        "model": name, "batch_size": batch_size, "seq_len": seq_len, "phase": phase, "past_len": past_len,
        "dtype": dtype, "attention": attention, "cost_model": "analytic", "traced_by": traced_by(),
    }  # fmt: skip
    sizes = {id(p): int(p.numel()) for p in module.parameters()}
    assembler = Assembler(header, element_sizes())
    assert recorder.root is not None
    return assembler.tree(recorder.root, sizes), assembler.positions


def traced_by() -> dict[str, str]:
    import sys

    from irene_build import __version__

    versions = {"irene_build": __version__}
    for package in ("torch", "transformers"):
        if package in sys.modules:
            versions[package] = str(sys.modules[package].__version__)
    return versions


def element_sizes() -> dict[str, int]:
    """Bytes of one element by the name of its dtype."""
    import torch

    kinds = (getattr(torch, name) for name in dir(torch))
    return {str(kind)[6:]: int(kind.itemsize) for kind in kinds if isinstance(kind, torch.dtype)}
