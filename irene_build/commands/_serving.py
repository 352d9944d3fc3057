"""`predict`, `sweep` and `compare` with `--engine vllm`: requests to a server, by an estimator of kernels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from irene_build import console
from irene_build.errors import InputError

CACHES = ("bfloat16", "fp8")
WEIGHTS = ("bfloat16", "float16", "fp8", "fp8-block", "int8", "int4", "gptq", "awq", "nvfp4", "mxfp4")


def refuse(engine: str, tp: int, ep: int, dp: int, cache: str, **others: Any) -> None:
    """Raises InputError for options of a server without one, and for an engine that is none."""
    if engine not in ("transformers", "vllm"):
        raise InputError(f"--engine {engine!r}: expected transformers or vllm")
    asked = {"--tp": tp != 1, "--ep": ep != 1, "--dp": dp != 1, "--kv-cache-dtype": cache != "bfloat16"}
    asked.update({f"--{name.replace('_', '-')}": bool(value) for name, value in others.items()})
    given = [name for name, value in asked.items() if value]
    if engine != "vllm" and given:
        raise InputError(f"{', '.join(given)}: of a server, add --engine vllm")


def layout(tp: int, ep: int, dp: int, weights: str, cache: str, model: str = "") -> Any:
    """How a model is spread and stored. Raises InputError."""
    from irene_build.dataset.serving import weights_of
    from irene_build.engines.stack import Layout

    if min(tp, ep, dp) < 1:
        raise InputError("--tp, --ep and --dp must be at least 1")
    if ep > 1 and ep != tp * dp:
        raise InputError(
            f"--ep {ep}: vLLM spreads experts over all GPUs, --tp x --dp = {tp * dp}, or over none"
        )
    if weights not in WEIGHTS:
        raise InputError(f"--weights {weights!r}: expected one of {', '.join(WEIGHTS)}")
    if cache not in CACHES:
        raise InputError(f"--kv-cache-dtype {cache!r}: expected one of {', '.join(CACHES)}")
    return Layout(tp * dp, ep, dp, weights_of(weights, model), cache)


def open_server(out: Path) -> Any:
    """The estimator of kernels that ``out`` means: a folder with estimator.json, or the name of a device."""
    from irene_build.engines import build, estimator

    file = out / "estimator.json"
    if file.is_file() and estimator.is_kernels(file):
        return estimator.Server(estimator.load(file))
    data = None if out.exists() else build.found(str(out))
    if data is None:
        raise InputError(
            f"{out}: no estimator of kernels, which --engine vllm needs; give a folder that holds "
            "one, or a device that ships: h100, h200, b200"
        )
    return estimator.Server(data)


def predict(
    out: Path, model: str, batch: float, prompt: float, new: float, spread: Any, depth: int, as_json: bool
) -> None:
    """Joules a token and a request, time a token, watts, and where they go."""
    from irene_build.engines.estimator import request

    server = open_server(out)
    _say(request(server, model, spread, batch, prompt, new), depth, as_json)
    _tell_memory(server, model, spread, batch, prompt + new / 2.0)


def _tell_memory(server: Any, model: str, spread: Any, batch: float, context: float) -> None:
    """A note where parameters and caches are more than the memory of these GPUs."""
    from irene_build.hardware.datasheets import datasheet

    try:
        memory = datasheet(str(server.data["hardware"])).memory_bytes
    except InputError:
        return  # no datasheet, nothing to compare with
    needed = server.stack(model, spread).held_bytes(batch, context)
    if needed > memory:
        console.note(
            f"does not fit: at least {needed / 2**30:.0f} GiB of parameters and caches on each GPU, which has "
            f"{memory / 2**30:.0f}; nothing like it was measured, spread it wider (--tp) or take a smaller --batch"
        )


def _say(found: dict[str, Any], depth: int, as_json: bool) -> None:
    if as_json:
        console.emit_json(found)
        return
    low, high = found["interval_j"]
    new = found["new"]
    quick, slow = (1e3 * x for x in found["interval_itl_s"])
    console.say(
        f"{found['model']} under {found['engine']} on {found['gpus']} x {found['hardware']}, "
        f"weights {found['weights']}, "
        f"{found['batch_size']:g} requests of {found['prompt']:g} + {new:g} tokens in flight"
    )
    rows = [
        ("joules a token", f"{found['energy_per_token_j']:.4g}", f"{low:.4g} to {high:.4g}"),
        ("joules a request", f"{found['energy_per_request_j']:.4g}", f"{low * new:.4g} to {high * new:.4g}"),
        ("  of it prefill", f"{found['prefill']['energy_j']:.4g}", ""),
        ("ms a token (median)", f"{1e3 * found['itl_s']:.4g}", f"{quick:.4g} to {slow:.4g}"),
        ("tokens a second", f"{found['tokens_per_s']:.5g}", ""),
        ("watts, all GPUs", f"{found['power_w']:.4g}", ""),
    ]
    console.say(console.table(rows, ("", "predicted", "90 %")))
    for name, away in found["outside"].items():
        console.say(
            f"! {name} lies outside the measured runs (by a factor of {2 * math.exp(away):.3g}): interval widened"
        )
    shown = [p for p in found["parts"] if p["depth"] <= depth]
    lines = [
        ("  " * p["depth"] + p["scope"], p["type"], f"{p['energy_per_token_j']:.3g}") for p in shown[:40]
    ]
    console.say(console.table(lines, ("module", "type", "joules a token")))
    console.say(console.table(list(found["provenance"].items()), ("what", "provenance")))


def lengths(prompt: float | None, new: float | None) -> tuple[float, float]:
    """Tokens of a prompt and new ones, where they were not said: a chat."""
    return 100.0 if prompt is None else float(prompt), 400.0 if new is None else float(new)


def sweep(
    out: Path,
    model: str,
    batches: list[int],
    prompt: float,
    new: float,
    spread: Any,
    as_json: bool,
    as_csv: bool,
) -> None:
    """The curve over batch size."""
    from irene_build.engines.estimator import request

    server = open_server(out)
    keys = ("batch_size", "energy_per_token_j", "energy_per_request_j", "itl_s", "tokens_per_s", "power_w")
    cells = [request(server, model, spread, batch, prompt, new) for batch in batches]
    if as_json:
        cells = [{k: v for k, v in cell.items() if k != "parts"} for cell in cells]
        console.emit_json({"model": model, "engine": "vllm", "cells": cells})
        return
    rows = [tuple(f"{cell[key]:.4g}" for key in keys) for cell in cells]
    if as_csv:
        console.say("\n".join(",".join(row) for row in [keys, *rows]))
        return
    console.say(f"{model} under vLLM, {prompt:g} + {new:g} tokens")
    console.say(console.table(rows, ("batch", "J a token", "J a request", "s a token", "tokens/s", "W")))
    best = min(cells, key=lambda cell: cell["energy_per_token_j"])
    console.say(f"least joules a token: batch {best['batch_size']:g}")


def compare(
    out: Path,
    models: list[str],
    prompt: float,
    new: float,
    spread: Any,
    max_itl_s: float | None,
    as_json: bool,
) -> None:
    """Models by joules a token, each at the batch that is cheapest within the limit on time a token."""
    from irene_build.engines.estimator import request

    server = open_server(out)
    rows: list[dict[str, Any]] = []
    for model in models:
        best: dict[str, Any] | None = None
        for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
            cell = request(server, model, spread, batch, prompt, new)
            fits = max_itl_s is None or cell["itl_s"] <= max_itl_s
            if fits and (best is None or cell["energy_per_token_j"] < best["energy_per_token_j"]):
                best = {k: v for k, v in cell.items() if k != "parts"}
        rows.append({"model": model, "best": best})
    rows.sort(key=lambda row: row["best"]["energy_per_token_j"] if row["best"] else float("inf"))
    if as_json:
        console.emit_json({"engine": "vllm", "max_itl_s": max_itl_s, "models": rows})
        return
    lines = []
    for row in rows:
        one = row["best"]
        cells = ("none fits", "", "", "") if one is None else (
            f"{one['batch_size']:g}", f"{one['energy_per_token_j']:.4g}", f"{1e3 * one['itl_s']:.4g}",
            f"{one['power_w']:.4g}",
        )  # fmt: skip
        lines.append((row["model"], *cells))
    console.say(console.table(lines, ("model", "batch", "J a token", "ms a token", "W")))


def seconds(text: str | None) -> float | None:
    """``50ms``, ``0.05s`` or seconds alone. Raises InputError."""
    if text is None:
        return None
    for unit, factor in (("ms", 1e-3), ("s", 1.0), ("", 1.0)):
        if text.endswith(unit):
            try:
                value = float(text[: len(text) - len(unit)]) * factor
            except ValueError:
                break
            if value > 0.0:
                return value
            break
    raise InputError(f"--max-itl {text!r}: expected a time such as 50ms or 0.05s")
