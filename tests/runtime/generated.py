"""The runtime's modules as one file with constants, as simply as can be; export renders its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import irene_runtime
from irene_runtime.equations import estimator_digest
from irene_runtime.model import Estimator
from irene_runtime.tree import from_json

_RELATIVE = re.compile(r"^from \.\w+ import (\([^)]*\)|[^(\n]*)\n", re.M)


def source(module: str) -> str:
    return (Path(irene_runtime.__file__).parent / f"{module}.py").read_text(encoding="utf-8")


def golden(data: dict[str, Any], trees: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Golden trees whose numbers are the library's own."""
    out = []
    for name, tree in trees.items():
        p = Estimator(data).predict(from_json(tree))
        bits = {"extrapolates": 1, "uncalibrated": 2, "fell-back": 4, "simulated": 8}
        out.append(
            {
                "name": name,
                "tier": p.tier,
                "tree": tree,
                "energy_j": [n.energy_j.hex() for n in p],
                "low_j": [n.interval_j[0].hex() for n in p],
                "high_j": [n.interval_j[1].hex() for n in p],
                "flags": [sum(bits[f] for f in n.flags) for n in p],
                "tolerance_j": [abs(n.energy_j) * 1e-14 for n in p],
            }
        )
    return out


def write(path: Path, data: dict[str, Any], trees: dict[str, dict[str, Any]], digest: str = "") -> Path:
    """Write the module to ``path``."""
    parts = [_RELATIVE.sub("", source(module)) for module in irene_runtime.MODULES]
    constants = {
        "VERSION": "0",
        "DIGEST": digest or estimator_digest(data),
        "ESTIMATOR": data,
        "GOLDEN": golden(data, trees),
    }
    parts += [f"{name} = {value!r}\n" for name, value in constants.items()]
    parts.append('if __name__ == "__main__":\n    raise SystemExit(main())\n')
    path.write_text("\n".join(parts), encoding="utf-8")
    return path
