"""Sums the kernels of a server's step: pure decoding, and decoding with prompts that come in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from irene_build.engines.stack import Launch, Stack

#: What a launch counts as, in the sums and in reports.
CLASSES = ("gemm", "attention", "experts", "all_reduce", "memory", "state")
_CLASS = {
    "prefill": "attention",
    "decode": "attention",
    "mla_prefill": "attention",
    "mla_decode": "attention",
}
Kernel = Callable[..., tuple[float, float, float, float]]


@dataclass
class StepCost:
    """Seconds and joules of one GPU's kernels in a step by class, float64[len(CLASSES)]; ``kernels``: how many."""

    time_s: np.ndarray
    energy_j: np.ndarray
    kernels: float

    def __add__(self, other: StepCost) -> StepCost:
        return StepCost(
            self.time_s + other.time_s, self.energy_j + other.energy_j, self.kernels + other.kernels
        )

    def scaled(self, x: float) -> StepCost:
        return StepCost(self.time_s * x, self.energy_j * x, self.kernels * x)


def class_of(launch: Launch, kind: str) -> str:
    """The class of a launch that runs as ``kind``."""
    return "state" if kind == "memory" and launch.shape[1] else _CLASS.get(kind, kind)


def cost(
    stack: Stack, kernel: Kernel, batch: float, context: float, prompts: float = 0.0, prompt: float = 0.0
) -> StepCost:
    """A step that decodes ``batch`` sequences behind ``context`` tokens, and prefills ``prompts`` prompts with them.

    Products run once over all tokens of the step; attention of decoding and of prompts are kernels of their own.
    """
    time_s, energy_j, kernels = np.zeros(len(CLASSES)), np.zeros(len(CLASSES)), 0.0
    dp = stack.layout.dp
    extra = prompts * prompt
    decode = stack.at(batch, 1.0, context)
    prefill = stack.at(max(prompts, 1e-9), prompt, prompt, prefill=True) if extra else decode
    for (launch, kind, dtype, shape), (_, other, _, wide) in zip(decode, prefill, strict=True):
        parts = [(kind, shape, 1.0)]
        if extra:
            if kind == "gemm":
                more = extra / dp if launch.per == "token" else prompts / dp
                parts = [(kind, (shape[0] + more, *shape[1:]), 1.0)]
            elif kind == "experts":
                parts = [(kind, (shape[0] + extra, *shape[1:]), 1.0)]
            elif kind == "all_reduce":
                parts = [(kind, (shape[0], shape[1] * (1.0 + extra / batch)), 1.0)]
            elif kind == "memory":
                parts = [(kind, (shape[0] + (wide[0] if prompts else 0.0),), 1.0)]
            else:
                # prompts of a replica arrive one at a time: whole prompts, and a share where fewer come
                own = prompts / dp
                whole = max(own, 1.0)
                parts.append((other, (whole, *wide[1:]), own / whole))
        for name, full, times in parts:
            shape = tuple(round(float(x), 6) for x in full)
            second, joule, _, _ = kernel(name, dtype, shape)
            if name == "experts" and shape[6] > 1.0:
                # the fullest GPU sets the time; all of them together spend what an even load does
                joule = kernel(name, dtype, (*shape[:7], 0.0))[1]
            at = CLASSES.index(class_of(launch, name))
            time_s[at] += launch.count * times * second
            energy_j[at] += launch.count * times * joule
            kernels += launch.count * times
    return StepCost(time_s, energy_j, kernels)
