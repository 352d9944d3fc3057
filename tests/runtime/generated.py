"""The runtime's modules as one file with constants, as simply as can be; export renders its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import irene_runtime
from irene_runtime.equations import estimator_digest
from irene_runtime.main import golden_tree
from irene_runtime.model import Estimator

_RELATIVE = re.compile(r"^from \.\w+ import (\([^)]*\)|[^(\n]*)\n", re.M)


def source(module: str) -> str:
    return (Path(irene_runtime.__file__).parent / f"{module}.py").read_text(encoding="utf-8")


def golden(data: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """A golden tree whose numbers are the library's own."""
    head = {key: tree[key] for key in ("batch_size", "seq_len", "cost_model", "attention")}
    nodes = []
    for n in tree["nodes"]:
        node = {"parent": n["parent"], "level": n["level"], **n["features"]}
        nodes.append({**node, "primitive": n["primitive"]} if n["primitive"] else node)
    found: dict[str, Any] = {"header": head, "nodes": nodes}
    p = Estimator(data).predict(golden_tree(found, 1.0))
    bits = {"extrapolates": 1, "uncalibrated": 2, "fell-back": 4, "simulated": 8}
    sums = [0.0, 0.0]
    for n in p:
        sums = [sums[0] + n.interval_j[0], sums[1] + n.interval_j[1]]
    case = {
        "name": "net",
        "tier": p.tier,
        "times": 1.0,
        "energy_j": " ".join(n.energy_j.hex() for n in p),
        "tolerance_j": " ".join(repr(abs(n.energy_j) * 1e-14) for n in p),
        "sum_low_j": sums[0].hex(),
        "sum_high_j": sums[1].hex(),
        "flags": "".join(f"{sum(bits[f] for f in n.flags):x}" for n in p),
    }
    return {**found, "cases": [case]}


def write(path: Path, data: dict[str, Any], tree: dict[str, Any] | None = None, digest: str = "") -> Path:
    """Write the module to ``path``; ``tree`` is its golden tree."""
    parts = [_RELATIVE.sub("", source(module)) for module in irene_runtime.MODULES]
    constants = {
        "VERSION": "0",
        "DIGEST": digest or estimator_digest(data),
        "ESTIMATOR": data,
        "GOLDEN": golden(data, tree) if tree else None,
    }
    parts += [f"{name} = {value!r}\n" for name, value in constants.items()]
    parts.append('if __name__ == "__main__":\n    raise SystemExit(main())\n')
    path.write_text("\n".join(parts), encoding="utf-8")
    return path
