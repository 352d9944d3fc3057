"""What sampling costs, measured in this process."""

from __future__ import annotations

from irene_build.measure.sampling_cost import sampling_cost


def test_the_cost_is_the_difference_of_two_shares_of_a_core() -> None:
    cost = sampling_cost(0.005, 0.3)
    assert cost["period_s"] == 0.005
    assert cost["off_share"] >= 0.0 and cost["on_share"] > 0.0
    assert cost["core_share"] == max(0.0, cost["on_share"] - cost["off_share"])
