"""The generated module: the runtime's own source, readable constants, the same bits on every CPython."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings

from irene_build.errors import TreeError
from irene_build.export import module
from irene_build.export.literal import literal
from irene_build.export.samples import golden, with_resources
from irene_build.export.verify import constants_of
from irene_build.paths import runtime_source
from irene_runtime.equations import estimator_digest
from irene_runtime.main import golden_tree
from irene_runtime.model import Estimator
from irene_runtime.tree import load
from tests.strategies import Forms, forms
from tests.strategies import estimator as make_estimator


def pythons() -> list[str]:
    """Every CPython from 3.8 on that is on PATH or under pyenv, one a version."""
    found: dict[str, str] = {}
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    candidates = [str(p) for root in roots for p in sorted(root.glob("3.*/bin/python3"))]
    candidates += [path for minor in range(8, 20) if (path := shutil.which(f"python3.{minor}"))]
    for path in candidates:
        probe = subprocess.run(
            [path, "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.implementation.name)"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        words = probe.stdout.split()
        if probe.returncode == 0 and words[1] == "cpython" and tuple(map(int, words[0].split("."))) >= (3, 8):
            found.setdefault(words[0], path)
    return list(found.values())


@given(forms)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_constants_are_the_estimator_to_the_last_bit(form: Forms) -> None:
    data = json.loads(json.dumps(make_estimator(form)))
    text = literal(data)
    found = ast.literal_eval(text)
    assert found == data
    assert estimator_digest(found) == estimator_digest(data)
    assert max(map(len, text.splitlines())) < 150


def test_constants_stand_as_a_person_would_write_them(bundle: Path, estimator: dict[str, Any]) -> None:
    text = (bundle / "irene_estimator.py").read_text(encoding="utf-8")
    constants = text[text.index("ESTIMATOR = ") :]
    for leaf in estimator["tiers"]["static"]["leaf"].values():
        for term in leaf["terms"]:
            assert f"'name': {term['name']!r}" in constants and f"'weight': {term['weight']!r}" in constants
    for feature in estimator["features"]:
        assert re.search(rf'[ {{]"{feature}": "[^"]+"', text), "its unit"


def test_what_it_offers(bundle: Path) -> None:
    names: dict[str, Any] = {"__name__": "irene_estimator"}
    exec((bundle / "irene_estimator.py").read_text(encoding="utf-8"), names)
    assert set(names["__all__"]) == {
        "Attached", "Drift", "Estimator", "ModelTree", "Monitor", "Node", "NodePrediction", "Prediction",
        "RequestPrediction",
        "SymbolicTree", "load_tree", "main", "IreneError", "InputError", "TreeError", "EstimatorError",
        "HardwareError", "RunError",
    }  # fmt: skip
    assert all(name in names and (name == "main" or names[name].__doc__) for name in names["__all__"])


def test_importing_it_does_nothing(bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys, threading; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "import irene_estimator as m\n"
        "heavy = {'numpy', 'onnxruntime', 'torch', 'socket', 'subprocess', 'ctypes'} & (set(sys.modules) - before)\n"
        "assert not heavy, heavy\nassert threading.active_count() == 1\n"
        "assert m.Estimator().digest == m.DIGEST\nprint('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code, str(bundle)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout == "fine\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_is_bit_identical_on_every_cpython(
    bundle: Path, estimator: dict[str, Any], tmp_path: Path
) -> None:
    interpreters = pythons()
    if len(interpreters) < 2:
        pytest.skip(f"only one CPython here ({', '.join(interpreters)}); install others to compare")
    plain = bundle / "trees" / "tree-0.json"
    full = tmp_path / "full.json"
    with_resources(load(str(plain)), estimator).save(str(full))
    outputs: dict[str, str] = {}
    for python in interpreters:
        module = [python, "-I", "-S", str(bundle / "irene_estimator.py")]
        parts = [
            subprocess.run(
                [*module, "predict", str(tree), "--json", "--tier", tier],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for tree, tier in ((plain, "static"), (full, "live"), (full, "profile"))
        ]
        test = subprocess.run([*module, "selftest"], capture_output=True, text=True, check=True).stdout
        assert re.search(r"^(\d+) of \1 numbers equal to the last bit", test, re.M), test
        outputs[python] = "".join(parts)
    assert len(set(outputs.values())) == 1, {k: hash(v) for k, v in outputs.items()}


@given(forms)
@example(
    Forms(
        seed=0, products=True, maps=False, floor=False, kernels=("poly",), degree=0, level_corrections=True,
        direct=True, ranges=False, stand_in=False, simulated=False, tiers=("profile",), resource_leaves=False,
    )
)  # fmt: skip
@settings(max_examples=10, deadline=None, derandomize=True)
def test_golden_trees_come_from_the_estimator_alone(form: Forms) -> None:
    data = make_estimator(form)
    only = data["tiers"].get("profile", {}) if len(data["tiers"]) == 1 else {}
    if set(only.get("direct") or {}) == {"model"}:  # reads roots alone, in a tier that wants nodes below them
        with pytest.raises(TreeError, match="no tier of this estimator can predict"):
            golden(data)
        return
    found = golden(data)
    assert found == golden(json.loads(json.dumps(data)))
    cases = {(case["name"], case["tier"]): case for case in found["cases"]}
    assert {name for name, _ in cases} <= {"inside", "outside"}
    assert all(
        len(case["energy_j"].split()) == len(case["flags"]) == len(found["nodes"]) for case in cases.values()
    )
    primitives = {node.get("primitive", "-") for node in found["nodes"]}
    for name, tier in data["tiers"].items():
        assert set(tier.get("leaf", {})) | {"-", "Custom"} <= primitives
        assert not tier.get("stand_in") or set(tier["stand_in"]) & primitives
        p = Estimator(data).predict(golden_tree(found, 1.0), tier=name)
        if p.tier == name:
            assert cases["inside", name]["energy_j"].split() == [n.energy_j.hex() for n in p]


def test_the_golden_tree_takes_every_path(estimator: dict[str, Any]) -> None:
    """Of an estimator that has every form: all tiers, all flags of a node, both sides of a range."""
    found = golden(estimator)
    assert {case["tier"] for case in found["cases"]} == set(estimator["tiers"])
    flags = {
        (case["name"], bit)
        for case in found["cases"]
        for c in case["flags"]
        for bit in (1, 2, 4)
        if int(c, 16) & bit
    }
    assert flags >= {("outside", 1), ("inside", 2), ("inside", 4)}
    inside, outside = (golden_tree(found, times) for times in (1.0, 40.0))
    for near, far in zip(inside.nodes, outside.nodes, strict=True):
        assert list(far.features.values()) == [
            v * 40.0 if i % 2 else v / 40.0 for i, v in enumerate(near.features.values())
        ]


def test_literals_read_back(estimator: dict[str, Any], tmp_path: Path) -> None:
    found = golden(estimator)
    path = tmp_path / "irene_estimator.py"
    path.write_text(f"ESTIMATOR = {{}}\nDIGEST = ''\nGOLDEN = {literal(found)}\n", encoding="utf-8")
    assert constants_of(path)["GOLDEN"] == found


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_selftest_notices_a_changed_constant(copied: Path) -> None:
    """Estimator() refuses constants that do not match the digest, so selftest cannot pass on them."""
    module = copied / "irene_estimator.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(re.sub(r"'weight': (-?\d)", r"'weight': \g<1>1", text, count=1), encoding="utf-8")
    done = run(module, "selftest")
    assert done.returncode == 2 and "digest" in done.stderr


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_module_that_was_cut_off_says_so(copied: Path, share: float) -> None:
    """Also where what is left of it is a program: cut before a definition."""
    path = copied / "irene_estimator.py"
    text = path.read_text(encoding="utf-8")
    tops = [node.lineno for node in ast.parse(text).body]
    line = tops[int(share * len(tops))] - 1
    path.write_text("".join(text.splitlines(keepends=True)[:line]), encoding="utf-8")
    done = run(path, "info")
    assert done.returncode == 1 and "is cut off: copy it again" in done.stderr


def test_the_runtime_ships_as_it_is_written(bundle: Path) -> None:
    """Four spaces, docstrings and types; only functions of the build tool and hints to tools stay at home."""
    text = (bundle / "irene_estimator.py").read_text(encoding="utf-8")
    functions = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    assert all(node.returns is not None for node in functions)
    names = {node.name for node in functions}
    for part in module.parts()[0]:
        if part.name == "law":  # ships where the estimator has one
            continue
        source = runtime_source(part.name)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                at_home = module.BUILD_ONLY in source.splitlines()[node.lineno - 1]
                assert at_home or node.name.startswith("_") or node.name in names
    assert "# build tool only" not in text and "# type: ignore" not in text and "# fmt: skip" not in text
    for public in ("Predict one run of ``tree``, ", "-> Prediction:", "runs: int = 1", "Grams of CO2"):
        assert public in text


def test_a_large_module_goes_without_asides(
    estimator: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is the same, and what users call keeps its docstrings."""

    def program(text: str) -> str:
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if (
                isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and ast.get_docstring(node)
                and len(node.body) > 1
            ):
                del node.body[0]
        return ast.dump(tree)

    tests = golden(estimator)
    monkeypatch.setattr(module, "MAX_BYTES", 10**9)
    full = module.render_module(estimator, "", tests)
    monkeypatch.setattr(module, "MAX_BYTES", 1)
    lean = module.render_module(estimator, "", tests)
    assert program(lean) == program(full) and len(lean) < len(full)
    assert "Predict one run of ``tree``, " in lean and "# half the cost of waiting" in lean


def test_pc1_s_module_is_at_most_260_kb(repository: Path) -> None:
    data = json.loads((repository / "artifacts" / "pc1" / "estimator.json").read_text(encoding="utf-8"))
    text = module.render_module(data, estimator_digest(data), golden(data))
    assert len(text.encode("utf-8")) <= module.MAX_BYTES
