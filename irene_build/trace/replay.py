"""Runs single nodes of a model on a real device: one forward pass keeps what each node was called with.

A module node is called again with its arguments, a functional primitive with its own, and what a
module computes itself is replayed operation by operation. Weights are random: energy depends on
shapes, hardly on values. Kept arguments are references, not copies: an operation that later wrote
into one of them in place has changed its values (never its shape).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from irene_build.errors import ModelError
from irene_runtime.tree import ModelTree

from .request import Pass
from .tracer import Positions, collecting, record, variants


@dataclass
class Captured:
    """``tree``, and for each kept node (index into its nodes) a callable that runs just that node once.

    Callables return nothing and do not synchronise the device; that is the measuring side's part.
    """

    tree: ModelTree
    runners: dict[int, Callable[[], None]] = field(default_factory=dict)


def capture(
    model: Any,
    batch_size: int = 8,
    seq_len: int = 128,
    device: str = "cpu",
    dtype: str = "float32",
    attention: str = "sdpa",
    phase: str = "forward",
    past_len: int = 0,
    only: Collection[int] | None = None,
) -> Captured:
    """Build ``model`` (a name, or a module that is already on its device), run it, keep each node's inputs.

    ``only`` names the nodes to keep; the rest of the activations are freed as in any forward pass.
    Indices are those of ``trace`` with the same arguments. Raises ModelError as ``trace`` does.
    """
    from irene_build import models

    if isinstance(model, str):
        name, module = model, models.build(model, dtype=dtype, attention=attention, device=device)
    else:
        name, module = type(model).__name__, model
    run = Pass(batch_size, seq_len, phase, past_len, dtype, attention, tensors="real").checked()
    tree, positions, run = _first_that_runs(module, name, run)
    calls: dict[int, list[_Kept]] = {}

    def keep(
        sequence: int, primitive: str | None, function: Callable[..., Any], args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:  # fmt: skip
        index = positions.get((sequence, primitive))
        if index is None or (only is not None and index not in only):
            return
        calls.setdefault(index, []).append(_Kept(function, args, kwargs, _cache_states(args, kwargs)))

    record(module, name, run, keep)
    return Captured(tree, {index: _runner(kept) for index, kept in sorted(calls.items())})


def _first_that_runs(module: Any, name: str, run: Pass) -> tuple[ModelTree, Positions, Pass]:
    errors: list[ModelError] = []
    for variant in range(variants(module, run)):
        trial = replace(run, variant=variant)
        with collecting(errors):
            return (*record(module, name, trial), trial)
    raise errors[0]


@dataclass
class _Kept:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    states: list[tuple[Any, dict[str, Any]]]


def _cache_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Key-value caches grow while they are used: their layers' attributes at the time of the call."""
    states = []
    for value in (*args, *kwargs.values()):
        layers = getattr(value, "layers", None)
        if layers is not None and hasattr(value, "get_seq_length"):
            states.append((value, {"layers": list(layers)}))
            states.extend((layer, dict(vars(layer))) for layer in layers)
    return states


def _runner(kept: list[_Kept]) -> Callable[[], None]:
    import torch

    def run() -> None:
        with torch.no_grad():
            for call in kept:
                for holder, state in call.states:
                    vars(holder).update({k: list(v) if k == "layers" else v for k, v in state.items()})
                call.function(*call.args, **call.kwargs)

    return run
