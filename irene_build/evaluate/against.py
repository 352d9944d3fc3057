"""Runs that an estimator never saw: its predictions beside the measured joules of whole models, or of generation.

A generation table has, by row, model, weights, batch_size, new_tokens, throughput_tok_s and power_w: what one token
took is power_w / throughput_tok_s, a step of the batch batch_size / throughput_tok_s. What it does not say is taken as
20 tokens of prompt, and 16-bit values; quantised matrices run as bitsandbytes runs them (``engines.quantised``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irene_build.dataset import whole_models
from irene_build.dataset.rows import Row, read_csv
from irene_build.engines.quantised import launched
from irene_build.errors import DatasetError, ModelError
from irene_runtime.model import Estimator
from irene_runtime.tree import ModelTree

PROMPT = 20
_NEEDED = ("model", "new_tokens", "throughput_tok_s", "power_w")
_FULL = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "float16": "float16", "bfloat16": "bfloat16",
         "float32": "float32", "": "float16"}  # fmt: skip
#: Traces a run: model, batch_size, seq_len, phase, past_len, dtype, attention, weights.
Tracer = Callable[..., ModelTree]


def is_generation(path: Path) -> bool:
    """Whether the table is one of generated tokens."""
    columns = read_csv(path, ("model",))[0].cells
    return all(name in columns for name in _NEEDED)


def generation(estimator: Estimator, path: Path, trace: Tracer) -> dict[str, Any]:
    """``energy_per_token_j`` and ``itl_s`` with ``mape, p50, max`` (percent), ``coverage90`` and ``n``; the rows."""
    rows, skipped = [], []
    for row in read_csv(path, _NEEDED):
        try:
            rows.append(_generated(estimator, row, trace))
        except ModelError as error:  # noqa: PERF203 -- one model that is not known does not stop the others
            skipped.append(f"{row.where}: {error}")
    if not rows:
        raise DatasetError(
            f"{path}: no row names a model that is known: {skipped[0] if skipped else 'no rows'}"
        )
    return {
        "energy_per_token_j": _summary(rows, "energy_per_token_j", "interval_j"),
        "itl_s": _summary(rows, "itl_s", None),
        "rows": rows,
        "skipped": skipped,
    }


def _generated(estimator: Estimator, row: Row, trace: Tracer) -> dict[str, Any]:
    """One row: a decode step in the middle of the answer, and the prompt's share of each token."""
    cells = row.cells
    weights = cells.get("weights", "").lower()
    dtype = cells.get("dtype") or _FULL.get(weights, "float16")
    scheme = None if weights in _FULL else weights
    batch = row.count("batch_size") if cells.get("batch_size") else 1
    new = row.count("new_tokens")
    prompt = row.count("prompt_tokens") if cells.get("prompt_tokens") else PROMPT
    run = {"dtype": dtype, "attention": cells.get("attention") or "sdpa", "weights": scheme}
    model = cells["model"]
    step = launched(trace(model, batch, 1, phase="decode", past_len=prompt + new // 2, **run))
    fill = launched(trace(model, batch, prompt, phase="prefill", past_len=0, **run))
    said, filled = estimator.predict(step), estimator.predict(fill)
    tokens = row.number("throughput_tok_s", positive=True)
    share = filled.energy_j / (new * batch)
    low, high = (end / batch + share for end in said.interval_j)
    found: dict[str, Any] = {
        "model": model, "weights": weights or dtype,
        "energy_per_token_j": {"measured": row.number("power_w", positive=True) / tokens,
                               "predicted": said.energy_j / batch + share},
        "interval_j": [low, high],
    }  # fmt: skip
    if estimator.law is not None:
        times = [estimator.law.nodes(estimator.law.with_host(tree))[0].time_s for tree in (step, fill)]
        found["itl_s"] = {"measured": batch / tokens, "predicted": times[0] + times[1] / new}
    return found


def whole(estimator: Estimator, path: Path, trace: Tracer) -> dict[str, Any]:
    """``energy_j`` with ``mape, p50, max`` (percent), ``coverage90`` and ``n`` of a table of whole models; its rows."""
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    read, _ = whole_models.read(path)
    traced: dict[whole_models.Run, ModelTree] = {}
    for row in read:
        run = row.run
        try:
            if run.traced not in traced:
                options = {"phase": run.phase, "past_len": run.past_len, "dtype": run.dtype}
                tree = trace(
                    run.spec,
                    run.batch_size,
                    run.seq_len,
                    attention=run.attention,
                    weights=run.weights or None,
                    **options,
                )
                traced[run.traced] = launched(tree)
        except ModelError as error:
            skipped.append(f"{row.where}: {error}")
            continue
        shared = traced[run.traced]
        under = {"clock_mhz": run.clock_mhz, "power_limit_w": run.power_limit_w}
        said = estimator.predict(ModelTree(shared.nodes, {**shared.header, **under}))
        rows.append({
            "model": row.name, "batch_size": run.batch_size, "seq_len": run.seq_len,
            "energy_j": {"measured": row.energy_j, "predicted": said.energy_j}, "interval_j": list(said.interval_j),
        })  # fmt: skip
    if not rows:
        raise DatasetError(
            f"{path}: no row names a model that is known: {skipped[0] if skipped else 'no rows'}"
        )
    return {"energy_j": _summary(rows, "energy_j", "interval_j"), "rows": rows, "skipped": skipped}


def _summary(rows: Sequence[dict[str, Any]], what: str, interval: str | None) -> dict[str, Any] | None:
    """Errors in percent; ``coverage90`` None where there is no interval. None where nothing was predicted."""
    known = [row for row in rows if what in row]
    if not known:
        return None
    measured = np.array([row[what]["measured"] for row in known])
    error = 100.0 * np.abs(np.array([row[what]["predicted"] for row in known]) / measured - 1.0)
    out: dict[str, Any] = {
        "mape": float(error.mean()), "p50": float(np.median(error)), "max": float(error.max()),
        "coverage90": None, "n": len(known),
    }  # fmt: skip
    if interval is not None:
        low, high = np.array([row[interval] for row in known]).T
        out["coverage90"] = float(100.0 * ((low <= measured) & (measured <= high)).mean())
    return out


def text(result: dict[str, Any]) -> str:
    """The result for a terminal."""
    from irene_build.console import table

    lines = [f"{result['hardware']} ({result['provenance']}) against {result['against']}"]
    kind = "energy_per_token_j" if "energy_per_token_j" in result else "energy_j"
    rows = [
        (r["model"], r.get("weights") or f"{r['batch_size']} x {r['seq_len']}", f"{r[kind]['measured']:.4g}",
         f"{r[kind]['predicted']:.4g}", f"{r['interval_j'][0]:.4g} to {r['interval_j'][1]:.4g}")
        for r in result["rows"]
    ]  # fmt: skip
    lines.append(table(rows, ("model", "run", "measured J", "predicted J", "90 % interval")))
    for name in (kind, "itl_s"):
        if found := result.get(name):
            inside = (
                "" if found["coverage90"] is None else f", {found['coverage90']:.0f} % inside the interval"
            )
            lines.append(
                f"{name}: mean error {found['mape']:.1f} %, median {found['p50']:.1f} %, largest {found['max']:.1f} %"
                f"{inside}, {found['n']} rows"
            )
    return "\n".join(lines + [f"left out: {why}" for why in result["skipped"]])
