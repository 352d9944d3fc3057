"""Inputs that a user gives: ``module:function``, or ``name=8x3x224x224:float32`` once for each tensor."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from irene_build.errors import ModelError

from .request import RefusedError

_SHAPE = re.compile(r"([A-Za-z_]\w*)=(\d+(?:x\d+)*)(?::(\w+))?$")


def parse(texts: list[str]) -> Callable[[Any, int, int], Mapping[str, Any]] | None:
    """A function (module, batch_size, seq_len) -> inputs; None where nothing was given. Raises ModelError.

    A function of the user's may take fewer of these arguments. Tensors from shapes are float32 zeros;
    names that end in ``ids`` or ``mask`` are int64 ones. Integer dtypes are filled with ones. Token ids beside
    images, sound or video begin with the placeholders that stand for them.
    """
    if not texts:
        return None
    if len(texts) == 1 and "=" not in texts[0]:
        return _function(texts[0])
    shapes = {}
    for text in texts:
        match = _SHAPE.match(text)
        if match is None:
            raise ModelError(
                f"--inputs {text}: expected module:function, or name=8x3x224x224 with :dtype if it is not float32"
            )
        name, shape, dtype = match.groups()
        integer = name.endswith(("ids", "mask"))
        shapes[name] = ([int(n) for n in shape.split("x")], dtype or ("int64" if integer else "float32"))

    def inputs(module: Any, batch_size: int, seq_len: int) -> Mapping[str, Any]:
        import torch

        _check_names(module, shapes)
        made = {}
        for name, (shape, dtype) in shapes.items():
            kind = getattr(torch, dtype, None)
            if not isinstance(kind, torch.dtype):
                raise ModelError(f"--inputs {name}: {dtype!r} is no dtype of torch")
            made[name] = (
                torch.zeros(shape, dtype=kind) if kind.is_floating_point else torch.ones(shape, dtype=kind)
            )
        from .media import placed

        return placed(module, made)

    return inputs


def _check_names(module: Any, names: Iterable[str]) -> None:
    """Raises RefusedError for a name that no forward of the model takes: ``**kwargs`` would swallow it in silence."""
    import inspect

    from .coverage import not_given

    root = inspect.signature(module.forward).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in root) and not hasattr(module, "config"):
        return
    known = {n for part in module.modules() for n in inspect.signature(part.forward).parameters}
    for name in names:
        if name not in known:
            takes = ", ".join(not_given(module, {})[:12]) or "none by name"
            raise RefusedError(
                f"--inputs {name}: {type(module).__name__} takes no such tensor; it takes {takes}"
            )


def _function(text: str) -> Callable[[Any, int, int], Mapping[str, Any]]:
    package, _, name = text.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        target = getattr(importlib.import_module(package), name, None)
    except (ImportError, ValueError) as error:
        raise ModelError(f"--inputs {text}: cannot import {package!r}: {error}") from None
    if not callable(target):
        raise ModelError(f"--inputs {text}: {package} has no function {name!r}")
    function: Callable[..., Any] = target

    def inputs(module: Any, batch_size: int, seq_len: int) -> Mapping[str, Any]:
        import inspect

        count = len(inspect.signature(function).parameters)
        made = function(*(module, batch_size, seq_len)[:count])
        if not isinstance(made, Mapping):
            raise ModelError(f"--inputs {text} returned {type(made).__name__}, expected a dict of inputs")
        return made

    return inputs
