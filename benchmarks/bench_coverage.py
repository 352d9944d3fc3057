"""Coverage: how many model types of transformers give a tree, and why the others do not.

    python benchmarks/bench_coverage.py --out trees.jsonl --trim --check-flops      # trees, beside FlopCounterMode
    python benchmarks/bench_coverage.py --out rungs.jsonl --rungs                   # meta, fake and CPU, node for node
    python benchmarks/bench_coverage.py --out leaves.jsonl --leaves                 # every operation in one leaf

Each type is built from its default configuration, or from one trimmed to two layers where the default
does not build or takes too long; what only real tensors can run, from one with narrow layers as well.
``--rungs`` and ``--leaves`` take narrow layers first, so that real weights fit; the first traces each type
on all three back ends, the second holds its leaves against a log of operations.
Worker processes take a batch of types each; one that hangs or dies costs its type only. Results are
appended to a file with the git revision and the options; run again, what was done at this revision
with these options is not repeated. It measures the checkout that it lies in.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from coverage_checks import BATCH, TOKENS, flop_check  # noqa: E402
from coverage_configs import complete, shrink, trim  # noqa: E402
from coverage_fallbacks import MAX_BYTES, RUNGS, reason, rung_check  # noqa: E402
from coverage_leaves import leaf_check  # noqa: E402

#: What a failure is: not built (the package's or the configuration's), or built and not traced.
NOT_BUILT = ("needs package", "does not build")


def custom_operations(tree: Any) -> list[str]:
    """Names of the operations that no primitive knows."""
    leaves = [n for n in tree.nodes if n.primitive == "Custom"]
    return sorted({op.partition("(")[0] for n in leaves for op in (n.shapes or {}).get("ops", [])})


def attempt(model_type: str, options: dict[str, Any]) -> dict[str, Any]:
    """One type: default configuration first, trimmed second (the other way round with ``--trim``), small last."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    from irene_build.errors import ModelError
    from irene_build.models.specs import Spec
    from irene_build.trace.request import Pass

    mapped = MODEL_MAPPING_NAMES[model_type]
    name = mapped[0] if isinstance(mapped, (tuple, list)) else mapped
    result: dict[str, Any] = {"type": model_type, "class": name}
    try:
        kind = getattr(transformers, name)
        kind.config_class()
    except ImportError as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        return {**result, "status": "needs package", "why": first}
    except Exception as error:
        return {**result, "status": "does not build", "why": f"{type(error).__name__}: {error}"[:300]}
    limit = float(options["limit"]) / 4
    run = Pass(BATCH, TOKENS, attention=options["attention"], cpu_limit_s=limit).checked()
    sizes = (
        ("small", "trimmed", "")
        if options["rungs"] or options["leaves"]
        else ("trimmed", "", "small")
        if options["trim"]
        else ("", "trimmed", "small")
    )
    for size in sizes:
        started = time.perf_counter()
        try:
            config = complete(model_type, kind.config_class())
            if size:
                config = trim(config)
            spec = Spec(model_type, kind, shrink(config) if size == "small" else config)
            if options["leaves"]:
                found = leaf_check(spec, run, MAX_BYTES)
            else:
                found = rung_check(spec, run) if options["rungs"] else tree_of(spec, run, options["flops"])
        except ModelError as error:
            why = str(error)
            status = "fails"
            if "needs a package" in why:
                status = "needs package"
            elif "cannot be built" in why:
                status = "does not build"
            result = {**result, "status": status, "why": why[:600], "trimmed": bool(size)}
            continue
        result = {k: v for k, v in result.items() if k != "why"}
        seconds = round(time.perf_counter() - started, 2)
        return {**result, "status": "tree", "trimmed": bool(size), "size": size, **found, "seconds": seconds}
    return result


def tree_of(spec: Any, run: Any, check_flops: bool) -> dict[str, Any]:
    """What is kept of a type's tree. Raises ModelError."""
    from irene_build.trace import fallbacks

    tree = fallbacks.with_fallbacks(spec, spec.name, run)
    by = tree.header["traced_by"]
    found = {
        "rung": by["tensors"], "dtype": tree.header["dtype"], "nodes": len(tree.nodes),
        "gflop": round(tree.nodes[0].features["flops"] / 1e3, 3), "executed": by["executed_parameters"],
        "left_out": by.get("left_out", [])[:5], "inputs": by["inputs"], "custom": custom_operations(tree),
    }  # fmt: skip
    if check_flops:
        found["flop_check"] = flop_check(spec, tree, run.attention)
    return found


