"""How long a campaign still takes, all of it: the pace so far corrects what the plan guessed."""

from __future__ import annotations

import time
from collections.abc import Sequence

#: Guesses count as if so many trials had taken what they say, so that the first ones do not make the pace.
_PRIOR_TRIALS = 4.0


class Pace:
    """Fed with trials as they end. ``share`` of the campaign only grows."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._spent_s = self._guessed_s = 0.0
        self._trials = 0
        self._share = 0.0

    def ended(self, guess_s: float, took_s: float) -> None:
        """A work of a round is done, all its attempts included."""
        self._spent_s += took_s
        self._guessed_s += guess_s
        self._trials += 1

    def seconds(self, guesses_s: Sequence[float]) -> float:
        """What works of these guesses take at the pace so far."""
        total = sum(guesses_s)
        if not self._trials:
            return total
        prior = _PRIOR_TRIALS * self._guessed_s / self._trials
        return total * (self._spent_s + prior) / (self._guessed_s + prior)

    def left_s(
        self,
        pending_s: Sequence[float],
        round_s: Sequence[float],
        rounds: int,
        budget_s: float | None,
        owed: bool,
    ) -> float:
        """Until the end: what this round has left, and ``rounds`` more like it as far as the budget reaches.

        ``owed``: nodes of this round have no label yet, and get one whatever the budget says.
        """
        now = self.seconds(pending_s)
        whole = now + rounds * self.seconds(round_s)
        if budget_s is not None:
            whole = max(min(whole, budget_s), now if owed else 0.0)
        return whole

    def share(self, left_s: float) -> float:
        """Of the time of the whole, 0 to 1."""
        elapsed = time.monotonic() - self._began
        self._share = max(self._share, elapsed / (elapsed + left_s) if elapsed + left_s > 0.0 else 0.0)
        return self._share
