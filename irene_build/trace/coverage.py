"""What a pass was, and what of the model it reached: sizes as they ran, parameters touched, parts left out."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .arguments import forward_parameters
from .tensors import data_of, tensors_of, text_of

if TYPE_CHECKING:
    from .request import Pass

#: A run that touched at least this share of the parameters counts as whole.
WHOLE = 0.99
#: Parameters of ``forward`` that reach no sub-model of their own.
_ORDINARY = frozenset((
    "attention_mask", "position_ids", "use_cache", "labels", "past_key_values", "head_mask", "inputs_embeds",
    "cache_position", "token_type_ids", "return_dict", "logits_to_keep", "cross_attn_head_mask", "kwargs",
    "decoder_head_mask", "decoder_attention_mask", "decoder_inputs_embeds", "encoder_outputs", "args",
    "encoder_attention_mask", "encoder_hidden_states", "interpolate_pos_encoding", "langs", "mask_time_indices",
    "mm_encoder_outputs",
))  # fmt: skip


def described(inputs: Mapping[str, Any]) -> list[str]:
    """``input_ids=8x128:int64`` for each tensor among the inputs."""
    return [f"{name}={text_of(t)}" for name, value in inputs.items() for t in tensors_of(value)[:1]]


def not_given(module: Any, inputs: Mapping[str, Any]) -> list[str]:
    """Tensors that ``forward`` takes and was not given, those that only mask, label or cache aside."""
    found = []
    for name, parameter in forward_parameters(module).items():
        kind = parameter.annotation
        tensor = kind is parameter.empty or "Tensor" in str(kind) or kind is Any
        ordinary = name in _ORDINARY or name.startswith("output_") or name.endswith("labels")
        if tensor and not ordinary and name not in inputs and parameter.kind not in (2, 4):
            found.append(name)
    return found


def sizes(run: Pass, inputs: Mapping[str, Any], output: Any, past: int) -> dict[str, int]:
    """Batch size, tokens of one sequence and cached tokens, as they ran.

    Inputs of the user's have their own sizes: those of the token ids, else those of the first hidden state.
    The registry's are as asked for, but for models with fewer positions, and models without token ids.
    """
    tensors = {name: data_of(value) for name, value in inputs.items() if hasattr(value, "dim")}
    ids = next((v for n, v in tensors.items() if n.endswith("input_ids") and v.dim() > 1), None)
    hidden = [data_of(t) for t in tensors_of(dict(output) if isinstance(output, Mapping) else output)]
    first = hidden[0] if hidden and hidden[0].dim() == 3 else None
    batch, tokens = run.batch_size, run.seq_len
    if run.inputs is not None:
        if ids is not None:
            batch, tokens = (int(n) for n in ids.shape[:2])
        elif first is not None:
            batch, tokens = (int(n) for n in first.shape[:2])
        else:
            given = next((data_of(t) for t in tensors_of(dict(inputs)) if t.dim()), None)
            batch, tokens = int(given.shape[0]) if given is not None else batch, 1
    elif ids is not None:
        tokens = min(tokens, int(ids.shape[1])) if "input_ids" in inputs else tokens
    elif first is not None:
        tokens = int(first.shape[1])
    return {"batch_size": batch, "seq_len": tokens, "past_len": past}


class Beforehand:
    """Watches what runs while inputs are made: the prefill of a decode step, encoders that are asked for sizes."""

    def __init__(self) -> None:
        self.ran: set[Any] = set()
        self._open: list[str] = []
        self._failed: list[tuple[BaseException, str]] = []

    @contextmanager
    def watch(self, module: Any) -> Iterator[None]:
        handles = []
        for scope, part in module.named_modules():
            label = f"{scope or '(root)'}:{type(part).__name__}"
            handles.append(part.register_forward_pre_hook(functools.partial(self._enter, label)))
            handles.append(part.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, label: str, part: Any, _: Any) -> None:
        self.ran.add(part)
        self._open.append(label)

    def _leave(self, *_: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and all(error is not known for known, _ in self._failed):
            self._failed.append((error, " > ".join(self._open[-3:])))
        self._open.pop()

    def where(self, error: Exception) -> str:
        """The modules that were running when ``error`` was raised."""
        paths = [path for known, path in self._failed if known is error]
        return f"{paths[0]}, while its inputs were made" if paths else "the making of its inputs"


def reach(module: Any, touched: set[int], inputs: Mapping[str, Any], before: set[Any]) -> dict[str, Any]:
    """Which share of the parameters ran; of a run that is not whole, the parts left out and the inputs not given.

    ``touched``: ids of the parameters that were read. ``before``: modules that ran in the prefill of a decode step;
    those that ran only there are no inputs' business.
    """
    counts = {id(p): p.numel() for p in module.parameters()}
    total = sum(counts.values())
    share = sum(n for i, n in counts.items() if i in touched) / total if total else 1.0
    found: dict[str, Any] = {"parameters": total, "executed_parameters": round(share, 6)}
    if share >= WHOLE:
        return found
    left: list[str] = []
    earlier: list[str] = []
    for scope, part in module.named_modules():
        own = {id(p) for p in part.parameters()}
        if own and not own & touched and not any(scope.startswith(f"{o}.") for o in (*left, *earlier)):
            ran = part in before or any(child in before for child in part.modules())
            (earlier if ran else left).append(scope)
    if earlier:
        found["run_in_prefill"] = earlier[:100]
    if left or not earlier:
        found["left_out"] = left[:100]
        found["inputs_not_given"] = not_given(module, inputs)
    return found
