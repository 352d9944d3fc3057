"""The module on its own: one file, a Python without packages, exit codes, one-line errors."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import irene_runtime
from tests.runtime import generated
from tests.runtime.examples import estimator, tree


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("module")
    tree().save(str(folder / "tree.json"))
    (folder / "bad.json").write_text('{"format": "irene-tree", "version": 1, "nodes": [{}]}')
    return generated.write(folder / "irene_estimator.py", estimator(), tree().to_json())


def run(module: Path, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(module), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=module.parent, timeout=60, **options)


def test_names_are_unique_across_the_modules() -> None:
    """In one file, a second definition of a name would silently replace the first."""
    owner: dict[str, str] = {}
    for name in irene_runtime.MODULES:
        for node in ast.parse(generated.source(name)).body:
            names = []
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names = [node.name]
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            for defined in names:
                assert owner.setdefault(defined, name) == name, f"{defined} is in {owner[defined]} and {name}"


def test_no_module_defines_a_constant_that_export_appends() -> None:
    defined = {
        n.id
        for name in irene_runtime.MODULES
        for statement in ast.parse(generated.source(name)).body
        for n in ast.walk(statement)
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(n, ast.Name)
    }
    assert not defined & {"VERSION", "DIGEST", "ESTIMATOR", "MANIFEST", "GOLDEN"}


def test_modules_only_use_modules_before_them_and_the_standard_library() -> None:
    for position, name in enumerate(irene_runtime.MODULES):
        for node in ast.walk(ast.parse(generated.source(name), feature_version=(3, 8))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.col_offset == 0 and all(alias.asname is None for alias in node.names)
                assert node.module in irene_runtime.MODULES[:position]
            elif isinstance(node, ast.Import) and node.col_offset == 0:
                assert all(alias.name in sys.stdlib_module_names for alias in node.names)


def test_importing_does_nothing(module: Path) -> None:
    code = (
        "import sys, threading; sys.path.insert(0, '.'); before = set(sys.modules); import irene_estimator; "
        "assert threading.active_count() == 1; "
        "heavy = {'argparse', 'hashlib', 'subprocess', 'numpy', 'csv'}; "
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=module.parent
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_predict_prints_the_table(module: Path) -> None:
    done = run(module, "predict", "tree.json")
    assert done.returncode == 0 and "15.00 J a run" in done.stdout and "fc:Linear" in done.stdout
    assert "fc:Linear" not in run(module, "predict", "tree.json", "--depth", "1").stdout


def test_predict_in_every_form(module: Path) -> None:
    data = json.loads(run(module, "predict", "tree.json", "--json", "--co2", "360").stdout)
    assert data["energy_j"] == 15.0 and data["co2_g"] == pytest.approx(0.0015)
    rows = list(csv.DictReader(io.StringIO(run(module, "predict", "tree.json", "--csv").stdout)))
    assert [float(row["energy_j"]) for row in rows] == [15.0, 12.0, 4.0, 8.0, 3.0]
    assert run(module, "predict", "tree.json", "--openmetrics").stdout.endswith("# EOF\n")
    assert "terms of Linear" in run(module, "predict", "tree.json", "--explain", "head").stdout
    assert (
        "tier live: needs gpu_energy, latency" in run(module, "predict", "tree.json", "--tier", "live").stdout
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["predict"], "TREE"),
        (["predict", "missing.json"], "cannot read missing.json"),
        (["predict", "bad.json"], "bad.json: node 0: lacks 'scope'"),
        (["predict", "irene_estimator.py"], "not a model tree"),
        (["predict", "tree.json", "--tier", "best"], "best"),
        (["predict", "tree.json", "--explain", "block.fcc"], "near: block.fc"),
        (["predict", "tree.json", "--co2", "-1"], "grams of CO2"),
        (["predict", "tree.json", "--co2", "nan"], "grams of CO2"),
        (["predict", "tree.json", "--csv", "--json"], "one at a time"),
        (["predict", "tree.json", "--depth", "-1"], "--depth -1"),
        (["predict", "tree.json", "--backend", "onnx"], "onnx"),
        (["fly"], "fly"),
        (["info", "--fly"], "--fly"),
        (["monitor"], "give the command after `--`"),
        (["monitor", "--", "/nowhere/command"], "cannot run /nowhere/command"),
        (["monitor", "--runs", "0", "--", "true"], "runs is 0"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_2(module: Path, args: list[str], message: str) -> None:
    done = run(module, *args)
    assert done.returncode == 2 and done.stdout == ""
    assert (
        message in done.stderr
        and done.stderr.count("\n") == 1
        and done.stderr.startswith("irene-estimator: ")
    )


def test_without_a_command_it_shows_the_help(module: Path) -> None:
    done = run(module)
    assert done.returncode == 2 and "predict" in done.stdout


def test_info_says_what_it_is(module: Path) -> None:
    text = run(module, "info").stdout
    for part in ("pc", "emonpi", "measured", "profile, live, static", "model-out: model 1.50 %"):
        assert part in text
    data = json.loads(run(module, "info", "--json").stdout)
    assert data["digest"] == json.loads(run(module, "predict", "tree.json", "--json").stdout)["digest"]
    assert data["differs"] is None and data["this_pc"]["platform"] == sys.platform


def test_version_and_help_name_the_estimator(module: Path) -> None:
    done = run(module, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"irene-build 0, estimator [0-9a-f]{12}\n", done.stdout)
    assert "on the PC pc." in run(module, "--help").stdout


def test_info_leaves_nothing_blank_and_keeps_every_protocol(tmp_path: Path) -> None:
    one = {"mape": 1.0, "coverage90": 90.0, "n": 5}
    protocols = {"model-out": {"model": one, "ml": one, "module": one}, "family-out": {"ml": one}}
    path = generated.write(tmp_path / "irene_estimator.py", estimator(evaluation={"static": protocols}))
    text = run(path, "info").stdout
    assert not re.search(r"^\w+ *$|None", text, re.M) and max(map(len, text.splitlines())) <= 100
    assert "model-out: ml 1.00 %, module 1.00 %, model 1.00 %, family-out: ml 1.00 %" in text
    for unknown in ("fingerprint", "differs"):
        assert re.search(f"^{unknown} +not known$", text, re.M)


def test_info_says_that_this_is_another_pc(tmp_path: Path) -> None:
    module = generated.write(tmp_path / "m.py", estimator(fingerprint={"cpu": "Elsewhere 9000", "gpu": "X"}))
    data = json.loads(run(module, "info", "--json").stdout)
    assert "calibrated with Elsewhere 9000" in data["differs"]


def test_selftest_proves_the_golden_trees(module: Path) -> None:
    done = run(module, "selftest")
    assert done.returncode == 0
    assert "ok   net, tier static, 5 nodes" in done.stdout
    assert "largest deviation 0.0 J\n7 of 7 numbers equal to the last bit" in done.stdout


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("energy_j", lambda words: [*words[:-1], (float.fromhex(words[-1]) * (1 + 1e-12)).hex()]),
        ("energy_j", lambda words: words[:-1]),
        ("tolerance_j", lambda words: words[:-1]),
        ("sum_low_j", lambda words: [(float.fromhex(words[0]) * (1 - 1e-12)).hex()]),
        ("sum_high_j", lambda words: [(float.fromhex(words[0]) * (1 + 1e-12)).hex()]),
        ("flags", lambda words: [words[0][:-1] + "1"]),
        ("tier", lambda words: ["live"]),
    ],
)
def test_selftest_fails_where_a_number_differs(module: Path, tmp_path: Path, key: str, change: Any) -> None:
    broken = tmp_path / "broken.py"
    text = module.read_text()
    case = generated.golden(estimator(), tree().to_json())["cases"][0]
    other = {**case, key: " ".join(change(case[key].split()))}
    assert repr(case) in text
    broken.write_text(text.replace(repr(case), repr(other)))
    done = run(broken, "selftest")
    assert done.returncode == 1 and "FAIL net" in done.stdout


def test_changed_constants_are_refused(module: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.py"
    text = module.read_text()
    assert "'weight': 0.5" in text
    changed.write_text(text.replace("'weight': 0.5", "'weight': 0.4", 1))
    done = run(changed, "info")
    assert done.returncode == 2 and "do not match its digest" in done.stderr


def test_monitor_runs_a_command_and_passes_its_exit_code_on(module: Path) -> None:
    done = run(
        module,
        "monitor",
        "--json",
        "--runs",
        "4",
        "--tree",
        "tree.json",
        "--",
        sys.executable,
        "-c",
        "import time; time.sleep(0.4); raise SystemExit(3)",
    )
    assert done.returncode == 3, done.stderr
    data = json.loads(done.stdout)
    assert data["features"]["latency"] == pytest.approx(data["seconds"] / 4) and data["seconds"] > 0.4
    assert data["exit_code"] == 3
    assert data["prediction"]["tier"] == ("live" if "gpu_energy" in data["features"] else "static")
    text = run(module, "monitor", "--", "true").stdout
    assert re.search(r"^latency +\d[\d.e-]* s$", text, re.M) and re.search(r"gpu_energy(:| +\d)", text)
    assert len(re.findall("^missing: ", text, re.M)) <= 2, (
        "features that are missing for one reason share a line"
    )


def test_monitor_says_like_a_shell_that_a_signal_ended_its_command(module: Path) -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    assert run(module, "monitor", "--", sys.executable, "-c", code).returncode == 128 + 9


def test_output_survives_a_closed_pipe_and_a_poor_encoding(module: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -I -S {module} predict tree.json | true",
        shell=True,
        cwd=module.parent,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    odd = tree(model="b\u00e9rt \u2192")
    odd.save(str(module.parent / "odd.json"))
    done = run(module, "predict", "odd.json", env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin"})
    command = [sys.executable, "-S", str(module), "predict", "odd.json"]
    raw = subprocess.run(command, capture_output=True, cwd=module.parent, env={"PYTHONIOENCODING": "ascii"})
    assert raw.returncode == 0 and b"b?rt" in raw.stdout


def test_a_full_disk_is_one_line_and_a_failure(module: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(module), "predict", "tree.json"],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=module.parent,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "irene-estimator: cannot write the output: No space left on device\n"


def test_a_module_that_came_from_no_file_has_no_graph_beside_it(module: Path) -> None:
    names: dict[str, Any] = {"__name__": "loaded"}
    exec(compile(module.read_text(), "<loaded>", "exec"), names)
    assert names["Estimator"]().hardware == "pc"
    with pytest.raises(names["InputError"], match="was not loaded from a file: name the graph"):
        names["Estimator"](backend="onnx")
