"""What is asked of a trace: one pass (sizes, phase, dtype, attention), and the error of what no fallback can mend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from irene_build.errors import ModelError

COST_MODELS = ("analytic", "irene2021")
PHASES = ("forward", "prefill", "decode")
WEIGHTS = ("int8", "int4")
DTYPES = ("float32", "float16", "bfloat16")
ATTENTIONS = ("eager", "sdpa")
#: Seconds that a pass with real tensors may take, the last resort for a model whose values steer it.
CPU_LIMIT_S = 120.0

#: inputs(module, batch_size, seq_len) -> keyword arguments of ``forward``, tensors on the CPU.
Inputs = Callable[[Any, int, int], Mapping[str, Any]]


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
    #: What the pass runs on: meta, fake, cpu or real tensors.
    tensors: str = "meta"
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


class RefusedError(ModelError):
    """What was asked for does not fit the model, whatever tensors it runs on."""
