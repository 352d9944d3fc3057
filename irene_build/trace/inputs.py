"""What ``forward`` is called with: example inputs by the names of its parameters, and the phases of generation.

Only shapes matter, and the few values that steer a model (positions, grid sizes, placeholders of
images among tokens). Families that want more than the general rules are in ``families``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from irene_build.errors import ModelError

from . import arguments, families
from .config import positions_of, token_ids
from .request import Pass, RefusedError


def prepare(module: Any, run: Pass, device: str, shadows: Any) -> tuple[dict[str, Any], int]:
    """Keyword arguments for ``module``'s forward in this pass, on ``device``, and the tokens that are cached.

    Phases ``decode`` and ``extend`` run the prefill before their step. Raises ModelError.
    """
    if getattr(module.forward, "__name__", "") == "_forward_unimplemented":
        parts = ", ".join(f"{name}: {type(part).__name__}" for name, part in module.named_children())
        raise RefusedError(
            f"{type(module).__name__} has no forward of its own, so there is no pass to trace; pass one of its parts "
            f"({parts or 'it has none'})"
        )
    wanted = run.past_len or run.seq_len
    if run.inputs is None:
        if not run.cut:
            _check_positions(module, wanted)
        given = variants_of(module, replace(run, seq_len=wanted))[run.variant]()
    else:
        given = run.inputs(module, run.batch_size, wanted) if callable(run.inputs) else run.inputs
    if run.cache == "static" and run.phase != "forward":
        given = {**arguments.named(module, given), "past_key_values": _static_cache(module, run)}
    by_name = arguments.named(module, given)
    inputs = type(by_name)(_as_dtype(on_device(dict(by_name), device, shadows), module))
    if run.phase == "forward":
        if caches(module):
            inputs.setdefault("use_cache", False)
        return inputs, 0
    if not caches(module):
        raise RefusedError(f"{type(module).__name__} keeps no cache: only phase forward can be traced")
    # Where it is one of ``**kwargs`` it would reach encoders too, which refuse it; filling a cache is the default.
    if arguments.is_accepted(module, "use_cache"):
        inputs["use_cache"] = True
    if not run.all_logits and arguments.is_accepted(module, "logits_to_keep"):
        inputs.setdefault("logits_to_keep", 1)
    if run.phase == "prefill":
        return inputs, 0
    past = _cached(module, run, inputs)
    return _next_tokens(module, run.seq_len, inputs, arguments.call(module, inputs), device, shadows), past


def _check_positions(module: Any, tokens: int) -> None:
    """Raises RefusedError for more tokens of text than a model has positions for."""
    config = getattr(module, "config", None)
    positions = positions_of(config) if hasattr(config, "model_type") else None
    if positions is not None and positions < tokens and arguments.is_accepted(module, "input_ids"):
        raise RefusedError(f"{type(module).__name__} has {positions} positions: {tokens} tokens do not fit")


def _static_cache(module: Any, run: Pass) -> Any:
    """Room for all tokens of the pass, written in place. Raises RefusedError for models that take another cache."""
    from transformers import StaticCache

    config = getattr(module, "config", None)
    if (
        not arguments.is_accepted(module, "past_key_values")
        or getattr(config, "is_encoder_decoder", False)
        or config is None
    ):
        raise RefusedError(
            f"{type(module).__name__} takes no static cache: only --cache dynamic can be traced"
        )
    room = run.past_len + run.seq_len
    return StaticCache(config=config.get_text_config(decoder=True), max_cache_len=room)


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
    if positions is not None and positions < asked + run.seq_len:
        raise RefusedError(
            f"{type(module).__name__} has {positions} positions: at most {positions - run.seq_len} tokens can be "
            f"cached before {'one is decoded' if run.seq_len == 1 else f'{run.seq_len} more'}, not {asked}"
        )
    return past


def _next_tokens(
    module: Any, count: int, inputs: dict[str, Any], output: Any, device: str, shadows: Any
) -> dict[str, Any]:
    """Arguments of the step behind ``output``: ``count`` tokens a sequence, and the cache."""
    import torch

    step: dict[str, Any] = {name: inputs[name] for name in ("use_cache", "logits_to_keep") if name in inputs}
    cache = cache_of(output)
    if cache is None:
        raise RefusedError(f"{type(module).__name__} returned no cache: only phase forward can be traced")
    step[cache[0]] = cache[1]
    name = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    batch = inputs[name].shape[0]
    step[name] = on_device(torch.full((batch, count), 5), device, shadows)
    hidden = getattr(output, "encoder_last_hidden_state", None)
    if hidden is not None and arguments.is_accepted(module, "encoder_outputs"):
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
    swallows = any(p.kind is p.VAR_KEYWORD for p in arguments.forward_parameters(module).values())
    of_text = arguments.is_accepted(module, "past_key_values") and arguments.is_accepted(module, "input_ids")
    return arguments.is_accepted(module, "use_cache") or (swallows and of_text)


def on_device(inputs: Any, device: str, shadows: Any) -> Any:
    """Inputs moved to ``device``, or emptied; the values of the small ones stay known to ``shadows``."""
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    def moved(tensor: Any) -> Any:
        if shadows is None:
            return tensor.to(device)
        if shadows.hollow(tensor):
            return tensor
        empty = shadows.emptied(tensor)
        if tensor.numel() <= 2**20:
            shadows.put(empty, tensor)
        return empty

    return tree_map_only(Tensor, moved, inputs)


def _as_dtype(value: Any, module: Any) -> Any:
    """Floating point inputs in the dtype of the model."""
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
    return tree_map_only(Tensor, lambda t: t.to(dtype or t.dtype) if t.is_floating_point() else t, value)


def variants_of(module: Any, run: Pass) -> list[Callable[[], Mapping[str, Any]]]:
    """Ways to call a transformers model, or a module with a method ``example_inputs(batch_size, seq_len)``."""
    own = getattr(module, "example_inputs", None)
    if callable(own):
        return [lambda: own(run.batch_size, run.seq_len)]
    config = getattr(module, "config", None)
    names = list(arguments.forward_parameters(module))
    if config is not None and hasattr(config, "model_type"):
        return list(families.variants(module, config, names, run))
    if "input_ids" in names:
        return [lambda: {"input_ids": token_ids(None, run.batch_size, run.seq_len)}]
    raise ModelError(
        f"{type(module).__name__}: inputs are known for transformers models only; give the module a method "
        "example_inputs(batch_size, seq_len), or pass --inputs module:function or --inputs name=8x128:int64"
    )
