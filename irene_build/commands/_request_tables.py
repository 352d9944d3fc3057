"""`sweep` and `compare` over requests: joules a token by prompt, new tokens and batch, or by model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build import console

if TYPE_CHECKING:
    from irene_runtime.model import Estimator
    from irene_runtime.request_prediction import RequestPrediction


def _tree(estimator: Estimator, model: str, dtype: str, use_cache: bool) -> Any:
    from irene_build.commands import _bundles, _trees
    from irene_build.export.samples import attention_of

    if _bundles.is_tree_file(Path(model)):
        return estimator.load_tree(model)
    return _trees.generating(model, False, dtype, attention_of(estimator.attention), use_cache)


def row_of(found: RequestPrediction) -> dict[str, Any]:
    """One request as a row: its size, and joules a request and a token with their intervals."""
    count, tokens = found.size["batch_size"], found.size["batch_size"] * found.size["new"]
    return {
        "model": found.header["model"], "prompt": found.size["prompt"], "new": found.size["new"], "batch_size": count,
        "energy_j": found.energy_j, "interval_j": list(found.interval_j),
        "energy_per_request_j": found.energy_per_request_j,
        "energy_per_token_j": found.energy_per_token_j, "interval_per_token_j": [x / tokens for x in found.interval_j],
        "prefill_share": found.prefill.energy_j / found.energy_j if found.energy_j else 0.0, "time_s": found.time_s,
        "sum_error_j": found.error_j, "extrapolates": "extrapolates" in found.flags,
    }  # fmt: skip


def sweep_requests(
    estimator: Estimator,
    model: str,
    prompts: Sequence[int],
    news: Sequence[int],
    batches: Sequence[int],
    dtype: str,
    use_cache: bool,
    folder: Path | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Joules a new token over prompts, new tokens and batches; with ``folder`` also a page of the middle request."""
    from irene_build.report import write
    from irene_build.report.html import joules

    tree = _tree(estimator, model, dtype, use_cache)
    rows = [row_of(estimator.request(tree, p, n, b)) for p in prompts for n in news for b in batches]
    result = {
        "format": "irene-request-sweep", "version": 1, "model": model, "hardware": estimator.hardware,
        "boundary": estimator.boundary, "provenance": estimator.provenance, "digest": estimator.digest, "cells": rows,
    }  # fmt: skip
    if folder is not None:
        from irene_build.files import write_folder_atomic
        from irene_build.report.requests import page

        middle = estimator.request(
            tree, prompts[len(prompts) // 2], news[len(news) // 2], batches[len(batches) // 2]
        )
        with write_folder_atomic(folder) as inside:
            (inside / "index.html").write_text(page(estimator, tree, middle, rows), encoding="utf-8")
            (inside / "cells.csv").write_text(write.csv_text(rows), encoding="utf-8")
        console.note(f"wrote {folder / 'index.html'}")
    if as_json:
        console.emit_json(result)
        return
    if as_csv:
        console.say(write.csv_text(rows).rstrip("\n"))
        return
    if estimator.simulated:
        console.say("SIMULATED: these joules descend from a simulated power meter.\n")
    console.say(f"{model}: predicted energy per new token, prompt and decode together")
    cells = {(r["prompt"], r["new"], r["batch_size"]): r for r in rows}
    lines = [
        [
            p,
            n,
            *(
                joules(cells[p, n, b]["energy_per_token_j"]) + "*" * cells[p, n, b]["extrapolates"]
                for b in batches
            ),
        ]
        for p in prompts
        for n in news
    ]
    console.say(console.table(lines, ["prompt", "new \\ batch", *map(str, batches)]))
    if any(r["extrapolates"] for r in rows):
        console.say("\n* outside what was calibrated, interval widened")


def compare_requests(
    estimator: Estimator,
    models: Sequence[str],
    prompt: int,
    new: int,
    batch_size: int,
    dtype: str,
    use_cache: bool,
    as_json: bool,
) -> None:
    """Models by joules a new token of the same request, the cheapest first."""
    from irene_build.report.html import joules, share, spread

    rows = [
        row_of(estimator.request(_tree(estimator, model, dtype, use_cache), prompt, new, batch_size))
        for model in models
    ]
    rows.sort(key=lambda row: row["energy_per_token_j"])
    if as_json:
        console.emit_json(
            {"format": "irene-request-compare", "version": 1, "hardware": estimator.hardware, "rows": rows}
        )
        return
    if estimator.simulated:
        console.say("SIMULATED: these joules descend from a simulated power meter.\n")
    console.say(f"prompt {prompt}, {new} new tokens, batch {batch_size}")
    lines = [
        [
            r["model"], joules(r["energy_per_token_j"]), spread(r["energy_j"], r["interval_j"]),
            joules(r["energy_per_request_j"]), share(r["prefill_share"]), "!" if r["extrapolates"] else "",
        ]
        for r in rows
    ]  # fmt: skip
    console.say(console.table(lines, ["model", "a token", "interval", "a request", "prefill", ""]))
    if any(r["extrapolates"] for r in rows):
        console.say("! outside what was calibrated, interval widened")
