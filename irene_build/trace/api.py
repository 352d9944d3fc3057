"""``trace_model``: the model tree of one pass of a model, without its weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from irene_build.errors import ModelError
from irene_build.models.stored import Stored
from irene_runtime.tree import ModelTree

from .request import COST_MODELS, CPU_LIMIT_S, DTYPES, WEIGHTS, Inputs, Pass


def trace_model(
    model: Any,
    batch_size: int = 8,
    seq_len: int = 128,
    phase: str = "forward",
    past_len: int = 0,
    dtype: str | None = None,
    attention: str = "sdpa",
    cost_model: str = "analytic",
    weights: str | None = None,
    inputs: Inputs | Any = None,
    cpu_limit_s: float = CPU_LIMIT_S,
    *,
    quantise_head: bool = False,
    cache: str = "dynamic",
    images: int | None = None,
    image_size: tuple[int, int] | None = None,
    all_logits: bool = False,
    cut: bool = True,
) -> ModelTree:
    """The model tree of one pass of ``model``: an ``nn.Module``, or what ``models.build`` takes.

    ``phase``: ``forward`` (no cache), ``prefill`` (fills a key-value cache), ``decode`` (one token behind
    ``past_len`` cached ones; without ``past_len``, behind ``seq_len``), ``extend`` (``seq_len`` tokens behind
    ``past_len``). Beyond ``forward``, a named model is the class that people generate with, and logits are those of
    the last token, as ``generate`` computes them, unless ``all_logits``. ``dtype``: what a checkpoint says, else
    float32. ``weights``: how matrices of Linear layers are stored (``WEIGHTS``), what a checkpoint says if None; the
    output projection only with ``quantise_head``. ``cost_model`` ``irene2021`` implies eager attention and float32.
    ``inputs``: one tensor, a tuple of positional arguments, a dict by name, or a function (module, batch_size, seq_len)
    that returns one of these. ``cache``: ``dynamic`` (copied as it grows, as ``generate`` does by default) or
    ``static``. ``images``, ``image_size``: images a sequence and their (height, width), of models that take some.
    ``cut``: a model with fewer positions than ``seq_len`` is traced with as many as it has; without, it is refused.
    ``cpu_limit_s``: how long a pass with real tensors may take, where values steer the model.
    A module that was given keeps its weights, its device and its mode. Features are in the units of
    ``irene_runtime.features``. Raises ModelError that names the operation and the module path.
    """
    for what, value, known in (
        ("cost model", cost_model, COST_MODELS),
        ("weights", weights, (None, *WEIGHTS)),
    ):
        if value not in known:
            raise ModelError(f"{what} {value!r}: expected one of {', '.join(k for k in known if k)}")
    if cost_model == "irene2021":
        if weights is not None or dtype not in (None, "float32"):
            raise ModelError(
                f"cost model irene2021 counts float32 weights, as the paper does; {weights or dtype} needs analytic"
            )
        attention, dtype, weights = "eager", "float32", "full"
    stored = None if weights in (None, "full") else Stored(weights, head=quantise_head)
    run = Pass(
        batch_size, seq_len, phase, past_len, dtype or "float32", attention, stored, cache, images, image_size, inputs,
        cpu_limit_s=cpu_limit_s, all_logits=all_logits, cut=cut,
    ).checked()  # fmt: skip
    tree = _named(model, run, dtype, weights) if isinstance(model, str) else _given(model, run)
    if cost_model == "irene2021":
        from .irene2021 import published_tree

        return published_tree(tree)
    return tree


def _named(name: str, run: Pass, dtype: str | None, weights: str | None) -> ModelTree:
    """A model by name; what was not asked for is as its checkpoint says."""
    from irene_build.models.specs import resolve

    from .fallbacks import with_fallbacks

    spec = resolve(name, generates=run.phase != "forward")
    if dtype is None and spec.dtype in DTYPES:
        run = replace(run, dtype=spec.dtype)
    if weights is None:
        run = replace(run, stored=spec.stored())
    return with_fallbacks(spec, name, run)


def _given(module: Any, run: Pass) -> ModelTree:
    """A module of the user's: on meta as it is, else copies of it, without its weights first."""
    from irene_build.models.unwrap import plain_module

    from .fallbacks import Given, dtype_of, with_fallbacks
    from .tracer import attention_of

    module = plain_module(module)
    run = replace(run, dtype=dtype_of(module) or run.dtype, attention=attention_of(module) or run.attention)
    return with_fallbacks(Given(module), type(module).__name__, run)