def work(types: list[str], options: dict[str, Any], pipe: Any) -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    for model_type in types:
        pipe.send(("start", model_type))
        try:
            result = attempt(model_type, options)
        except BaseException as error:
            why = f"{type(error).__name__}: {error}"[:300]
            result = {"type": model_type, "status": "crashes", "why": why}
        pipe.send(("done", result))
    pipe.send(("end", None))


class Run:
    """All types of one run: ``workers`` processes at a time, each for a batch of types."""

    def __init__(self, types: list[str], out: Path, options: dict[str, Any], stamp: dict[str, Any]) -> None:
        self._left, self._out, self._options, self._stamp = deque(types), out, options, stamp
        self._total, self._done = len(types), 0
        self._lock = threading.Lock()

    def go(self, workers: int) -> None:
        threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._lock:
                batch = [self._left.popleft() for _ in range(min(self._options["batch"], len(self._left)))]
            if not batch:
                return
            while batch:
                self._one_process(batch)

    def _one_process(self, left: list[str]) -> None:
        """Takes done types off ``left``; a type that takes longer than the limit, or dies, ends the process."""
        limit = float(self._options["limit"])
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(list(left), self._options, theirs), daemon=True)
        process.start()
        theirs.close()
        current: str | None = None
        while True:
            try:
                kind, value = (
                    ours.recv() if ours.poll(limit + (120 if current is None else 0)) else ("hang", None)
                )
            except EOFError:
                kind, value = "died", None
            if kind == "start":
                current = str(value)
            elif kind == "done" and isinstance(value, dict):
                left.remove(value["type"])
                self._write(value)
            else:
                break
        if kind != "end":
            name = current if current in left else left[0]
            left.remove(name)
            status = "hangs" if kind == "hang" else "crashes"
            self._write(
                {"type": name, "status": status, "why": f"{limit:g} s" if kind == "hang" else "killed"}
            )
        process.kill()
        process.join()

    def _write(self, result: dict[str, Any]) -> None:
        with self._lock:
            with self._out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**result, "run": self._stamp}) + "\n")
            self._done += 1
            words = {None: "", True: "identical", False: "differs"}
            verdict = words[result.get("identical", result.get("exact"))]
            head = f"{self._done:4d}/{self._total} {result['type']:32} {result['status']:14}"
            print(f"{head} {result.get('rung', verdict)} {result.get('why', '')[:150]}", flush=True)


def revision() -> str:
    """The commit of this checkout, with ``+changes`` where the measured folders differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git(
        "status", "--porcelain", "--", "irene_build/trace", "irene_build/models", "runtime", "benchmarks"
    )
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")


def read(out: Path, stamp: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The last result of each type at this revision with these options."""
    if not out.exists():
        return {}
    lines = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    return {r["type"]: r for r in lines if r.get("run") == stamp}


def tree_summary(results: dict[str, dict[str, Any]]) -> list[str]:
    status = Counter(r["status"] for r in results.values())
    built = sum(n for s, n in status.items() if s not in NOT_BUILT)
    trees = [r for r in results.values() if r["status"] == "tree"]
    rungs = Counter(f"{r['rung']} {r['dtype']} {r['size']}".strip() for r in trees)
    lines = [
        f"{len(results)} model types: {dict(status)}",
        f"{len(trees)} of {built} buildable give a tree: {100 * len(trees) / max(built, 1):.1f} %",
        f"rungs: {dict(rungs)}",
        f"at least 99 % of the parameters executed: {sum(r['executed'] >= 0.99 for r in trees)} of {len(trees)}",
        f"types with Custom leaves: {sum(bool(r['custom']) for r in trees)}",
    ]
    lines += failures(results)
    checked = {r["type"]: r["flop_check"] for r in trees if "flop_check" in r}
    if checked:
        equal = sum(c.get("counter") == c["ours"] for c in checked.values())
        lines.append(f"matrix FLOPs equal FlopCounterMode's: {equal} of {len(checked)}")
        lines += [f"  {name}: {c}" for name, c in sorted(checked.items()) if c.get("counter") != c["ours"]]
    return lines


