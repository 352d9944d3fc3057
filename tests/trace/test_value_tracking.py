"""Values of small meta tensors follow what torch computes on the CPU."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from irene_build.trace.value_tracking import Shadows


def test_values_follow_views_and_writes_in_place() -> None:
    shadows = Shadows()
    with shadows.following():
        base = torch.arange(6, device="meta").view(2, 3)
        row = base[1]
        row.add_(10)
        assert base.is_meta
        assert shadows.get(base).tolist() == [[0, 1, 2], [13, 14, 15]]
        assert (base.sum() == 45).item() is True


def test_what_hangs_on_values_has_the_right_shape() -> None:
    shadows = Shadows()
    with shadows.following():
        found = torch.nonzero(torch.arange(5, device="meta") > 2)
    assert found.is_meta
    assert tuple(found.shape) == (2, 1)


def test_writing_something_unknown_makes_all_views_unknown() -> None:
    shadows = Shadows()
    unknown = torch.empty(3, dtype=torch.long, device="meta")
    with shadows.following():
        base = torch.zeros(2, 3, dtype=torch.long, device="meta")
        view = base[0]
        view.copy_(unknown)
    assert shadows.get(base) is None
    assert shadows.get(view) is None


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=20), st.integers(1, 7))
def test_integer_arithmetic_agrees_with_the_cpu(values: list[int], factor: int) -> None:
    def compute(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.cumsum(0) * factor, x.flip(0) // factor]).unique()

    shadows = Shadows()
    real = torch.tensor(values)
    meta = real.to("meta")
    shadows.put(meta, real)
    with shadows.following():
        result = compute(meta)
    assert shadows.get(result).tolist() == compute(real).tolist()
    assert result.shape == compute(real).shape


def test_one_hot_has_the_values_and_the_classes_of_the_cpu() -> None:
    shadows = Shadows()
    with shadows.following():
        index = torch.tensor([[0, 2], [1, 0]], device="meta")
        known = torch.nn.functional.one_hot(index)
        unknown = torch.nn.functional.one_hot(torch.empty(2, dtype=torch.long, device="meta"), 5)
    assert known.is_meta and shadows.get(known).tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 0]]]
    assert tuple(unknown.shape) == (2, 5) and shadows.get(unknown) is None


def test_a_number_written_into_a_part_is_followed() -> None:
    shadows = Shadows()
    with shadows.following():
        base = torch.zeros(3, device="meta")
        base[1:] = 2.5
    assert shadows.get(base).tolist() == [0.0, 2.5, 2.5]
