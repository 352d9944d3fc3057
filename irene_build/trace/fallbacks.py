"""A model without its weights is tried on other kinds of tensors until one gives a tree.

``meta``: tensors without values in the dtype asked for; then with the buffers' values computed, where a
model asks for them; then ``meta`` in bfloat16, which some kernels insist on. ``fake``: tensors that claim to
be on the CPU. ``cpu``: real tensors and random weights, for small models and a limited time. The first
three give the same tree wherever each of them gives one; the header says which it was, and why.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from irene_build.errors import ModelError
from irene_runtime.tree import ModelTree

from .bare import as_if_on_cpu, without_weights
from .conditions import fake_mode
from .request import Pass, RefusedError
from .tensors import is_sparse
from .tracer import collecting, record, variants
from .value_tracking import Shadows

#: Real tensors are for models up to this many bytes of parameters.
MAX_REAL_BYTES = 2**32


@dataclass(frozen=True)
class Given:
    """A module of the user's, in the place of a spec: copies of it, without its weights or with them."""

    original: Any

    def copied(self, dtype: str, device: str, emptied: Emptied = lambda real, empty: None) -> Any:
        """Raises ModelError where there is no such copy."""
        own = dtype_of(self.original)
        if own not in (None, dtype):
            raise ModelError(f"{type(self.original).__name__} is in {own}, not in {dtype}")
        if device == "meta":
            return without_weights(self.original, emptied)
        tensors = [*self.original.parameters(), *self.original.buffers()]
        # Sparse tensors do not copy themselves.
        sparse = [t for t in tensors if is_sparse(t)]
        memo = {id(t): type(t)(t.detach().clone(), requires_grad=False) for t in sparse}
        return _copy(self.original, memo).to(device)

    def cannot_run(self) -> str:
        """Why there is no pass with real tensors; empty where there is."""
        tensors = [*self.original.parameters(), *self.original.buffers()]
        if not any(t.is_meta for t in tensors):
            return ""
        return "It has no weights to run with real tensors: where it asks for values, give it some, random ones will do"


#: emptied(tensor with values, the one that took its place)
Emptied = Callable[[Any, Any], None]


def _copy(module: Any, memo: dict[int, Any] | None = None) -> Any:
    """A deep copy. Raises ModelError where the module has none."""
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ModelError(f"{type(module).__name__} cannot be copied: {error}") from error


def dtype_of(module: Any) -> str | None:
    """The dtype of a module's first parameter; None where it has none."""
    parameter = next(module.parameters(), None)
    return None if parameter is None else str(parameter.dtype)[6:]


def _module(source: Any, dtype: str, attention: str, device: str) -> Any:
    """The module of a ``Spec``, or a copy of a ``Given`` one."""
    from irene_build.models.build import instantiate

    if isinstance(source, Given):
        return source.copied(dtype, device)
    return instantiate(source, dtype, attention, device)


class TooLongError(ModelError):
    """The time for a pass with real tensors is over."""


def with_fallbacks(spec: Any, name: str, run: Pass) -> ModelTree:
    """The tree of the first kind of tensors and the first variant of inputs that work. Raises the first ModelError."""
    module = _module(spec, run.dtype, run.attention, "meta")
    tries = [replace(run, variant=v) for v in range(variants(module, run))]
    errors: list[ModelError] = []
    for trial in tries:
        with collecting(errors):
            return with_refusal(record(module, name, trial)[0], errors)
    for error in errors:
        if isinstance(error, RefusedError):
            raise error
    reasons = {trial.variant: str(error) for trial, error in zip(tries, errors, strict=True)}
    for below in (with_buffers, in_bfloat16, on_fake):
        for trial in tries:
            with suppress(ModelError):
                tree = explained(below(spec, name, trial), reasons[trial.variant], run)
                return with_refusal(tree, errors[: trial.variant])
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    if size > MAX_REAL_BYTES:
        raise ModelError(
            f"{errors[0]}. With {size / 2**30:.1f} GiB of parameters it was not tried with real tensors: where it asks "
            "for values, pass a configuration with fewer layers or experts"
        )
    try:
        if isinstance(spec, Given) and (reason := spec.cannot_run()):
            raise ModelError(f"{errors[0]}. {reason}")
        with limited(run.cpu_limit_s):
            real = _in_time(lambda: _module(spec, run.dtype, run.attention, "cpu"))
            for trial in tries:
                with suppress(ModelError):
                    tree, _ = record(real, name, replace(trial, tensors="cpu"))
                    return with_refusal(explained(tree, reasons[trial.variant], run), errors[: trial.variant])
    except TooLongError:
        raise ModelError(
            f"{errors[0]}. With real tensors it took longer than {run.cpu_limit_s:g} s: pass fewer tokens, a smaller "
            "batch or a configuration with fewer layers, or more time with --cpu-limit"
        ) from None
    raise errors[0]


