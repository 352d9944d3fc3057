"""What an exported bundle costs its user: size, import, memory, one tree, a batch. Prints figures beside their budgets.

    python benchmarks/bench_export.py OUT        a folder that `irene-build export` wrote

Start-up figures are medians of several fresh processes. Times of trees and batches are CPU time of one thread, so that
other load on the machine shows little; set OMP_NUM_THREADS=1. A forest is one model at many sizes, as in a sweep (its
layers repeat, and the graph computes equal rows once), and then the worst case, a forest in which no row repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCHES = (4_000, 100_000)
IMPORT = """
import sys, time
sys.path.insert(0, {folder!r})
sys.dont_write_bytecode = {dont_write}
sys.pycache_prefix = {cache!r}
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
import json, math, os, threading  # what an application has loaded anyway
before, start = resident(), time.process_time()
import irene_estimator
middle = time.process_time()
irene_estimator.Estimator()
end = time.process_time()
print((middle - start) * 1e3, (end - middle) * 1e3, (resident() - before) / 1e6)
"""
PREDICT = """
import sys, time
sys.path.insert(0, {folder!r})
import irene_estimator
est = irene_estimator.Estimator()
tree = est.load_tree({tree!r})
times = []
for _ in range(60):
    start = time.process_time()
    est.predict(tree, tier="static")
    times.append(time.process_time() - start)
times.sort()
print(len(tree.nodes), times[0] * 1e3, times[len(times) // 2] * 1e3)
"""


def python(code: str, runs: int) -> list[list[float]]:
    """What ``code`` prints in ``runs`` fresh processes without site packages."""
    out = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
        )
        out.append([float(word) for word in done.stdout.split()])
    return out


def medians(rows: list[list[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def show(what: str, value: str, budget: str = "") -> None:
    print(f"{what:<66} {value:>16}   {budget}".rstrip())


def starting(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as cache:
        fill = IMPORT.format(folder=str(folder), dont_write=False, cache=cache)
        python(fill, 1)
        warm = medians(python(fill, 9))
    cold = medians(python(IMPORT.format(folder=str(folder), dont_write=True, cache="/nonexistent"), 5))
    show("import with bytecode, ms of CPU", f"{warm[0]:.1f}", "budget 10")
    show("  without bytecode, ms", f"{cold[0]:.1f}")
    show("  Estimator(), checks its digest, ms", f"{warm[1]:.1f}")
    show("memory of import and Estimator(), MB", f"{warm[2]:.1f}", "budget 3")
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-I", "-S", str(folder / "irene_estimator.py"), "info"],
        capture_output=True,
        check=True,
    )
    show("python -I -S irene_estimator.py info, s", f"{time.perf_counter() - start:.3f}", "budget 0.1")


def one_tree(folder: Path, tree: Path) -> None:
    nodes, best, middle = python(PREDICT.format(folder=str(folder), tree=str(tree)), 1)[0]
    name = f"{tree.stem}, {nodes:.0f} nodes"
    show(f"{name}: pure Python, ms (fastest, median)", f"{best:.2f}, {middle:.2f}", "budget 2")


def graph(folder: Path, tree_path: Path) -> None:
    import numpy as np
    import onnxruntime

    from irene_build.export.arrays import encode
    from irene_build.export.backends import OnnxRuntime
    from irene_build.export.samples import with_resources
    from irene_build.export.verify import constants_of
    from irene_runtime.tree import load

    estimator = constants_of(folder / "irene_estimator.py")["ESTIMATOR"]
    raw = (folder / "irene_estimator.onnx").read_bytes()
    loads = []
    for _ in range(5):
        start = time.process_time()
        session = OnnxRuntime(raw)
        loads.append((time.process_time() - start) * 1e3)
    fastest, middle = min(loads), statistics.median(loads)
    show(f"onnxruntime {onnxruntime.__version__}: load, ms (fastest, median)", f"{fastest:.0f}, {middle:.0f}")
    tree = with_resources(load(str(tree_path)), estimator)
    rng = np.random.default_rng(0)
    for tier in estimator["tiers"]:
        arrays = encode(estimator, [tree])
        times = _time(lambda a=arrays, t=tier: session.run_arrays(a, t), 200)  # type: ignore[misc]
        show(
            f"  one tree, tier {tier}, ms (fastest, median)", f"{times[0]:.2f}, {times[1]:.2f}", "budget 0.4"
        )
        for nodes in BATCHES:
            copies = max(1, nodes // len(tree.nodes))
            forest = encode(estimator, [tree] * copies)
            sizes = np.repeat(rng.uniform(0.9, 1.1, (copies, 1)), len(tree.nodes), axis=0)
            every = rng.uniform(0.9, 1.1, forest["features"].shape)
            for what, factor in (("every tree its size", sizes), ("no two nodes alike", every)):
                arrays = {**forest, "features": forest["features"] * factor}
                runs = 30 if nodes < 20_000 else 3
                times = _time(lambda a=arrays, t=tier: session.run_arrays(a, t), runs)  # type: ignore[misc]
                rates = [len(arrays["parent"]) / t / 1e3 for t in times]
                budget = "budget 1" if factor is sizes else ""
                name = f"  {len(arrays['parent'])} nodes, {what}, tier {tier}, 10^6/s"
                show(name, f"{rates[0]:.2f}, {rates[1]:.2f}", budget)
    assert not np.isnan(session.run_arrays(arrays, tier)["energy"]).all()


def _time(call: object, runs: int) -> tuple[float, float]:
    """Fastest and median CPU time of a call, ms."""
    assert callable(call)
    call()
    times = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append((time.process_time() - start) * 1e3)
    return min(times), statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    print(
        f"{folder.name}: {manifest['hardware']}, method {manifest['method']}, digest {manifest['digest'][:12]}"
    )
    show(
        "irene_estimator.py, KB", f"{(folder / 'irene_estimator.py').stat().st_size / 1e3:.1f}", "budget 100"
    )
    show("irene_estimator.onnx, KB", f"{(folder / 'irene_estimator.onnx').stat().st_size / 1e3:.1f}")
    starting(folder)
    tree = next(iter(sorted((folder / "trees").glob("bert-base*.json"))))
    if "static" in manifest["tiers"]:
        one_tree(folder, tree)
    graph(folder, tree)


if __name__ == "__main__":
    main()
