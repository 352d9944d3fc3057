"""Prints what scoring a log takes beside DuckDB reading the same file and writing the same columns of a formula.

    python benchmarks/bench_score.py OUT --tree TREE [--rows 10000000] [--runners spark,ray]

OUT is an exported bundle, TREE a symbolic tree of 16,384 positions or more. The log has lengths like those that Azure
published for 2023 (log-normal: prompts of median 1,020 and mean 1,155 tokens for conversations, 1,500 and 2,048 for
code; answers of median 129 and 13), seeded. Tables are filled by a first run on a thousand rows (the hundred
models share one tree); every run is a process of its own, and its peak memory is printed. `--runners`
also times a tenth of the rows on Spark (local[*]) and Ray, beside the local runner on the same tenth.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MODELS = 100
#: Share, median prompt, spread, median answer, spread.
KINDS = ((0.7, 1020.0, 0.6, 129.0, 1.1), (0.3, 1500.0, 0.8, 13.0, 1.2))
DUCKDB = """
import sys, duckdb
connection = duckdb.connect()
connection.execute("set threads = " + sys.argv[3])
connection.execute(f\"\"\"copy (
  select log.*, prefill + decode as energy_j, 0.9 * (prefill + decode) as energy_low_j,
    1.2 * (prefill + decode) as energy_high_j, prefill as prefill_energy_j, decode as decode_energy_j,
    1.0::double as batch_used, case when prompt > 4096 then 'extrapolates' else '' end as flags,
    repeat('a', 64) as estimator_digest
  from (select *, 5.0 + 0.02 * prompt + 1e-6 * prompt * prompt as prefill,
    (output - 1) * (2.1 + 1e-4 * prompt) + 5e-5 * (output - 1) * (output - 2) as decode from '{sys.argv[1]}') log
) to '{sys.argv[2]}' (format parquet)\"\"\")
"""


def make(path: Path, rows: int, models: int, seed: int = 0) -> None:
    """Write a log, a million rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, writer = np.random.default_rng(seed), None
    for start in range(0, rows, 1 << 20):
        count = min(1 << 20, rows - start)
        kind = rng.random(count) < KINDS[0][0]
        prompt, output = np.empty(count), np.empty(count)
        for chosen, (_, p, p_spread, o, o_spread) in zip((kind, ~kind), KINDS, strict=True):
            number = int(chosen.sum())
            prompt[chosen] = np.exp(rng.normal(np.log(p), p_spread, number))
            output[chosen] = np.exp(rng.normal(np.log(o), o_spread, number))
        columns = {
            "id": np.arange(start, start + count),
            "prompt": np.clip(prompt, 1, 14050).astype(np.int64),
            "output": np.clip(output, 1, 1899).astype(np.int64),
        }
        if models > 1:
            names = np.array([f"model-{number:03d}" for number in range(models)])
            columns["model"] = names[rng.integers(0, models, count)]
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=1 << 17)
    if writer is not None:
        writer.close()


def timed(what: str, *command: str) -> float:
    """Seconds of a process; printed with its time on the processor and its peak memory."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    if status:
        raise SystemExit(f"{what} failed: {' '.join(command)[:300]}")
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(f"  {what:30} {seconds:7.2f} s, {cpu:7.2f} s of processor, peak {peak:5.0f} MiB", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--tree", required=True)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runners", default="")
    args = parser.parse_args()
    from irene_build.score.logs import cores

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        score = ("-m", "irene_build.cli", "score", args.bundle)
        for models in (1, MODELS):
            log, out = folder / f"{models}.parquet", folder / f"out-{models}"
            make(log, args.rows, models)
            trees = [f"--tree=model-{number:03d}={args.tree}" for number in range(models)]
            make(folder / "few.parquet", 1000, models)
            timed(
                "tables, and 1,000 rows",
                *score,
                str(folder / "few.parquet"),
                "-o",
                str(folder / "few"),
                *trees,
                "--force",
            )
            print(f"{args.rows:,} rows, {models} model{'s' if models > 1 else ''}, {cores()} cores")
            ours = timed("irene-build score", *score, str(log), "-o", str(out), *trees)
            theirs = timed(
                "DuckDB, the same columns", "-c", DUCKDB, str(log), str(folder / "d.parquet"), str(cores())
            )
            print(f"  {ours / theirs:.2f} times DuckDB", flush=True)
            shutil.rmtree(out)
        if args.runners:
            log = folder / "tenth.parquet"
            make(log, args.rows // 10, 1)
            print(f"{args.rows // 10:,} rows, 1 model, by runner (their own start included)")
            for runner in ("local", *args.runners.split(",")):
                master = ["--master=local[*]"] if runner == "spark" else []
                tree = f"--tree=model={args.tree}"
                timed(runner, *score, str(log), "-o", str(folder / runner), tree, "--runner", runner, *master)


if __name__ == "__main__":
    main()