def with_buffers(spec: Any, name: str, run: Pass) -> ModelTree:
    """On meta; what the constructor computes from constants (strides, positions, tables) is known."""
    shadows = Shadows()
    if isinstance(spec, Given):
        return record(spec.copied(run.dtype, "meta", shadows.put_small), name, run, shadows=shadows)[0]
    with shadows.following():
        module = _module(spec, run.dtype, run.attention, "meta")
    return record(module, name, run, shadows=shadows)[0]


def in_bfloat16(spec: Any, name: str, run: Pass) -> ModelTree:
    if run.dtype != "float32":
        raise ModelError(f"{name} was to be traced in {run.dtype}")
    module = _module(spec, "bfloat16", run.attention, "meta")
    return record(module, name, replace(run, dtype="bfloat16"))[0]


def on_fake(spec: Any, name: str, run: Pass) -> ModelTree:
    """With fake tensors; the values of buffers are known here as well."""
    built = Shadows()
    if isinstance(spec, Given):
        # Not the user's own, whose tensors would be replaced.
        bare = _copy(spec.copied(run.dtype, "meta", built.put_small))
    else:
        with built.following():
            bare = _module(spec, run.dtype, run.attention, "meta")
    with fake_mode() as mode:
        shadows = Shadows(mode)

        def carried(before: Any, after: Any) -> None:
            values = built.get(before)
            if values is not None:
                shadows.put(after, values)

        return record(as_if_on_cpu(bare, carried), name, replace(run, tensors="fake"), shadows=shadows)[0]


def explained(tree: ModelTree, reason: str, asked: Pass) -> ModelTree:
    """``tree`` with the reason in its header why it is not from the first kind of tensors."""
    tree.header["traced_by"]["fallback_reason"] = reason
    if tree.header["dtype"] != asked.dtype:
        tree.header["traced_by"]["dtype_asked"] = asked.dtype
    return tree


def with_refusal(tree: ModelTree, errors: list[ModelError]) -> ModelTree:
    """``tree``; where it left parts out and fuller inputs were tried before, with the reason why they did not run."""
    by = tree.header["traced_by"]
    if errors and "left_out" in by:
        by["inputs_refused"] = (
            str(errors[0]).partition(". Inputs given")[0].partition("cannot be traced: ")[2]
        )
    return tree


def _in_time(build: Callable[[], Any]) -> Any:
    """What ``build`` returns; that its time was over is no fault of the model's."""
    try:
        return build()
    except ModelError as error:
        if isinstance(error.__cause__, TooLongError):
            raise error.__cause__ from None
        raise


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooLongError at the first operation after ``seconds``, and again outside if something caught it."""
    from torch.utils._python_dispatch import TorchDispatchMode

    end = time.monotonic() + seconds

    class Deadline(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if time.monotonic() > end:
                raise TooLongError(f"longer than {seconds:g} s")
            return func(*args, **(kwargs or {}))

    with Deadline():
        yield
    if time.monotonic() > end:
        raise TooLongError(f"longer than {seconds:g} s")
