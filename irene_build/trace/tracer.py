"""``trace``: one forward pass of a model without its weights, as a ``ModelTree``.

``ladder`` tries back ends in turn for a model that is named; the tree's header records which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from irene_build.errors import ModelError
from irene_runtime.tree import ModelTree

COST_MODELS = ("analytic", "irene2021")
PHASES = ("forward", "prefill", "decode")
WEIGHTS = ("int8", "int4")
DTYPES = ("float32", "float16", "bfloat16")
ATTENTIONS = ("eager", "sdpa")
#: Seconds that a pass with real tensors may take, the last resort for a model whose values steer it.
CPU_LIMIT_S = 120.0

#: inputs(module, batch_size, seq_len) -> keyword arguments of ``forward``, tensors on the CPU.
Inputs = Callable[[Any, int, int], Mapping[str, Any]]
Positions = dict[tuple[int, "str | None"], int]


@dataclass(frozen=True)
class Pass:
    """What is run. In phase ``decode`` one token is run behind ``past_len`` cached ones."""

    batch_size: int = 8
    seq_len: int = 128
    phase: str = "forward"
    past_len: int = 0
    dtype: str = "float32"
    attention: str = "sdpa"
    weights: str | None = None
    inputs: Inputs | None = None
    rung: str = "meta"
    variant: int = 0
    cpu_limit_s: float = CPU_LIMIT_S

    def checked(self) -> Pass:
        """Raises ModelError on wrong values; completes ``decode`` (one token, ``seq_len`` becomes the past)."""
        for name, low in (("batch_size", 1), ("seq_len", 1), ("past_len", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ModelError(f"{name} is {value!r}, expected a whole number from {low} on")
        if self.phase not in PHASES:
            raise ModelError(f"phase {self.phase!r}: expected one of {', '.join(PHASES)}")
        for what, value, known in (("dtype", self.dtype, DTYPES), ("attention", self.attention, ATTENTIONS)):
            if value not in known:
                raise ModelError(f"{what} {value!r}: expected one of {', '.join(known)}")
        if self.weights not in (None, *WEIGHTS):
            raise ModelError(f"weights {self.weights!r}: expected one of {', '.join(WEIGHTS)}")
        if not self.cpu_limit_s > 0:
            raise ModelError(f"cpu_limit_s is {self.cpu_limit_s!r}, expected seconds above 0")
        if self.phase == "decode":
            return replace(self, seq_len=1, past_len=self.past_len or self.seq_len)
        if self.past_len:
            raise ModelError(f"past_len {self.past_len} is for phase decode, not {self.phase}")
        return self


def trace(
    model: Any,
    batch_size: int = 8,
    seq_len: int = 128,
    phase: str = "forward",
    past_len: int = 0,
    dtype: str = "float32",
    attention: str = "sdpa",
    cost_model: str = "analytic",
    weights: str | None = None,
    inputs: Inputs | None = None,
    cpu_limit_s: float = CPU_LIMIT_S,
) -> ModelTree:
    """The model tree of one pass of ``model``: an ``nn.Module``, or what ``models.build`` takes.

    ``phase``: ``forward`` (no cache), ``prefill`` (fills a key-value cache), ``decode`` (one token behind
    ``past_len`` cached ones; without ``past_len``, behind ``seq_len``). ``weights``: ``int8`` or ``int4``
    counts matrices of Linear layers at that size. ``cost_model`` ``irene2021`` implies eager attention.
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

    from .fallbacks import climb

    run = Pass(
        batch_size, seq_len, phase, past_len, dtype, attention, weights, inputs, cpu_limit_s=cpu_limit_s
    ).checked()
    tree = climb(resolve(model), model, run) if isinstance(model, str) else _given(model, run)
    if cost_model == "irene2021":
        from .irene2021 import published_tree

        return published_tree(tree)
    return tree


@contextmanager
def collecting(errors: list[ModelError]) -> Iterator[None]:
    """Keeps a ModelError of its body in ``errors`` and goes on."""
    try:
        yield
    except ModelError as error:
        errors.append(error)


def variants(module: Any, run: Pass) -> int:
    """How many ways to call ``module`` are known."""
    from .inputs import variants_of

    return 1 if run.inputs is not None else len(variants_of(module, run.batch_size, run.seq_len))


def _given(module: Any, run: Pass) -> ModelTree:
    """A module of the user's: on meta as it is, else a copy of it without its weights."""
    from .unwrap import plain_module, without_weights

    module = plain_module(module)
    parameter = next(module.parameters(), None)
    if parameter is not None:
        run = replace(run, dtype=str(parameter.dtype)[6:])
    run = replace(run, attention=_attention(module) or run.attention)
    bare = without_weights(module)
    errors: list[ModelError] = []
    for variant in range(variants(bare, run)):
        with collecting(errors):
            return record(bare, type(module).__name__, replace(run, variant=variant))[0]
    raise errors[0]


def record(
    module: Any, name: str, run: Pass, keep: Any = None, shadows: Any = None
) -> tuple[ModelTree, Positions]:
    """The tree of one pass on the device that holds ``module``, and which call became which node.

    ``shadows``: values that are known already, of a module on meta.
    Keys of the second are (number of the call, primitive of its own operations or None).
    """
    from .assemble import Assembler
    from .conditions import evaluating, ordinary_run
    from .coverage import Beforehand, described, reach, sizes
    from .inputs import prepare
    from .recorder import Recorder
    from .value_tracking import shadows_for

    device = next((p.device.type for p in module.parameters()), "meta")
    shadows = shadows if shadows is not None else shadows_for(module)
    recorder, before = Recorder(module, keep, shadows), Beforehand()
    inputs: dict[str, Any] = {}
    with evaluating(module), ordinary_run():
        try:
            with before.watch(module), shadows.following() if shadows is not None else nullcontext():
                inputs, past = prepare(module, run, device, shadows)
            with recorder:
                output = module(**inputs)
        except ModelError:
            raise
        except Exception as error:
            where = recorder.where(error) or before.where(error)
            raise ModelError(_why_not(name, module, inputs, where, error)) from error
    header: dict[str, Any] = {
        "model": name, **sizes(run, inputs, output, past), "phase": run.phase, "dtype": run.dtype,
        "attention": run.attention, "cost_model": "analytic", "weights": run.weights,
    }  # fmt: skip
    assembler = Assembler(header, recorder.weights, run.weights)
    assert recorder.root is not None
    tree = assembler.tree(recorder.root)
    tree.header["traced_by"] = {
        **versions(), "rung": run.rung, "inputs": described(inputs),
        **reach(module, recorder.touched(), inputs, before.ran if run.phase == "decode" else set()),
    }  # fmt: skip
    if (ran := _attention(module) or run.attention) != run.attention:
        tree.header["traced_by"]["attention_ran"] = ran
    if run.inputs is None and "input_ids" in inputs and header["seq_len"] < run.seq_len:
        tree.header["traced_by"]["seq_len_asked"] = run.seq_len
    return tree, assembler.positions


def _attention(module: Any) -> str | None:
    """``eager`` or ``sdpa`` as a transformers model runs it, which may know no other; None where it does not say."""
    found = getattr(getattr(module, "config", None), "_attn_implementation", None)
    return found if found in ATTENTIONS else None


def _why_not(name: str, module: Any, inputs: Mapping[str, Any], where: str, error: Exception) -> str:
    """What failed, where, with which inputs, and what to pass instead."""
    from .coverage import described, not_given

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
