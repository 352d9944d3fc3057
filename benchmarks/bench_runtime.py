"""The budgets of the exported module, measured: size, import, memory, predictions, monitor.

    python benchmarks/bench_runtime.py OUT [TREE] [--python PYTHON]

OUT is a bundle that `irene-build export` wrote. CPU times are of one process; the smallest of several counts,
since other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_IMPORT = """
import json, resource, sys, time
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
before, start = peak(), time.process_time()
sys.path.insert(0, {folder!r})
import irene_estimator
imported = time.process_time() - start
start = time.process_time()
est = irene_estimator.Estimator()
print(json.dumps([imported * 1e3, (time.process_time() - start) * 1e3, peak() - before]))
"""

_PREDICT = """
import json, sys, time
sys.path.insert(0, {folder!r})
import irene_estimator as m
est = m.Estimator()
start = time.process_time()
tree = m.load_tree({tree!r})
loaded = time.process_time() - start
times = []
for _ in range({repeats}):
    start = time.process_time()
    p = est.predict(tree, tier="static")
    times.append(time.process_time() - start)
print(json.dumps([loaded * 1e3, min(times) * 1e3, sorted(times)[len(times) // 2] * 1e3, len(p)]))
"""

_MONITOR = """
import json, sys, time
sys.path.insert(0, {folder!r})
import irene_estimator as m
est = m.Estimator()
with est.monitor():
    time.sleep(0.5)
start = time.process_time()
with est.monitor() as live:
    entered = time.process_time()
    time.sleep({seconds})
    inside = time.process_time() - entered
print(json.dumps([100 * inside / {seconds}, (time.process_time() - start) * 1e3, sorted(live.missing)]))
"""


def run(python: str, script: str, **values: Any) -> Any:
    """The JSON that a script prints, run without site packages."""
    done = subprocess.run(
        [python, "-I", "-S", "-c", script.format(**values)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def best(python: str, script: str, times: int, **values: Any) -> list[float]:
    return list(min(run(python, script, **values) for _ in range(times)))


def bench_python(folder: Path, tree: Path, python: str) -> None:
    module = folder / "irene_estimator.py"
    print(f"module          {module.stat().st_size / 1e3:.1f} KB (budget 100 KB)")
    with tempfile.TemporaryDirectory() as cache:
        copy = Path(cache) / module.name
        copy.write_bytes(module.read_bytes())
        run(python, _IMPORT, folder=cache)
        imported, made, _ = best(python, _IMPORT, 9, folder=cache)
        print(
            f"import          {imported:.1f} ms CPU with bytecode (budget 10 ms); Estimator() {made:.1f} ms"
        )
        memories = [run(python, _IMPORT, folder=cache)[2] for _ in range(5)]
        print(f"memory          +{min(memories) / 1024:.1f} MB, import and Estimator() (budget 3 MB)")
        loaded, fastest, median, nodes = best(python, _PREDICT, 3, folder=cache, tree=str(tree), repeats=60)
        print(f"tree file       {loaded:.1f} ms to read and check {nodes} nodes")
        print(f"predict         {fastest:.2f} ms CPU, median {median:.2f} ms, {nodes} nodes (budget 2 ms)")
        share, whole, missing = run(python, _MONITOR, folder=cache, seconds=10)
        print(f"monitor         {share:.3f} % of a core at 170 ms (budget 0.1 %), {whole:.1f} ms CPU in 10 s")
        print(f"                not sampled here: {', '.join(missing) or 'nothing'}")
    starts = []
    for _ in range(7):
        before, began = os.times(), time.perf_counter()
        subprocess.run([python, "-I", "-S", str(module), "info"], capture_output=True, check=True)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        starts.append((cpu, time.perf_counter() - began))
    cpu, wall = min(s[0] for s in starts) * 1e3, min(s[1] for s in starts) * 1e3
    print(f"info            {cpu:.0f} ms CPU, {wall:.0f} ms wall (budget 100 ms)")


def bench_onnx(folder: Path, tree: Path) -> None:
    """The graph in onnxruntime: one tree, and a batch of many."""
    import numpy as np
    import onnxruntime

    from irene_build.export.arrays import encode
    from irene_build.export.load import load_bundle

    estimator, _ = load_bundle(folder)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = folder / "irene_estimator.onnx"
    print(f"graph           {path.stat().st_size / 1e3:.1f} KB")
    start = time.process_time()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    print(f"                {(time.process_time() - start) * 1e3:.0f} ms CPU to load")
    model = estimator.load_tree(str(tree))
    one = encode(estimator.data, [model])

    def fastest(inputs: dict[str, Any], repeats: int) -> float:
        times = []
        for _ in range(repeats):
            start = time.process_time()
            session.run(None, inputs)
            times.append(time.process_time() - start)
        return min(times)

    one["tier"] = np.array(0, dtype=np.int64)
    print(f"                {fastest(one, 60) * 1e3:.2f} ms CPU, {len(model.nodes)} nodes (budget 0.4 ms)")
    many = encode(estimator.data, [model] * (200_000 // len(model.nodes)))
    many["tier"] = one["tier"]
    nodes = len(many["parent"])
    seconds = fastest(many, 3)
    print(
        f"                {nodes / seconds / 1e6:.2f} million nodes a second, {nodes} in a batch (budget 1)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("tree", type=Path, nargs="?")
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    tree = args.tree or args.out / "trees" / "bert-base-uncased-8x128.json"
    print(f"{sys.implementation.name} {sys.version.split()[0]}, bundle {args.out}, tree {tree.name}")
    bench_python(args.out, tree, args.python)
    bench_onnx(args.out, tree)


if __name__ == "__main__":
    main()
