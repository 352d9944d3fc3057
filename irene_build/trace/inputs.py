"""What ``forward`` is called with: example inputs by the names of its parameters, and the phases of generation.

Only shapes matter, and the few values that steer a model (positions, grid sizes, placeholders of
images among tokens). Families that want more than the general rules are in ``families``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from irene_build.errors import ModelError

from . import families
from .config import positions_of, token_ids
from .request import Pass, RefusedError


def prepare(module: Any, run: Pass, device: str, shadows: Any) -> tuple[dict[str, Any], int]:
    """Keyword arguments for ``module``'s forward in this pass, on ``device``, and the tokens that are cached.

    Phase ``decode`` runs the prefill before its step. Raises ModelError.
    """
    if getattr(module.forward, "__name__", "") == "_forward_unimplemented":
        parts = ", ".join(f"{name}: {type(part).__name__}" for name, part in module.named_children())
        raise RefusedError(
            f"{type(module).__name__} has no forward of its own, so there is no pass to trace; pass one of its parts "
            f"({parts or 'it has none'})"
        )
    wanted = run.past_len if run.phase == "decode" else run.seq_len
    if run.inputs is not None:
        given = run.inputs(module, run.batch_size, wanted)
    else:
        given = variants_of(module, run.batch_size, wanted)[run.variant]()
    inputs = dict(on_device(given, device, shadows))
    inputs = _as_dtype(inputs, module)
    if run.phase == "forward":
        if caches(module):
            inputs.setdefault("use_cache", False)
        return inputs, 0
    if not caches(module):
        raise RefusedError(f"{type(module).__name__} keeps no cache: only phase forward can be traced")
    # Where it is one of ``**kwargs`` it would reach encoders too, which refuse it; filling a cache is the default.
    if accepts(module, "use_cache"):
        inputs["use_cache"] = True
    if run.phase == "prefill":
        return inputs, 0
    past = _cached(module, run, inputs)
    return _next_token(module, inputs, module(**inputs), device, shadows), past


def _cached(module: Any, run: Pass, inputs: Mapping[str, Any]) -> int:
    """Tokens that the prefill caches, placeholders of images and sound among them.

    Raises RefusedError where the model has no position for the next one.
    """
    ids = next((inputs[name] for name in ("decoder_input_ids", "input_ids") if name in inputs), None)
    if ids is None:
        raise RefusedError(f"{type(module).__name__} takes no token ids: phase decode cannot be traced")
    past = int(ids.shape[1])
    asked = past if run.inputs is not None else run.past_len
    config = getattr(module, "config", None)
    positions = positions_of(config) if config is not None else None
    if positions is not None and positions <= asked:
        raise RefusedError(
            f"{type(module).__name__} has {positions} positions: at most {positions - 1} tokens can be cached before "
            f"one is decoded, not {asked}"
        )
    return past


def _next_token(
    module: Any, inputs: dict[str, Any], output: Any, device: str, shadows: Any
) -> dict[str, Any]:
    """Arguments of the step behind ``output``: one token a sequence, and the cache."""
    import torch

    step: dict[str, Any] = {"use_cache": True} if "use_cache" in inputs else {}
    cache = cache_of(output)
    if cache is None:
        raise RefusedError(f"{type(module).__name__} returned no cache: only phase forward can be traced")
    step[cache[0]] = cache[1]
    name = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    batch = inputs[name].shape[0]
    step[name] = on_device(torch.full((batch, 1), 5), device, shadows)
    hidden = getattr(output, "encoder_last_hidden_state", None)
    if hidden is not None and accepts(module, "encoder_outputs"):
        from transformers.modeling_outputs import BaseModelOutput

        step["encoder_outputs"] = BaseModelOutput(last_hidden_state=hidden)
    return step


def cache_of(output: Any) -> tuple[str, Any] | None:
    """The (name, value) of the cache that a model returned, None if there is none."""
    for name in ("past_key_values", "cache_params", "state", "past_buckets_states", "mems"):
        value = getattr(output, name, None)
        if value is not None:
            return name, value
    return None


def caches(module: Any) -> bool:
    """Whether ``forward`` can be told to fill a cache; a model of text may take that among its ``**kwargs``."""
    swallows = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(module.forward).parameters.values())
    of_text = accepts(module, "past_key_values") and accepts(module, "input_ids")
    return accepts(module, "use_cache") or (swallows and of_text)


def accepts(module: Any, name: str) -> bool:
    """Whether ``forward`` names this parameter."""
    return name in inspect.signature(module.forward).parameters


def on_device(inputs: Any, device: str, shadows: Any) -> Any:
    """Inputs moved to ``device``, or emptied; the values of the small ones stay known to ``shadows``."""
    if isinstance(inputs, Mapping):
        return {name: on_device(value, device, shadows) for name, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(on_device(value, device, shadows) for value in inputs)
    if not hasattr(inputs, "untyped_storage"):
        return inputs
    if shadows is None:
        return inputs.to(device)
    if shadows.hollow(inputs):
        return inputs
    empty = shadows.emptied(inputs)
    if inputs.numel() <= 2**20:
        shadows.put(empty, inputs)
    return empty


def _as_dtype(value: Any, module: Any) -> Any:
    """Floating point inputs in the dtype of the model."""
    if isinstance(value, dict):
        return {name: _as_dtype(item, module) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_as_dtype(item, module) for item in value)
    if hasattr(value, "untyped_storage") and value.is_floating_point():
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), value.dtype)
        return value.to(dtype)
    return value


def variants_of(module: Any, batch_size: int, seq_len: int) -> list[Callable[[], Mapping[str, Any]]]:
    """Ways to call a transformers model, or a module with a method ``example_inputs(batch_size, seq_len)``."""
    own = getattr(module, "example_inputs", None)
    if callable(own):
        return [lambda: own(batch_size, seq_len)]
    config = getattr(module, "config", None)
    names = list(inspect.signature(module.forward).parameters)
    if config is not None and hasattr(config, "model_type"):
        return list(families.variants(module, config, names, batch_size, seq_len))
    if "input_ids" in names:
        return [lambda: {"input_ids": token_ids(None, batch_size, seq_len)}]
    raise ModelError(
        f"{type(module).__name__}: inputs are known for transformers models only; give the module a method "
        "example_inputs(batch_size, seq_len), or pass --inputs module:function or --inputs name=8x128:int64"
    )
