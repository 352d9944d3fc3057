"""Speed, memory and exactness of tracing, beside a bare forward pass and the peers that are installed.

    python benchmarks/bench_trace.py [--peers] [--large]

Seconds are the best of three, on one thread; memory is the peak of a fresh process. Peers run on the
CPU where they cannot run on the meta device. They are no dependencies: missing ones are named and left out.
To try them without touching this environment, install them elsewhere and point PYTHONPATH there:

    pip install --target peers --no-deps fvcore iopath yacs portalocker tabulate termcolor torchinfo torchview \\
        graphviz calflops accelerate psutil deepspeed hjson py-cpuinfo msgpack einops pydantic pydantic-core \\
        annotated-types typing-inspection
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
BATCH, TOKENS = 8, 32
#: 2 m n k over the matrix products of BERT-base at 8 x 32, counted by hand in tests and by FlopCounterMode.
EXACT_GFLOP = 43.797970944


def best(
    function: Callable[[], Any], times: int = 3, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Shortest time of ``times`` calls, s; of the wall's clock, or of this process's alone (``time.process_time``)."""
    found = []
    for _ in range(times):
        start = clock()
        function()
        found.append(clock() - start)
    return min(found)


def ours(name: str, batch_size: int, seq_len: int, attention: str) -> dict[str, Any]:
    """Build and trace in this process."""
    start = time.perf_counter()
    import torch

    from irene_build.models import build
    from irene_build.trace import tracer
    from irene_build.trace.request import Pass

    torch.set_num_threads(1)
    imported = time.perf_counter() - start
    start = time.perf_counter()
    module = build(name, attention=attention)
    built = time.perf_counter() - start
    run = Pass(batch_size, seq_len, attention=attention)
    tracer.record(module, name, run)
    traced = best(lambda: tracer.record(module, name, run))
    cpu = best(lambda: tracer.record(module, name, run), clock=time.process_time)
    tree, _ = tracer.record(module, name, run)
    return {
        "import_s": imported, "build_s": built, "trace_s": traced, "trace_cpu_s": cpu, "nodes": len(tree.nodes),
        "gflop": tree.nodes[0].features["flops"] / 1e3, "matmul_gflop": tree.nodes[0].features["matmul_flops"] / 1e3,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def in_fresh_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def beside_bare_forward() -> None:
    """A trace of BERT-base beside the same forward pass on the meta device with nobody watching, in turns."""
    import torch

    from irene_build.models import build
    from irene_build.trace import tracer
    from irene_build.trace.request import Pass

    torch.set_num_threads(1)
    module = build("bert-base-uncased", attention="eager")
    ids = torch.ones((BATCH, TOKENS), dtype=torch.long, device="meta")
    run = Pass(BATCH, TOKENS, attention="eager")

    def bare() -> None:
        with torch.no_grad():
            module(input_ids=ids)

    def traced() -> None:
        tracer.record(module, "bert-base-uncased", run)

    for _ in range(3):
        bare()
        traced()
    pairs = [(best(bare, 1, time.process_time), best(traced, 1, time.process_time)) for _ in range(15)]
    forward, trace = (min(column) for column in zip(*pairs, strict=True))
    print(
        f"BERT-base {BATCH} x {TOKENS}, CPU time: bare meta forward {forward:.3f} s, trace {trace:.3f} s, "
        f"{trace / forward:.2f} times as long"
    )


def peers() -> None:
    """Each peer on BERT-base, eager, on the device that it can use."""
    import torch

    from irene_build.models import build

    module = build("bert-base-uncased", attention="eager", device="cpu")
    ids = torch.ones((BATCH, TOKENS), dtype=torch.long)

    def flop_counter() -> float:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(input_ids=ids)
        return float(counter.get_total_flops())

    def fvcore() -> float:
        from fvcore.nn import FlopCountAnalysis

        analysis = (
            FlopCountAnalysis(module, ids).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        )
        return 2.0 * analysis.total()

    def torchinfo() -> float:
        import torchinfo

        return 2.0 * torchinfo.summary(module, input_data=ids, verbose=0).total_mult_adds

    def calflops() -> float:
        from calflops import calculate_flops

        flops, _, _ = calculate_flops(
            model=module, kwargs={"input_ids": ids}, print_results=False, output_as_string=False
        )
        return float(flops)

    def deepspeed() -> float:
        from deepspeed.profiling.flops_profiler import get_model_profile

        flops, _, _ = get_model_profile(
            module, kwargs={"input_ids": ids}, print_profile=False, as_string=False, warm_up=0
        )
        return float(flops)

    def torchview() -> float:
        from torchview import draw_graph

        draw_graph(module, input_data=ids, device="cpu")
        return float("nan")

    print(
        f"\npeers, BERT-base {BATCH} x {TOKENS}, eager, CPU (exact matrix products: {EXACT_GFLOP:.3f} GFLOP)"
    )
    for function in (flop_counter, fvcore, torchinfo, calflops, deepspeed, torchview):
        try:
            flops = function()
            seconds = best(function, 2)
        except ImportError as error:
            print(f"  {function.__name__:14} not installed ({error.name})")
            continue
        except Exception as error:
            print(f"  {function.__name__:14} fails: {type(error).__name__}: {str(error)[:80]}")
            continue
        counted = f"{flops / 1e9:9.3f} GFLOP" if flops == flops else "   counts nothing"
        print(f"  {function.__name__:14} {counted}  {seconds:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--one", nargs=4, metavar=("MODEL", "BATCH", "TOKENS", "ATTENTION"), help=argparse.SUPPRESS
    )
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--large", action="store_true", help="Llama-70B and DeepSeek-V3 as well")
    options = parser.parse_args()
    if options.one:
        name, batch_size, seq_len, attention = options.one
        print(json.dumps(ours(name, int(batch_size), int(seq_len), attention)))
        return
    beside_bare_forward()
    rows = [("bert-base-uncased", BATCH, TOKENS), ("gpt2", 1, 512)]
    if options.large:
        rows += [
            ("Llama-3-8B", 1, 512),
            ("Llama-3-70B", 1, 512),
            ("Mixtral-8x7B", 1, 512),
            ("DeepSeek-V3", 1, 512),
        ]
    print(
        f"{'model':20} {'import':>7} {'build':>7} {'trace':>7} {'CPU':>7} {'nodes':>6} {'GFLOP':>10} {'peak MiB':>9}"
    )
    for name, batch_size, seq_len in rows:
        r = in_fresh_process(name, str(batch_size), str(seq_len), "eager")
        print(
            f"{name:20} {r['import_s']:7.2f} {r['build_s']:7.2f} {r['trace_s']:7.2f} {r['trace_cpu_s']:7.2f} "
            f"{r['nodes']:6d} {r['gflop']:10.1f} {r['peak_mib']:9.0f}"
        )
    if options.peers:
        peers()


if __name__ == "__main__":
    main()
