"""Requests whose joules follow a formula, as what fills tables; and logs of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from irene_build.score.loaded import Loaded

DIGEST = "ab" * 32


@dataclass
class Formula:
    """A pass of b sequences: prefill of p tokens scale (5 + 0.02 b p + 1e-6 b p^2) J, a decode step after c tokens
    scale (2 + 0.1 b + 1e-4 b c) J; interval 0.8 to 1.3; 1e-2 s and 1e-3 s a J.

    More than ``reach`` tokens extrapolate, more than ``end`` cannot be.
    """

    scale: float = 1.0
    reach: int = 1 << 30
    end: int = 1 << 30
    asked: list[int] = field(default_factory=list)
    key: str = ""

    def passes(self, phase: str, tokens: np.ndarray, batch_size: int) -> np.ndarray:
        self.asked += tokens.tolist()
        x, b = tokens.astype(float), float(batch_size)
        energy = 5.0 + 0.02 * b * x + 1e-6 * b * x**2 if phase == "prefill" else 2.0 + 0.1 * b + 1e-4 * b * x
        energy = np.where(tokens > self.end, np.nan, energy * self.scale)
        return np.stack(
            [energy, 0.8 * energy, 1.3 * energy, 1e-2 + 1e-3 * energy, (tokens > self.reach).astype(float)],
            axis=1,
        )

    def request_j(self, prompt: int, output: int, batch_size: int = 1) -> float:
        """Joules of one request, added up step by step."""
        prefill = self.passes("prefill", np.array([prompt]), batch_size)[0, 0]
        steps = self.passes("decode", np.arange(prompt, prompt + max(output - 1, 0)), batch_size)[:, 0]
        return float((prefill + steps.sum()) / batch_size)


def loaded(**models: Formula) -> Loaded:
    return Loaded(
        models or {"m": Formula()},
        DIGEST,
        {"hardware": "lab", "boundary": "wall", "provenance": "simulated", "digest": DIGEST},
    )
