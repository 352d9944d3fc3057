"""``trace_model``: the model tree of one pass of a model, without its weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from irene_build.errors import ModelError
from irene_runtime.tree import ModelTree

from .given import as_function
from .request import COST_MODELS, CPU_LIMIT_S, Pass


def trace_model(
    model: Any,
    batch_size: int = 8,
    seq_len: int = 128,
    phase: str = "forward",
    past_len: int = 0,
    dtype: str = "float32",
    attention: str = "sdpa",
    cost_model: str = "analytic",
    weights: str | None = None,
    inputs: Any = None,
    cpu_limit_s: float = CPU_LIMIT_S,
) -> ModelTree:
    """The model tree of one pass of ``model``: an ``nn.Module``, or what ``models.build`` takes.

    ``phase``: ``forward`` (no cache), ``prefill`` (fills a key-value cache), ``decode`` (one token behind
    ``past_len`` cached ones; without ``past_len``, behind ``seq_len``). ``weights``: ``int8`` or ``int4``
    counts matrices of Linear layers at that size. ``cost_model`` ``irene2021`` implies eager attention.
    ``inputs``: a tensor, a tuple of arguments, or a dict by name (their sizes take the place of ``batch_size`` and
    ``seq_len``), or a function that makes such a dict from module, batch size and length.
    ``cpu_limit_s``: how long a pass with real tensors may take, where values steer the model.
    A module that was given keeps its weights, its device and its mode. Features are in the units of
    ``irene_runtime.features``. Raises ModelError that names the operation and the module path.
    """
    if cost_model not in COST_MODELS:
        raise ModelError(f"cost model {cost_model!r}: expected one of {', '.join(COST_MODELS)}")
    if cost_model == "irene2021":
        if weights is not None or dtype != "float32":
            raise ModelError(
                f"cost model irene2021 counts float32 weights, as the paper does; {weights or dtype} needs analytic"
            )
        attention = "eager"
    from irene_build.models.specs import resolve

    from .fallbacks import with_fallbacks

    run = Pass(
        batch_size,
        seq_len,
        phase,
        past_len,
        dtype,
        attention,
        weights,
        as_function(inputs),
        cpu_limit_s=cpu_limit_s,
    ).checked()
    tree = with_fallbacks(resolve(model), model, run) if isinstance(model, str) else _given(model, run)
    if cost_model == "irene2021":
        from .irene2021 import published_tree

        return published_tree(tree)
    return tree


def _given(module: Any, run: Pass) -> ModelTree:
    """A module of the user's: on meta as it is, else a copy of it without its weights."""
    from .tracer import attention_of, collecting, record, variants
    from .unwrap import plain_module, without_weights

    module = plain_module(module)
    parameter = next(module.parameters(), None)
    if parameter is not None:
        run = replace(run, dtype=str(parameter.dtype)[6:])
    run = replace(run, attention=attention_of(module) or run.attention)
    bare = without_weights(module)
    errors: list[ModelError] = []
    for variant in range(variants(bare, run)):
        with collecting(errors):
            return record(bare, type(module).__name__, replace(run, variant=variant))[0]
    raise errors[0]
