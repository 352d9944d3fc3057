"""Inputs as a person hands them over: a tensor, a tuple of arguments, a dict by name, or a function that makes them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from irene_build.errors import ModelError

from .request import Inputs


def as_function(inputs: Any) -> Inputs | None:
    """``inputs`` as a function of module, batch size and length; its sizes are those of the tensors.

    Raises ModelError where positional arguments do not fit the module's ``forward``.
    """
    if inputs is None or (callable(inputs) and not hasattr(inputs, "shape")):
        return inputs
    if isinstance(inputs, Mapping):
        return lambda *_: dict(inputs)
    arguments = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    return lambda module, *_: _by_name(module, arguments)


def _by_name(module: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
    try:
        bound = inspect.signature(module.forward).bind(*arguments)
    except TypeError as error:
        raise ModelError(
            f"{type(module).__name__}.forward does not take these {len(arguments)} inputs: {error}"
        ) from None
    return dict(bound.arguments)
