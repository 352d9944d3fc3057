"""``trace_symbolic``: one file for every size of a model, found by tracing a few and proved at others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from irene_build.errors import ModelError
from irene_runtime.symbolic import PHASES, SYMBOLIC_HEADER, SYMBOLIC_VERSION, SymbolicTree
from irene_runtime.tree import TREE_FORMAT, ModelTree

from .api import trace_model
from .blocks import Folding
from .config import deep, first_of, positions_of
from .fit import expert_candidates
from .sections import Domain, Fit, MisfitError, Prober, sections

#: Names of configurations under which the width of sliding attention stands.
_WINDOWS = ("sliding_window", "local_attention", "attention_window", "attention_chunk_size", "window_size")
#: Cached tokens and new ones that a step of several is proved at, where the model's positions end neither.
_FAR = 4096
#: A pass with real tensors takes its time: sizes up to this are looked at.
_REAL_TOP = 256


def trace_symbolic(
    model: Any,
    phases: Sequence[str] = (),
    dtype: str | None = None,
    attention: str = "sdpa",
    weights: str | None = None,
    cache: str = "dynamic",
    quantise_head: bool = False,
    all_logits: bool = False,
    before: Callable[[], None] = lambda: None,
) -> SymbolicTree:
    """The tree of every size of ``model``: what ``trace_model`` takes, or an ``nn.Module``.

    ``phases``: of ``forward``, ``prefill``, ``decode``, ``extend`` (several tokens behind cached ones); by default
    the last three of a model that generates, else ``forward``. A phase that the model does not have is left out,
    one that follows no expressions is listed under ``refused``. ``before``: called when a first size has been traced
    and many follow. Raises ModelError where nothing is left.
    """
    for phase in phases:
        if phase not in PHASES:
            raise ModelError(f"phase {phase!r}: expected one of {', '.join(PHASES)}")
    options = {
        "dtype": dtype, "attention": attention, "weights": weights, "cache": cache, "quantise_head": quantise_head,
        "all_logits": all_logits,
    }  # fmt: skip
    out = _File(model, options, before)
    if not phases:
        phases = ("prefill", "decode", "extend") if out.generates() else ("forward",)
    for phase in phases:
        out.add(phase)
    if not out.sections:
        why = "; ".join(dict.fromkeys(entry["why"] for entry in out.refused))
        raise ModelError(
            f"no symbolic tree of {model if isinstance(model, str) else type(model).__name__}: {why}"
        )
    return SymbolicTree(out.data())


class _File:
    """A file of tree format 2 that grows phase by phase."""

    def __init__(self, model: Any, options: dict[str, Any], before: Callable[[], None]) -> None:
        self._model, self._options, self._before = model, options, before
        self._folding = Folding()
        self._header: dict[str, Any] = {}
        self.sections: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []

    def generates(self) -> bool:
        """Whether a token can be decoded behind cached ones."""
        try:
            trace_model(self._model, 2, 1, "decode", 5, **self._options)
        except ModelError:
            return False
        return True

    def add(self, phase: str) -> None:
        """Raises ModelError where the model does not have the phase."""

        def run(batch: int, tokens: int, cached: int) -> ModelTree:
            return self._checked(trace_model(self._model, batch, tokens, phase, cached, **self._options))

        config = self._config(phase)
        prober = Prober(phase, run, expert_candidates(config))
        domain = self._domain(phase, prober, config)
        for found in sections(prober, domain):
            if isinstance(found, Fit):
                self._add(found, domain, prober)
            else:
                batch, low, high, why = found
                self._refuse(phase, [batch, 1 if batch == 1 else None], [low, high], why)

    def _config(self, phase: str) -> Any:
        if not isinstance(self._model, str):
            return getattr(self._model, "config", None)
        from irene_build.models.specs import resolve

        return resolve(self._model, phase != "forward").config

    def _domain(self, phase: str, prober: Prober, config: Any) -> Domain:
        positions = positions_of(config) if config is not None else None
        small = (2, 5, 0) if phase in ("forward", "prefill") else (2, 1 if phase == "decode" else 2, 5)
        tree = prober.tree(small)
        header = tree.header
        if not self._header:
            self._before()
        fixed = phase in ("forward", "prefill") and header["seq_len"] != small[1]
        if fixed and prober.tree((2, 9, 0)).header["seq_len"] != header["seq_len"]:
            raise MisfitError(f"{header['model']} runs another number of tokens than it is asked for")
        if self._header.setdefault("model", header["model"]):
            self._describe(tree, None if fixed else positions, config)
        top = positions
        if top is not None and phase in ("decode", "extend"):
            top -= small[1]
        if header["traced_by"].get("rung", header["traced_by"].get("tensors")) in ("cpu", "real"):
            top = min(top or _REAL_TOP, _REAL_TOP)
        thresholds = (
            {v for name in _WINDOWS if isinstance(v := deep(config, name), int)}
            if config is not None
            else set()
        )
        thresholds |= {v // 2 for v in thresholds}
        return Domain(phase, top, sorted(thresholds), fixed)

    def _describe(self, tree: ModelTree, positions: int | None, config: Any) -> None:
        head = self._header
        head.update((key, tree.header[key]) for key in ("dtype", "attention", "cost_model", "weights"))
        by = {k: v for k, v in tree.header["traced_by"].items() if k not in ("inputs", "seq_len_asked")}
        head.setdefault("traced_by", by)
        head["positions"] = positions
        phase = tree.header["phase"]
        if phase != "forward":
            head["cache"] = self._options["cache"]
            head["logits"] = "all" if self._options["all_logits"] else "last"
        if first_of(config, "is_encoder_decoder"):
            head["encoder"] = "audio" if getattr(config, "num_mel_bins", None) else "text"

    def _checked(self, tree: ModelTree) -> ModelTree:
        """Sizes that fell back to other tensors or another dtype count as other trees."""
        dtype = self._header.get("dtype")
        if dtype is not None and tree.header["dtype"] != dtype:
            raise MisfitError(f"this size was traced in {tree.header['dtype']}, others in {dtype}")
        return tree

    def _add(self, fit: Fit, domain: Domain, prober: Prober) -> None:
        tokens: list[int | None] = [fit.low, fit.high]
        cached: list[int | None] = [0, 0]
        if fit.phase == "decode":
            tokens, cached = [1, 1], tokens
        elif fit.phase == "extend":
            cached, tokens = tokens, [2, None]
            last = fit.high if fit.high is not None else _FAR
            room = _FAR if domain.top is None else domain.top + 2
            for past in {fit.low, max(fit.low, last - room // 2)}:
                most = min(_FAR, room - past)
                if most > 8 and not prober.holds(fit, (fit.batch[0], most, past)):
                    self._refuse("extend", list(fit.batch), cached, "attention changes within its tokens")
                    return
        root = self._folding.add(fit.nodes, fit.features)
        self.sections.append({
            "phase": fit.phase, "class": fit.kind, "batch_size": list(fit.batch), "seq_len": tokens,
            "past_len": cached, "root": root,
        })  # fmt: skip

    def _refuse(self, phase: str, batch: list[int | None], lengths: list[int | None], why: str) -> None:
        tokens, cached = (lengths, [0, 0]) if phase in ("forward", "prefill") else ([1, None], lengths)
        entry = {"phase": phase, "batch_size": batch, "seq_len": tokens, "past_len": cached, "why": why}
        self.refused.append(entry)

    def data(self) -> dict[str, Any]:
        out: dict[str, Any] = {"format": TREE_FORMAT, "version": SYMBOLIC_VERSION}
        out.update((key, self._header.get(key)) for key in SYMBOLIC_HEADER)
        out["expressions"] = self._folding.expressions
        out["blocks"] = self._folding.blocks()
        out["sections"] = [{**s, "root": self._folding.place(s["root"])} for s in self.sections]
        out["refused"] = self.refused
        return out


def dumps(tree: SymbolicTree) -> str:
    """The text of a symbolic tree's file: an expression, a block, a section a line."""
    data = dict(tree.data)
    lists = ("expressions", "blocks", "sections", "refused")
    head = json.dumps({k: v for k, v in data.items() if k not in lists}, allow_nan=False)
    parts = []
    for name in lists:
        lines = ",\n".join(json.dumps(item, separators=(",", ":"), allow_nan=False) for item in data[name])
        parts.append(f'"{name}": [\n{lines}\n]' if lines else f'"{name}": []')
    return f"{head[:-1]},\n" + ",\n".join(parts) + "}\n"
