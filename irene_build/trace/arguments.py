"""Arguments of a forward pass by name: as users give them (one tensor, a tuple, a dict), and how they are passed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from .request import RefusedError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def forward_parameters(module: Any) -> dict[str, inspect.Parameter]:
    """Parameters of ``forward``; what a wrapper hands on as ``**kwargs`` (an adapter's) are those of its base model."""
    found = dict(inspect.signature(module.forward).parameters)
    if any(p.kind is p.VAR_KEYWORD for p in found.values()):
        inner = _base(module)
        if inner is not None:
            found = {**forward_parameters(inner), **found}
    return found


def is_accepted(module: Any, name: str) -> bool:
    """Whether ``forward`` names this parameter."""
    return name in forward_parameters(module)


def _base(module: Any) -> Any:
    """The model that an adapter wraps (``get_base_model`` of PEFT), None where it wraps none."""
    own = getattr(type(module), "get_base_model", None)
    inner = own(module) if callable(own) else None
    return inner if inner is not module else None


class Positional(dict[str, Any]):
    """Inputs by name that were given by position, and are passed so."""


def named(module: Any, given: Any) -> dict[str, Any]:
    """``given`` (a dict, a tuple or list of positional arguments, or one tensor) by the names of ``forward``.

    Raises RefusedError where ``forward`` does not take them.
    """
    if isinstance(given, Mapping):
        return dict(given)
    values = tuple(given) if isinstance(given, (list, tuple)) else (given,)
    try:
        return Positional(inspect.signature(module.forward).bind_partial(*values).arguments)
    except TypeError as error:
        raise RefusedError(
            f"{type(module).__name__}.forward does not take these {len(values)} inputs: {error}"
        ) from None


def call(module: Any, inputs: Mapping[str, Any]) -> Any:
    """``module`` with these inputs: by position where ``forward`` takes them by position only, else by name."""
    args, kwargs = passed(module, inputs)
    return module(*args, **kwargs)


def passed(module: Any, inputs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments that hand ``inputs`` to ``module``'s forward."""
    parameters = inspect.signature(module.forward).parameters
    rest = dict(inputs)
    starred = [n for n, p in parameters.items() if p.kind is p.VAR_POSITIONAL and n in rest]
    # An exported graph wants its arguments as it was exported with them.
    graph = any(kind.__name__ == "GraphModule" for kind in type(module).__mro__)
    by_position = bool(starred) or graph or isinstance(inputs, Positional)
    args: list[Any] = []
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            value = rest.pop(name, ())
            args += value if isinstance(value, (list, tuple)) else (value,)
        elif parameter.kind is parameter.POSITIONAL_ONLY or (by_position and parameter.kind in _POSITIONAL):
            if name in rest:
                args.append(rest.pop(name))
            elif not rest:
                break
            elif parameter.default is not parameter.empty:
                args.append(parameter.default)
    keywords = next((n for n, p in parameters.items() if p.kind is p.VAR_KEYWORD), None)
    if keywords is not None and isinstance(rest.get(keywords), dict):
        rest |= rest.pop(keywords)
    return args, rest