def failures(results: dict[str, dict[str, Any]]) -> list[str]:
    failed = [r for _, r in sorted(results.items()) if r["status"] not in ("tree", *NOT_BUILT)]
    return [f"  {r['type']}: {r['status']}: {r.get('why', '')[:200]}" for r in failed]


def rung_summary(results: dict[str, dict[str, Any]]) -> list[str]:
    traced = {name: r for name, r in sorted(results.items()) if r["status"] == "tree"}
    whole = [r for r in traced.values() if len(r["nodes"]) == len(RUNGS)]
    lines = [
        f"{len(results)} model types: {dict(Counter(r['status'] for r in results.values()))}",
        f"identical on meta, fake and CPU: {sum(r['identical'] for r in whole)} of {len(whole)} that trace on all",
        f"traced on some of them only: {len(traced) - len(whole)}",
    ]
    for pair in ("meta-fake", "meta-cpu", "fake-cpu"):
        both = [r["pairs"][pair][0] for r in traced.values() if pair in r["pairs"]]
        lines.append(f"  {pair}: {both.count(0)} of {len(both)} identical")
    reasons = Counter(reason(r) for r in traced.values() if not r["identical"])
    for why, count in reasons.most_common():
        names = [name for name, r in traced.items() if not r["identical"] and reason(r) == why]
        lines.append(f"  {count} {why}: {', '.join(names)}")
    return lines + failures(results)


def leaf_summary(results: dict[str, dict[str, Any]]) -> list[str]:
    traced = {name: r for name, r in sorted(results.items()) if r["status"] == "tree"}
    exact = sum(r["exact"] for r in traced.values())
    operations, leaves = (sum(r[what] for r in traced.values()) for what in ("operations", "leaves"))
    lines = [
        f"{len(results)} model types: {dict(Counter(r['status'] for r in results.values()))}",
        f"every operation in exactly one leaf of the module that ran it: {exact} of {len(traced)} that run on the CPU",
        f"{operations} operations, {leaves} leaves",
    ]
    what = ("lost", "too_many", "misplaced", "empty", "in_order", "same_tree")
    lines += [f"  {n}: { ({k: r[k] for k in what}) }" for n, r in traced.items() if not r["exact"]]
    return lines + failures(results)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--rungs", action="store_true", help="compare meta, fake and real CPU trees")
    parser.add_argument("--leaves", action="store_true", help="hold leaves against a log of operations")
    parser.add_argument("--only", default="", help="comma-separated model types, done again")
    parser.add_argument("--redo", default="", help="status to try again (fails, hangs, ...)")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a type may take")
    parser.add_argument("--batch", type=int, default=20, help="types a worker process")
    parser.add_argument("--workers", type=int, default=2, help="worker processes at a time")
    parser.add_argument("--trim", action="store_true", help="try the trimmed configuration first (faster)")
    parser.add_argument("--attention", default="sdpa", help="eager or sdpa")
    parser.add_argument(
        "--check-flops", action="store_true", help="compare with FlopCounterMode (implies eager)"
    )
    parser.add_argument(
        "--summary", action="store_true", help="print the summary of what is in the file, run nothing"
    )
    given = parser.parse_args()
    options = {
        "rungs": given.rungs, "leaves": given.leaves, "trim": given.trim or given.rungs or given.leaves,
        "flops": given.check_flops,
        "attention": "eager" if given.check_flops else given.attention,
    }  # fmt: skip
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    os.environ["OMP_NUM_THREADS"] = "1"
    stamp = {
        **options, "revision": revision(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
    done = read(given.out, stamp)
    redo = set(given.redo.split(",")) - {""}
    types = sorted(given.only.split(",") if given.only else MODEL_MAPPING_NAMES)
    todo = [t for t in types if t not in done or done[t]["status"] in redo or given.only]
    started = time.perf_counter()
    if not given.summary:
        settings = {**options, "limit": given.limit, "batch": given.batch}
        Run(todo, given.out, settings, stamp).go(given.workers)
    results = read(given.out, stamp)
    print("\n" + ", ".join(f"{name} {value}" for name, value in stamp.items()))
    print(f"{len(todo)} types in {(time.perf_counter() - started) / 60:.1f} min")
    summary = rung_summary if given.rungs else leaf_summary if given.leaves else tree_summary
    print("\n".join(summary(results)))


if __name__ == "__main__":
    main()
