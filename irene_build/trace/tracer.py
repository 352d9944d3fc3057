"""Runs one forward pass of a module under the recorder and assembles what it saw to a ``ModelTree``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from irene_build.errors import ModelError
from irene_runtime.tree import ModelTree

from .arguments import call
from .assemble import Assembler
from .autocast import dtype_now
from .conditions import evaluating, ordinary_run
from .contents import contents, conventions
from .coverage import Beforehand, described, not_given, reach, sizes
from .inputs import prepare, variants_of
from .recorder import Recorder
from .request import ATTENTIONS, Pass
from .value_tracking import shadows_for

Positions = dict[tuple[int, "str | None"], int]


@contextmanager
def collecting(errors: list[ModelError]) -> Iterator[None]:
    """Keeps a ModelError of its body in ``errors`` and goes on."""
    try:
        yield
    except ModelError as error:
        errors.append(error)


def variants(module: Any, run: Pass) -> int:
    """How many ways to call ``module`` are known."""
    return 1 if run.inputs is not None else len(variants_of(module, run))


def record(
    module: Any, name: str, run: Pass, keep: Any = None, shadows: Any = None
) -> tuple[ModelTree, Positions]:
    """The tree of one pass on the device that holds ``module``, and which call became which node.

    ``shadows``: values that are known already, of a module on meta.
    Keys of the second are (number of the call, primitive of its own operations or None).
    """
    real = run.tensors in ("cpu", "real")
    device = next((p.device.type for p in module.parameters()), "cpu" if real else "meta")
    shadows = None if real else shadows or shadows_for(module)
    recorder, before = Recorder(module, keep, shadows), Beforehand()
    inputs: dict[str, Any] = {}
    with evaluating(module), ordinary_run():
        try:
            with before.watch(module), shadows.following() if shadows is not None else nullcontext():
                inputs, past = prepare(module, run, device, shadows)
            with recorder:
                output = call(module, inputs)
        except ModelError:
            raise
        except Exception as error:
            where = recorder.where(error) or before.where(error)
            raise ModelError(_why_not(name, module, inputs, where, error)) from error
    stored = run.stored
    header: dict[str, Any] = {
        "model": name, **sizes(run, inputs, output, past), "phase": run.phase, "dtype": run.dtype,
        "attention": run.attention, "cost_model": "analytic", "weights": stored.scheme if stored else None,
    }  # fmt: skip
    assembler = Assembler(header, recorder.weights, stored, stored.kept_by(module) if stored else None)
    assert recorder.root is not None
    tree = assembler.tree(recorder.root)
    tree.header["traced_by"] = {
        **versions(), "tensors": run.tensors, "inputs": described(inputs),
        **contents(module, inputs, recorder.known), "conventions": conventions(module, tree, run),
        **reach(module, recorder.touched(), inputs, before.ran if run.phase == "decode" else set()),
    }  # fmt: skip
    if (cast_to := dtype_now()) is not None:
        tree.header["traced_by"]["autocast"] = str(cast_to)[6:]
    if (ran := attention_of(module) or run.attention) != run.attention:
        tree.header["traced_by"]["attention_ran"] = ran
    if run.inputs is None and "input_ids" in inputs and header["seq_len"] < run.seq_len:
        tree.header["traced_by"]["seq_len_asked"] = run.seq_len
    return tree, assembler.positions


def attention_of(module: Any) -> str | None:
    """``eager`` or ``sdpa`` as a transformers model runs it, which may know no other; None where it does not say."""
    found = getattr(getattr(module, "config", None), "_attn_implementation", None)
    return found if found in ATTENTIONS else None


def _why_not(name: str, module: Any, inputs: Mapping[str, Any], where: str, error: Exception) -> str:
    """What failed, where, with which inputs, and what to pass instead."""
    first = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".")
    given = ", ".join(described(inputs)) or "none yet"
    others = ", ".join(not_given(module, inputs)[:8])
    return (
        f"{name} cannot be traced: {type(error).__name__} in {where}: {first}. Inputs given: {given}; "
        f"{f'it takes {others} as well; ' if others else ''}pass others with --inputs module:function, or "
        "--inputs NAME=8x3x224x224 for each"
    )


def versions() -> dict[str, str]:
    import sys

    from irene_build import __version__

    found = {"irene_build": __version__}
    for package in ("torch", "transformers"):
        if package in sys.modules:
            found[package] = str(sys.modules[package].__version__)
    return found
