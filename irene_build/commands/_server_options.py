"""Options of `--engine vllm` that predict, sweep and compare share."""

from __future__ import annotations

from typing import Any

import typer

ENGINE: Any = typer.Option(
    "transformers", "--engine", help="Whose kernels: transformers, or vllm (a server)."
)
TP: Any = typer.Option(1, "--tp", help="With --engine vllm: GPUs that divide every product.")
EP: Any = typer.Option(
    1, "--ep", help="With --engine vllm: GPUs that divide the experts (--tp x --dp, or 1)."
)
DP: Any = typer.Option(1, "--dp", help="With --engine vllm: replicas of attention.")
WEIGHTS: Any = typer.Option("bfloat16", "--weights", help="With --engine vllm: bfloat16, fp8, fp8-block, ...")
KV_CACHE: Any = typer.Option("bfloat16", "--kv-cache-dtype", help="With --engine vllm: bfloat16 or fp8.")
