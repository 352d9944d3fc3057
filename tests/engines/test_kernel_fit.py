"""The kernels' law learns an invented roofline; joules carry over to a device without power."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irene_build.dataset import aiconfigurator
from irene_build.engines import kernel_fit
from irene_build.errors import InputError
from irene_runtime.kernels import BOUND, kernel
from tests.kernel_tables import write_systems


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return aiconfigurator.read(write_systems(tmp_path_factory.mktemp("a")), "h200_sxm", "vllm", None)


def test_time_and_power_are_learned_and_the_scalar_form_says_the_same(table) -> None:  # type: ignore[no-untyped-def]
    device = kernel_fit.fit_device(table)
    for group in table.groups:
        rows = np.arange(len(group.latency_s))
        says = kernel_fit.predict_time(group, rows, device)
        assert np.median(np.abs(says / group.latency_s - 1.0)) < 0.06
        watts = kernel_fit.predict_power(group, rows, group.latency_s, device)
        assert np.median(np.abs(watts / group.power_w - 1.0)) < 0.12
        one = kernel(device, group.kind, group.dtype, group.shape[7])
        assert one[0] == pytest.approx(says[7], rel=1e-9)
        watt = kernel_fit.predict_power(group, rows[7:8], says[7:8], device)[0]
        assert one[1] == pytest.approx(says[7] * watt, rel=1e-9)


def test_shapes_left_out_are_judged_beside_the_nearest_kernel(table) -> None:  # type: ignore[no-untyped-def]
    found = kernel_fit.leave_shapes_out(table, None, folds=3)
    assert found["gemm"]["n"] == 72
    assert found["gemm"]["time"]["p50"] < found["gemm"]["nearest_time"]["p50"]


def test_a_correction_fades_to_nothing_away_from_the_data(table) -> None:  # type: ignore[no-untyped-def]
    from irene_runtime.kernels import correction

    law = kernel_fit.fit_device(table)["kernels"]["gemm|bfloat16"]["table"]
    assert all(abs(v) <= 1000 * BOUND + 1 for v in law["milli"])
    assert correction(law, [40.0, 12.0, 12.0]) == 0.0


def test_without_power_joules_are_carried_or_refused(table, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    dark = aiconfigurator.read(write_systems(tmp_path, power=False), "h200_sxm", "vllm", None)
    with pytest.raises(InputError, match="--power-from"):
        kernel_fit.fit_device(dark)
    carried = kernel_fit.fit_device(dark, kernel_fit.fit_device(table)["power"])
    assert carried["power"]["provenance"] == "carried"
