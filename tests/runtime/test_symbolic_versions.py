"""Symbolic trees give the same bits on every CPython from 3.8 that is on this machine: sizes, steps, requests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from irene_build.trace.symbolic import dumps
from tests.runtime import generated
from tests.runtime.generating import estimator, tree
from tests.runtime.test_versions import FOUND, _run

_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import irene_estimator as m
est, tree = m.Estimator(), m.load_tree(sys.argv[1] + "/every.json")
for size in ((3, 37, 0), (1, 1, 200), (2, 16, 64)):
    p = est.predict(tree, batch_size=size[0], seq_len=size[1], past_len=size[2])
    print(" ".join(x.hex() for n in p for x in (n.energy_j, *n.interval_j)))
    print(sorted((k, v.hex()) for n in tree.at(*size).nodes for k, v in n.features.items()))
step = est.predict(tree, requests=[(1, 700), (1, 90), (64, 0), (16, 32)])
print(step.energy_j.hex(), [share.hex() for share in step.shares_j])
r = est.request(tree, prompt=100, new=300, batch_size=4)
print(r.energy_j.hex(), [x.hex() for x in r.interval_j], r.error_j.hex(), m.json.dumps(r.to_json()))
print(r.table())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions")
    (folder / "every.json").write_text(dumps(tree()), encoding="utf-8")
    data = json.loads(json.dumps(estimator().data))
    generated.write(folder / "irene_estimator.py", data, tree().at(1, 8).to_json())
    return folder


@pytest.mark.parametrize("version", sorted(FOUND, key=lambda v: tuple(map(int, v.split(".")))))
def test_every_version_gives_the_same_bits(version: str, folder: Path) -> None:
    reference = folder / "reference.txt"
    if not reference.exists():
        reference.write_text(_run(sys.executable, folder, "-c", _SCRIPT, str(folder)), encoding="utf-8")
    assert _run(FOUND[version], folder, "-c", _SCRIPT, str(folder)) == reference.read_text(encoding="utf-8")
