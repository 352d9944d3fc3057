"""What sampling the resource features costs here; a campaign keeps it with its session."""

from __future__ import annotations

import time

from irene_runtime.sampler import PERIOD_S, Sampler


def sampling_cost(period_s: float = PERIOD_S, seconds: float = 3.0) -> dict[str, float]:
    """What sampling in a thread costs, by comparison: this process asleep with it off, then on.

    ``on_share`` and ``off_share``: CPU time of the process over time; ``core_share``: their difference, of
    one core. Measured asleep, so that caches are cold, as they are between the samples of a campaign.
    """

    def share() -> float:
        cpu, start = time.process_time(), time.monotonic()
        time.sleep(seconds)
        return (time.process_time() - cpu) / (time.monotonic() - start)

    off = share()
    with Sampler(period_s):
        on = share()
    return {"period_s": period_s, "on_share": on, "off_share": off, "core_share": max(0.0, on - off)}
