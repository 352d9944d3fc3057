"""What is switched for the time of a pass, so that every back end runs what an ordinary run would."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from irene_build.models.unwrap import in_evaluation

_CHECKS = "TRANSFORMERS_DISABLE_TORCH_CHECK"
#: torch.compile hands back the function that it is given.
_EAGER = "TORCHDYNAMO_DISABLE"


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Evaluation mode without gradients; the module's own modes are put back."""
    import torch

    modes = [(m, m.training) for m in module.modules()]
    in_evaluation(module)
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in modes:
            m.training = training


@contextmanager
def _named(package: str, **values: Any) -> Iterator[None]:
    """Names of a module that is loaded and has them mean ``values``; put back afterwards."""
    names = vars(sys.modules[package]) if package in sys.modules else {}
    before = {name: names[name] for name in values if name in names}
    names.update({name: values[name] for name in before})
    try:
        yield
    finally:
        names.update(before)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _never_compiled() -> Iterator[None]:
    """What was compiled before (parts of the model, functions that it calls) runs as it is written."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _causal_biases() -> Iterator[None]:
    """torch's own masks of attention can be made, whose constructor fails under any dispatch mode (torch 2.13)."""
    bias = getattr(sys.modules.get("torch.nn.attention.bias"), "CausalBias", None)
    if bias is None:
        yield
        return
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    def new(kind: Any, *_: Any, **__: Any) -> Any:
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            return torch.Tensor._make_subclass(kind, torch.empty(0))

    bias.__new__ = staticmethod(new)
    try:
        yield
    finally:
        del bias.__new__


@contextmanager
def ordinary_run() -> Iterator[None]:
    """transformers takes the path of an ordinary first run, whatever its tensors are.

    It takes fake tensors for an export and then builds other masks: its predicate, through which every
    module asks, answers no. Position tables that it keeps from call to call, and would hand from one
    back end to the next, are computed anew: that memory asks whether it is being compiled. Its checks of
    values are off: nothing is known of most values, and they are no work of the model.
    Kernels of the meta device that ask which device a tensor stands for are told the CPU, not CUDA.
    """
    with (
        _environment(**dict.fromkeys((_CHECKS, _EAGER), "1")),
        _never_compiled(),
        warnings.catch_warnings(),
        _causal_biases(),
        _named("transformers.utils.import_utils", is_fake_tensor=lambda _: False),
        _named("transformers.pytorch_utils", is_torchdynamo_compiling=lambda: True),
        # Not compiled either, and without the advice to do so.
        _named("torch.nn.attention.flex_attention", _FLEX_ATTENTION_DISABLE_COMPILE_DEBUG=True),
        _named("torch._meta_registrations", device_hint=lambda _: "cpu"),
    ):
        # What becomes of its functions in versions to come is no business of a user of ours.
        for category in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def fake_mode() -> Iterator[Any]:
    """Tensors that claim to be on the CPU and hold nothing.

    Its short cuts for pointwise operations and its views lay results out in another way than kernels do,
    and its ``tolist`` reads value by value: all are off. What fails in it is reported here, not logged by torch.
    """
    import torch
    from torch._subclasses.fake_impls import op_implementations_dict
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    own_tolist = FakeTensor.tolist
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    views = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
    own_views = {view: op_implementations_dict.pop(view) for view in views if view in op_implementations_dict}
    logger.setLevel(logging.CRITICAL + 1)
    FakeTensor.tolist = torch.Tensor.tolist
    try:
        with (
            _named("torch._subclasses.fake_tensor", get_fast_op_impls=dict),
            FakeTensorMode(allow_non_fake_inputs=True) as mode,
        ):
            # It is shared with other modes, whose short cuts and views it would hand over.
            mode.cache_enabled = False
            yield mode
    finally:
        op_implementations_dict.update(own_views)
        FakeTensor.tolist = own_tolist
        logger.setLevel(level)
