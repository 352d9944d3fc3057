"""Coverage: how many model types of transformers give a tree, and why the others do not.

    python benchmarks/bench_coverage.py [--out coverage.jsonl] [--only bert,gpt2] [--redo failed] [--limit 60]

Each type is built from its default configuration, or from one trimmed to two layers where the default
does not build or takes too long. Worker processes take a batch of types each; one that hangs or dies
costs its type only. Results are appended to a file, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

BATCH, TOKENS = 2, 32
#: What a failure is: not built (the package's or the configuration's), or built and not traced.
NOT_BUILT = ("needs package", "does not build")


#: Values that a default configuration leaves open or gets wrong, so that the class refuses its own defaults:
#: those of the family's published checkpoints. (part of the configuration, attribute, value)
COMPLETED: dict[str, list[tuple[str, str, Any]]] = {
    "deepseek_v2": [("", "num_experts_per_tok", 6)],
    "glm4v": [("text_config", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glm4v_text": [("", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glm4v_moe": [("text_config", "head_dim", 128)],
    "glm4v_moe_text": [("", "head_dim", 128)],
    "glm_image": [("text_config", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glm_image_text": [("", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glm46v": [("text_config", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "glmga": [("text_config", "rope_parameters", {"partial_rotary_factor": 0.5})],
    "pp_ocrv6_small_det": [
        ("backbone_config", "out_features", [f"stage{n}" for n in range(1, 5)]),
        ("", "layer_list_out_channels", [96, 96, 192, 384]),
    ],
    "qwen3_omni_moe_thinker": [("text_config", "head_dim", 128)],
    "step3p7": [("text_config", "sliding_window", 512)],
    "lw_detr": [("", "projector_scale_factors", [1.0])],
    "uvdoc": [("backbone_config", "out_features", [f"stage{n}" for n in range(1, 7)])],
    "xmod": [("", "default_language", "en_XX")],
    "autoformer": [("", "prediction_length", 24)],
    "time_series_transformer": [("", "prediction_length", 24)],
}


def complete(model_type: str, config: Any) -> Any:
    """``config`` with the values of ``COMPLETED``; a dict is merged into the one that is there."""
    for part, name, value in COMPLETED.get(model_type, []):
        holder = getattr(config, part) if part else config
        if isinstance(value, dict):
            value = {**(getattr(holder, name) or {}), **value}
        setattr(holder, name, value)
    return config


def trim(config: Any) -> Any:
    """Two layers wherever a configuration counts layers."""
    names = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers",
             "num_encoder_layers", "num_decoder_layers", "depth")  # fmt: skip
    for name in names:
        if isinstance(getattr(config, name, None), int) and getattr(config, name) > 2:
            with suppress(Exception):  # a read-only alias of another name
                setattr(config, name, 2)
    for name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        with suppress(Exception):  # some configurations hold it for each layer
            if isinstance(getattr(config, name, None), int) and getattr(config, name) > 16:
                setattr(config, name, 16)
    if isinstance(getattr(config, "layer_types", None), list):
        with suppress(Exception):  # some compute it
            config.layer_types = config.layer_types[-2:]
    for value in list(vars(config).values()):
        if hasattr(value, "model_type") and hasattr(value, "to_dict"):
            trim(value)
    return config


def custom_operations(tree: Any) -> list[str]:
    """Names of the operations that no primitive knows."""
    leaves = [n for n in tree.nodes if n.primitive == "Custom"]
    return sorted({op.partition("(")[0] for n in leaves for op in (n.shapes or {}).get("ops", [])})


def counted_flops(module: Any, run: Any, device: str) -> float:
    """FLOPs of matrix products by FlopCounterMode, which shares no code with the tracer."""
    from contextlib import ExitStack, nullcontext

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    from irene_build.trace import tracer
    from irene_build.trace.inputs import prepare
    from irene_build.trace.shadow import Shadows

    class GroupedProducts(TorchDispatchMode):  # type: ignore[misc]
        """The kernel of the meta device refuses all but bfloat16; only its shape matters here."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._grouped_mm.default and args[0].is_meta and args[1].dim() == 3:
                return args[0].new_empty((*args[0].shape[:-1], args[1].shape[-1]))
            return func(*args, **(kwargs or {}))

    def grouped(a: Any, b: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        rows = a[0] if len(a) == 2 else a[0] * a[1]
        return int(2 * rows * a[-1] * b[-1])

    # The counter follows gradients to tell its modules apart, and fails on some where there are none.
    module.requires_grad_(False)
    shadows = Shadows() if device == "meta" else None
    with ExitStack() as stack:
        stack.enter_context(tracer.evaluating(module))
        stack.enter_context(tracer._without_checks())
        stack.enter_context(shadows.following() if shadows is not None else nullcontext())
        inputs = prepare(module, run, device, shadows)
        stack.enter_context(GroupedProducts())
        mapping = {torch.ops.aten._grouped_mm: grouped}
        counter = stack.enter_context(FlopCounterMode(display=False, custom_mapping=mapping))
        module(**inputs)
    return float(counter.get_total_flops())


def flop_check(spec: Any, tree: Any, attention: str) -> dict[str, Any]:
    """The tracer's matrix FLOPs beside FlopCounterMode's, on the rung and in the dtype of ``tree``."""
    from contextlib import nullcontext
    from dataclasses import replace

    import torch

    from irene_build.models.build import instantiate
    from irene_build.trace import tracer
    from irene_build.trace.unwrap import as_if_on_cpu

    rung, dtype = tree.header["traced_by"]["rung"], tree.header["dtype"]
    run = tracer.Pass(BATCH, TOKENS, attention=attention, dtype=dtype, rung=rung).checked()
    module = instantiate(spec, dtype, attention, "cpu" if rung == "cpu" else "meta")
    ours = round(tree.nodes[0].features["matmul_flops"] * 1e6)
    errors = []
    with tracer.fake_mode() if rung == "fake" else nullcontext():
        if rung == "fake":
            module = as_if_on_cpu(module)
        for variant in range(tracer.variants(module, run)):
            try:
                trial = replace(run, variant=variant)
                if rung == "cpu":
                    # Random weights and draws steer these: the same ones for both.
                    torch.manual_seed(0)
                    tree, _ = tracer.record(module, spec.name, trial)
                    ours = round(tree.nodes[0].features["matmul_flops"] * 1e6)
                    torch.manual_seed(0)
                return {
                    "ours": ours,
                    "counter": round(counted_flops(module, trial, "meta" if rung == "meta" else "cpu")),
                }
            except Exception as error:  # noqa: PERF203
                errors.append(f"{type(error).__name__}: {error}"[:200])
    return {"ours": ours, "error": errors[0]}


def attempt(model_type: str) -> dict[str, Any]:
    """One type: default configuration first, trimmed second (the other way round with ``--trim``)."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    from irene_build.errors import ModelError
    from irene_build.models.specs import Spec
    from irene_build.trace import tracer

    transformers.utils.logging.set_verbosity_error()
    mapped = MODEL_MAPPING_NAMES[model_type]
    name = mapped[0] if isinstance(mapped, (tuple, list)) else mapped
    result: dict[str, Any] = {"type": model_type, "class": name}
    try:
        kind = getattr(transformers, name)
        kind.config_class()
    except ImportError as error:
        return {
            **result,
            "status": "needs package",
            "why": (str(error).strip().splitlines() or [""])[0][:200],
        }
    except Exception as error:
        return {**result, "status": "does not build", "why": f"{type(error).__name__}: {error}"[:300]}
    for trimmed in (True, False) if os.environ.get("COVERAGE_TRIM") else (False, True):
        started = time.perf_counter()
        try:
            config = complete(model_type, kind.config_class())
            if trimmed:
                config = trim(config)
            spec = Spec(model_type, kind, config)
            run = tracer.Pass(BATCH, TOKENS, attention=os.environ.get("COVERAGE_ATTENTION", "sdpa")).checked()
            tree = tracer.climb(spec, model_type, run)
        except ModelError as error:
            why = str(error)
            status = "fails"
            if "needs a package" in why:
                status = "needs package"
            elif "cannot be built" in why:
                status = "does not build"
            result = {**result, "status": status, "why": why[:600], "trimmed": trimmed}
            continue
        by = tree.header["traced_by"]
        seconds = round(time.perf_counter() - started, 2)
        if os.environ.get("COVERAGE_FLOPS"):
            result["flop_check"] = flop_check(spec, tree, run.attention)
        return {
            **result, "status": "tree", "trimmed": trimmed, "rung": by["rung"], "dtype": tree.header["dtype"],
            "nodes": len(tree.nodes), "gflop": round(tree.nodes[0].features["flops"] / 1e3, 3),
            "executed": by["executed_parameters"], "left_out": by.get("left_out", [])[:5],
            "inputs": by["inputs"], "custom": custom_operations(tree),
            "seconds": seconds,
        }  # fmt: skip
    return result


def work(types: list[str], pipe: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    for model_type in types:
        pipe.send(("start", model_type))
        try:
            result = attempt(model_type)
        except BaseException as error:
            result = {
                "type": model_type,
                "status": "crashes",
                "why": f"{type(error).__name__}: {error}"[:300],
            }
        pipe.send(("done", result))
    pipe.send(("end", None))


def run(types: list[str], out: Path, limit: float, batch: int) -> None:
    """One worker process at a time; a type that takes longer than ``limit`` seconds ends its worker."""
    context = mp.get_context("spawn")
    left = list(types)
    while left:
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(left[:batch], theirs), daemon=True)
        process.start()
        theirs.close()
        current: str | None = None
        while True:
            try:
                message = ours.recv() if ours.poll(limit + (60 if current is None else 0)) else ("hang", None)
            except EOFError:
                message = ("died", None)
            kind, value = message
            if kind == "start":
                current = str(value)
                continue
            if kind == "done" and isinstance(value, dict):
                left.remove(value["type"])
                write(out, value)
                continue
            if kind in ("hang", "died"):
                name = current if current in left else left[0]
                left.remove(name)
                write(
                    out,
                    {"type": name, "status": "hangs" if kind == "hang" else "crashes", "why": f"{limit:g} s"},
                )
            break
        process.kill()
        process.join()


def write(out: Path, result: dict[str, Any]) -> None:
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    print(
        f"{result['type']:32} {result['status']:14} {result.get('rung', '')} {result.get('why', '')[:150]}",
        flush=True,
    )


def read(out: Path) -> dict[str, dict[str, Any]]:
    """The last result of each type."""
    if not out.exists():
        return {}
    return {r["type"]: r for r in map(json.loads, out.read_text(encoding="utf-8").splitlines())}


def summary(results: dict[str, dict[str, Any]]) -> str:
    status = Counter(r["status"] for r in results.values())
    built = sum(n for s, n in status.items() if s not in NOT_BUILT)
    trees = [r for r in results.values() if r["status"] == "tree"]
    rungs = Counter(f"{r['rung']} {r['dtype']}" + (" trimmed" if r["trimmed"] else "") for r in trees)
    lines = [
        f"{len(results)} model types: {dict(status)}",
        f"{len(trees)} of {built} buildable give a tree: {100 * len(trees) / max(built, 1):.1f} %",
        f"rungs: {dict(rungs)}",
        f"at least 99 % of the parameters executed: {sum(r['executed'] >= 0.99 for r in trees)} of {len(trees)}",
        f"types with Custom leaves: {sum(bool(r['custom']) for r in trees)}",
    ]
    checked = {r["type"]: r["flop_check"] for r in trees if "flop_check" in r}
    if checked:
        equal = sum(c.get("counter") == c["ours"] for c in checked.values())
        lines.append(f"matrix FLOPs equal FlopCounterMode's: {equal} of {len(checked)}")
        lines += [f"  {name}: {c}" for name, c in sorted(checked.items()) if c.get("counter") != c["ours"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--only", default="", help="comma-separated model types")
    parser.add_argument("--redo", default="", help="status to try again (fails, hangs, ...)")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds a type may take")
    parser.add_argument("--batch", type=int, default=25, help="types a worker process")
    parser.add_argument("--part", default="", help="I/N: every N-th type from the I-th on")
    parser.add_argument("--trim", action="store_true", help="try the trimmed configuration first (faster)")
    parser.add_argument("--attention", default="sdpa", help="eager or sdpa")
    parser.add_argument(
        "--check-flops", action="store_true", help="compare with FlopCounterMode (implies eager)"
    )
    options = parser.parse_args()
    os.environ["COVERAGE_ATTENTION"] = "eager" if options.check_flops else options.attention
    for name, wanted in (("COVERAGE_TRIM", options.trim), ("COVERAGE_FLOPS", options.check_flops)):
        if wanted:
            os.environ[name] = "1"
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    done = read(options.out)
    types = sorted(options.only.split(",") if options.only else MODEL_MAPPING_NAMES)
    if options.part:
        index, _, count = options.part.partition("/")
        types = types[int(index) :: int(count)]
    redo = set(options.redo.split(",")) - {""}
    todo = [t for t in types if t not in done or done[t]["status"] in redo or options.only]
    run(todo, options.out, options.limit, options.batch)
    print(summary(read(options.out)))


if __name__ == "__main__":
    main()
