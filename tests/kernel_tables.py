"""Files in AIConfigurator's public layout from an invented roofline: no measurement of anybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SYSTEM = """
gpu: {mem_bw: 4800000000000, mem_capacity: 151397597184, bfloat16_tc_flops: 989000000000000,
      fp8_tc_flops: 1978000000000000, power: 700, sm_version: 90}
node: {intra_node_bw: 450000000000}
"""


def write_systems(folder: Path, power: bool = True, system: str = "h200_sxm") -> Path:
    """A checkout with products and attention of one device; returns the folder to import."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    systems = folder / "src/aiconfigurator/systems"
    systems.mkdir(parents=True)
    (systems / f"{system}.yaml").write_text(SYSTEM)
    m, n, k = (
        x.ravel()
        for x in np.meshgrid([1, 8, 64, 256, 1024, 4096], [512, 1024, 4096, 8192], [512, 2048, 8192])
    )
    work, data = 2.0 * m * n * k, 2.0 * (m * k + n * k + m * n)
    gemm = {"gemm_dtype": ["bfloat16"] * len(m), "m": m, "n": n, "k": k}
    _write(
        pq, pa, systems / "data" / system / "gemm/vllm/0.9.0/gemm_perf.parquet", gemm, work * 2.0, data, power
    )
    _write(pq, pa, systems / "data" / system / "gemm/vllm/0.22.0/gemm_perf.parquet", gemm, work, data, power)
    b, s, h = (x.ravel() for x in np.meshgrid([1, 8, 64, 256], [128, 1024, 8192], [8, 32]))
    common = {"kv_cache_dtype": ["bfloat16"] * len(b), "batch_size": b, "num_heads": h, "num_key_value_heads": h // 4,
              "head_dim": np.full(len(b), 128)}  # fmt: skip
    decode = {**common, "isl": np.ones(len(b), int), "step": s - 1}
    folder_of = systems / "data" / system / "attention/vllm/0.22.0"
    cache = 2.0 * b * s * (h // 4) * 128 * 2
    _write(
        pq, pa, folder_of / "generation_attention_perf.parquet", decode, 4.0 * b * s * h * 128, cache, power
    )
    prefill = {**common, "isl": s, "step": np.zeros(len(b), int)}
    _write(
        pq, pa, folder_of / "context_attention_perf.parquet", prefill, 2.0 * b * s * s * h * 128, cache, power
    )
    return folder


def _write(pq, pa, path, columns, flops, data, power):  # type: ignore[no-untyped-def]
    time_s = 3e-6 + np.maximum(flops / 6e14, data / 4e12)
    columns = {**columns, "latency": 1e3 * time_s}
    if power:
        watts = np.minimum(690.0, 120.0 + (7e-13 * flops + 6e-11 * data) / time_s)
        columns |= {"power": watts, "power_limit": np.full(len(watts), 700.0)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
