from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irene_build.dataset import aiconfigurator, kernels
from irene_build.errors import DatasetError, InputError
from tests.kernel_tables import write_systems


def test_each_row_becomes_a_leaf_with_time_and_joules(tmp_path: Path) -> None:
    table = aiconfigurator.read(write_systems(tmp_path), "h200_sxm", "vllm", None)
    groups = {(g.kind, g.dtype): g for g in table.groups}
    assert {k: len(g.latency_s) for k, g in groups.items()} == {
        ("gemm", "bfloat16"): 72,
        ("prefill", "bfloat16"): 24,
        ("decode", "bfloat16"): 24,
    }
    gemm = groups["gemm", "bfloat16"]
    assert gemm.shape[0].tolist() == [1.0, 512.0, 512.0]
    assert gemm.latency_s[0] == pytest.approx(3e-6 + 2 * (512 + 512 * 512 + 512) / 4e12)
    assert groups["decode", "bfloat16"].shape[:, 1].max() == 8192, "context: cached tokens and the new one"
    assert table.powered == table.rows
    assert table.info["device"]["peak_flops_per_s"]["fp8"] == 1978e12


def test_the_newest_version_unless_one_is_named(tmp_path: Path) -> None:
    write_systems(tmp_path)
    newest = aiconfigurator.read(tmp_path, "h200_sxm", "vllm", None)
    assert newest.info["tables"]["gemm_perf"]["version"] == "0.22.0", "0.22 is newer than 0.9"
    old = aiconfigurator.read(tmp_path, "h200_sxm", "vllm", "0.9.0")
    assert set(old.info["tables"]) == {"gemm_perf"}


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    write_systems(tmp_path)
    with pytest.raises(InputError, match="no system 'h300'; there are h200_sxm"):
        aiconfigurator.read(tmp_path, "h300", "vllm", None)
    with pytest.raises(InputError, match=r"no tables of vllm 1\.0; versions there: 0\.22\.0, 0\.9\.0"):
        aiconfigurator.read(tmp_path, "h200_sxm", "vllm", "1.0")


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    table = aiconfigurator.read(write_systems(tmp_path, power=False), "h200_sxm", "vllm", None)
    kernels.save(table, tmp_path / "k.npz")
    again = kernels.load(tmp_path / "k.npz")
    assert again.info == table.info
    assert again.powered == 0
    assert all(np.array_equal(a.shape, b.shape) for a, b in zip(again.groups, table.groups, strict=True))
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(DatasetError, match="not a table of kernels"):
        kernels.load(tmp_path / "bad.npz")


def test_kernels_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "k.csv"
    file.write_text("primitive,dtype,m,n,k,latency_s,energy_j\ngemm,fp8,8,64,64,1e-5,2e-3\n")
    (group,) = kernels.read_generic(file)
    assert (group.kind, group.dtype, group.power_w.tolist()) == ("gemm", "fp8", [200.0])
    file.write_text("primitive,latency_s\nwarp,1e-5\n")
    with pytest.raises(DatasetError, match="primitive 'warp': expected one of gemm"):
        kernels.read_generic(file)
    file.write_text("primitive,latency_s,m,n\ngemm,1e-5,1,1\n")
    with pytest.raises(DatasetError, match="rows of gemm need the column k"):
        kernels.read_generic(file)
