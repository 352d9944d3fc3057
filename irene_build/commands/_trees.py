"""The tree that `predict`, `sweep` and `compare` are asked about: of a MODEL or of a file, at a size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irene_build import console
from irene_build.errors import InputError, ModelError, TreeError
from irene_runtime.symbolic import SymbolicTree
from irene_runtime.tree import ModelTree

DEFAULT_SEQ_LEN = 128


def tree_file(what: str) -> Path | None:
    """The path where ``what`` is meant as a tree file; None where it is a MODEL.

    A file is a tree unless it is a transformers configuration; a name that ends like a file must exist.
    """
    path = Path(what)
    if path.is_dir() or (":" in what and not path.exists()):
        return None
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(1 << 16)
        return None if b'"model_type"' in head and b'"irene-tree"' not in head else path
    if path.suffix == ".json":
        raise InputError(
            f"{what}: no such file; give a tree file or a MODEL (`irene-build models` lists names)"
        )
    return None


def refuse_beside(what: str, given: Sequence[str], why: str) -> None:
    """Raises InputError for options that mean nothing beside ``what``."""
    if given:
        raise InputError(f"{', '.join(given)}: not beside {what}, {why}")


def _told(model: str) -> None:
    console.note(f"tracing {model} for every size, once")


class Sizes:
    """MODEL at one size after another: traced once for every size, where the model allows it."""

    def __init__(
        self,
        model: str,
        phase: str,
        dtype: str,
        attention: str,
        cost_model: str,
        inputs: Any = None,
        use_cache: bool = True,
        all_logits: bool = False,
        weights: str = "",
    ) -> None:
        self.model, self.phase, self.inputs = model, phase, inputs
        self._options: dict[str, Any] = {"dtype": dtype, "attention": attention, "all_logits": all_logits}
        if weights:
            self._options["weights"] = weights
        self._cost_model, self._use_cache = cost_model, use_cache
        self._symbolic: SymbolicTree | str | None = "unknown"

    def symbolic(self) -> SymbolicTree | None:
        """The symbolic tree; None where there is none. Raises ModelError where the model cannot be traced at all."""
        if self._symbolic == "unknown":
            self._symbolic = None
            if self.inputs is None and self._cost_model == "analytic":
                from irene_build.trace.cached import tree_of_every_size

                try:
                    self._symbolic = tree_of_every_size(
                        self.model,
                        [self.phase],
                        use_cache=self._use_cache,
                        before=lambda: _told(self.model),
                        **self._options,
                    )
                except ModelError as error:
                    if "no symbolic tree of" not in str(error):
                        raise
        assert not isinstance(self._symbolic, str)
        return self._symbolic

    def at(self, batch_size: int, seq_len: int | None, past_len: int = 0) -> ModelTree:
        """The tree at a size; ``seq_len`` None: 128, or as many as the model has positions for.

        Raises InputError where a model has fewer positions than ``seq_len``.
        """
        for name, value, low in (
            ("batch_size", batch_size, 1),
            ("seq_len", seq_len, 1),
            ("past_len", past_len, 0),
        ):
            if value is not None and value < low:
                raise InputError(f"{name} is {value}, expected a whole number from {low} on")
        found = self.symbolic()
        if found is None:
            return self._traced(batch_size, seq_len, past_len)
        try:
            return found.at(batch_size, self._length(found, seq_len, past_len), past_len, self.phase)
        except TreeError as error:
            if "positions" in str(error) or "expected a whole number" in str(error):
                raise InputError(str(error)) from None
            return self._traced(batch_size, seq_len, past_len)

    def _length(self, found: SymbolicTree, seq_len: int | None, past_len: int) -> int | None:
        fixed = {section.seq_len for section in found.sections}
        if self.phase in ("forward", "prefill") and all(s.low == s.high for s in fixed) and len(fixed) == 1:
            return fixed.pop().low  # images: it runs as many whatever is asked
        if seq_len is not None:
            return seq_len
        positions: Any = found.header["positions"]
        if positions is None:
            return DEFAULT_SEQ_LEN
        room = positions - (1 if self.phase == "decode" else past_len)
        return max(1, min(DEFAULT_SEQ_LEN, room))

    def _traced(self, batch_size: int, seq_len: int | None, past_len: int) -> ModelTree:
        from irene_build.trace import trace

        length = DEFAULT_SEQ_LEN if seq_len is None else seq_len
        return trace(
            self.model, batch_size, length, phase=self.phase, past_len=past_len, cost_model=self._cost_model,
            inputs=self.inputs, cut=seq_len is None, **self._options,
        )  # fmt: skip


def generating(model: str, extend: bool, dtype: str, attention: str, use_cache: bool) -> SymbolicTree:
    """The symbolic tree of a MODEL that generates: prefill and decode, and steps of several tokens.

    Raises InputError for models that do not generate.
    """
    from irene_build.trace.cached import tree_of_every_size

    phases = ["prefill", "decode", *(["extend"] if extend else [])]
    try:
        return tree_of_every_size(
            model, phases, dtype=dtype, attention=attention, use_cache=use_cache, before=lambda: _told(model)
        )
    except ModelError as error:
        if "keeps no cache" in str(error) or "returned no cache" in str(error):
            console.note(
                "requests are for models that generate: `irene-build models` lists Llama-3-8B and others"
            )
        raise
