"""What is asked of a trace: one pass (sizes, phase, dtype, attention), and the error of what no fallback can mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from irene_build.errors import ModelError
from irene_build.models.stored import SCHEMES, Stored

COST_MODELS = ("analytic", "irene2021")
PHASES = ("forward", "prefill", "decode", "extend")
#: ``full``: at ``dtype``, whatever a checkpoint says.
WEIGHTS = (*SCHEMES, "full")
CACHES = ("dynamic", "static")
DTYPES = ("float32", "float16", "bfloat16")
ATTENTIONS = ("eager", "sdpa")
#: Seconds that a pass with real tensors may take, the last resort for a model whose values steer it.
CPU_LIMIT_S = 120.0

#: Tokens of one pass: more than any device holds, and few enough to make in memory.
MAX_TOKENS = 2**25

#: inputs(module, batch_size, seq_len) -> arguments of ``forward``, tensors on the CPU: a dict by name, a tuple of
#: positional ones, or one tensor.
Inputs = Callable[[Any, int, int], Any]


@dataclass(frozen=True)
class Pass:
    """What is run. In phase ``decode`` one token is run behind ``past_len`` cached ones, in ``extend`` several.

    ``all_logits``: a prefill computes those of every token, not of the last one alone.
    """

    batch_size: int = 8
    seq_len: int = 128
    phase: str = "forward"
    past_len: int = 0
    dtype: str = "float32"
    attention: str = "sdpa"
    #: How the weights are stored, where not in ``dtype``.
    stored: Stored | None = None
    #: The cache of keys and values: ``dynamic`` grows by copying, ``static`` is written in place.
    cache: str = "dynamic"
    #: Images a sequence beside the text, and their (height, width); None: what the model's configuration says.
    images: int | None = None
    image_size: tuple[int, int] | None = None
    inputs: Inputs | Any = None
    #: What the pass runs on: meta, fake, cpu or real tensors.
    tensors: str = "meta"
    variant: int = 0
    cpu_limit_s: float = CPU_LIMIT_S
    all_logits: bool = False
    #: Whether a model with fewer positions than ``seq_len`` is traced with as many as it has; else it refuses.
    cut: bool = True

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
        if self.cache not in CACHES:
            raise ModelError(f"cache {self.cache!r}: expected one of {', '.join(CACHES)}")
        if self.images is not None and self.images < 0:
            raise ModelError(f"images is {self.images}, expected a number from 0 on")
        if self.image_size is not None and min(self.image_size) < 1:
            raise ModelError(f"image_size is {self.image_size}, expected a height and a width from 1 on")
        if not self.cpu_limit_s > 0:
            raise ModelError(f"cpu_limit_s is {self.cpu_limit_s!r}, expected seconds above 0")
        tokens = self.batch_size * max(self.seq_len, self.past_len)
        if tokens > MAX_TOKENS:
            raise ModelError(
                f"batch_size {self.batch_size} x {max(self.seq_len, self.past_len)} tokens are {tokens:,} in one pass, "
                f"at most {MAX_TOKENS:,} can be traced; a symbolic tree (trace --symbolic) is evaluated at any size"
            )
        if self.phase == "decode":
            return replace(self, seq_len=1, past_len=self.past_len or self.seq_len)
        if self.phase == "extend":
            if not self.past_len:
                raise ModelError(
                    "phase extend runs tokens behind cached ones: give past_len, how many those are"
                )
            return self
        if self.past_len:
            raise ModelError(f"past_len {self.past_len} is for phase decode, not {self.phase}")
        return self


class RefusedError(ModelError):
    """What was asked for does not fit the model, whatever tensors it runs on."""
