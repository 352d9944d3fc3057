"""verify and diff: what they compare, that they notice, and what they print."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irene_build.cli import main
from irene_build.errors import EstimatorError
from irene_build.export.arrays import encode
from irene_build.export.backends import OnnxRuntime
from irene_build.export.bundle import export
from irene_build.export.diff import compare_bundles, percent
from irene_build.export.graph import build_model
from irene_build.export.oracle import Oracle, pipeline
from irene_build.export.parity import EPS, Scales, compare, scales
from irene_build.export.verify import verify_bundle
from irene_runtime.tree import from_json
from tests.export import examples


def outputs(values: list[float]) -> dict[str, np.ndarray]:
    return {"energy": np.array(values)}


def bound(values: list[float]) -> Scales:
    scale = np.array(values)
    return Scales(scale, scale, scale, scale)


ROOT = np.array([-1, 0, 0])


def test_the_bound_is_sixteen_eps_of_the_sum_of_terms() -> None:
    one, other = outputs([1.0, 1.0, 1.0]), outputs([1.0, 1.0 + 15 * EPS, 1.0])
    assert compare(one, other, bound([1.0, 1.0, 1.0]), ROOT).agrees
    other = outputs([1.0, 1.0 + 18 * EPS, 1.0])
    found = compare(one, other, bound([1.0, 1.0, 1.0]), ROOT, "case")
    assert not found.agrees and found.where == "case energy at node 1"


@pytest.mark.parametrize("values", [[1.0, np.nan, 1.0], [1.0, np.inf, 1.0]])
def test_nan_and_infinity_must_stand_in_the_same_places(values: list[float]) -> None:
    scale = bound([1.0, 1.0, 1.0])
    assert not compare(outputs(values), outputs([1.0, 1.0, 1.0]), scale, ROOT).agrees
    assert not compare(outputs([1.0, 1.0, 1.0]), outputs(values), scale, ROOT).agrees
    assert compare(outputs(values), outputs(values), scale, ROOT).agrees


def test_a_nan_scale_hides_nothing() -> None:
    scale = bound([np.nan, np.nan, np.nan])
    assert not compare(outputs([1.0, 2.0, 3.0]), outputs([1.0, 2.5, 3.0]), scale, ROOT).agrees


def test_roots_are_held_to_1e_12_relative() -> None:
    scale = bound([200.0, 1.0, 1.0])
    assert compare(outputs([1.0, 1.0, 1.0]), outputs([1.0 + 5e-13, 1.0, 1.0]), scale, ROOT).agrees
    worse = compare(outputs([1.0, 1.0, 1.0]), outputs([1.0 + 1.5e-12, 1.0, 1.0]), scale, ROOT)
    assert not worse.agrees


def test_flags_must_be_equal() -> None:
    one = {**outputs([1.0, 1.0, 1.0]), "flags": np.array([0, 1, 0])}
    other = {**outputs([1.0, 1.0, 1.0]), "flags": np.array([0, 0, 0])}
    assert not compare(one, other, bound([1.0] * 3), ROOT).agrees


def test_every_engine_is_compared(bundle: Path) -> None:
    report = verify_bundle(bundle)
    assert set(report.engines) == {"onnxruntime", "onnx.reference", "trainer", "skl2onnx"}
    assert report.cases >= 6 and report.nodes > 50 and not report.refused
    assert report.worst.agrees and report.worst.share > 0.0
    assert any("equal to the last bit" in line for line in report.selftest)


def test_a_module_that_is_not_ours_is_not_run(copied: Path) -> None:
    """Though its constants, its digest and its hash are right."""
    module = copied / "irene_estimator.py"
    mark = copied / "ran"
    line = f"    open({str(mark)!r}, 'w')\n"
    text = module.read_text(encoding="utf-8").replace(
        "    sys.exit(main())\n", line + "    sys.exit(main())\n"
    )
    module.write_text(text, encoding="utf-8")
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"]["irene_estimator.py"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        EstimatorError, match=r"not what irene-build .* writes .* from line \d+ on, and was not run"
    ):
        verify_bundle(copied)
    compare_bundles(copied, copied)
    assert not mark.exists()


def test_a_python_that_is_none(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for python, code in (("/no/such", 2), ("/bin/true", 1)):
        assert run("verify", str(bundle), "--python", python) == code
        error = capsys.readouterr().err
        assert python in error and error.count("\n") == 1


def test_the_oracle_is_scikit_learn(estimator: dict[str, Any]) -> None:
    """The pipeline predicts what the leaf's terms say, and its conversion what our graph says."""
    data = examples.estimator(examples.PAPER)
    leaf = next(iter(data["tiers"]["profile"]["leaf"].values()))
    x = np.random.default_rng(0).uniform(1.0, 100.0, (5, sum(bool(t["columns"]) for t in leaf["terms"])))
    own = [t for t in leaf["terms"] if t["columns"]]
    constant = sum(t["weight"] for t in leaf["terms"] if not t["columns"])
    expected = constant + sum(t["weight"] * (x[:, i] - t["mean"]) / t["scale"] for i, t in enumerate(own))
    np.testing.assert_allclose(pipeline(leaf["terms"]).predict(x), expected, rtol=1e-12)
    for tree in examples.trees(data, 2).values():
        from irene_build.export.samples import with_resources

        arrays = encode(data, [with_resources(tree, data)])
        ours = OnnxRuntime(build_model(data, {}).SerializeToString()).run_arrays(arrays, "profile")
        theirs = Oracle(data).leaf_energies("profile", arrays)
        found = compare(
            {"leaf_energy": ours["leaf_energy"]},
            {"leaf_energy": theirs},
            scales(data, "profile", arrays),
            arrays["parent"],
        )
        assert found.agrees, found


def test_the_oracle_notices_a_wrong_table() -> None:
    data = examples.estimator(examples.PAPER)
    tree = next(iter(examples.trees(data).values()))
    arrays = encode(data, [tree])
    ours = OnnxRuntime(build_model(data, {}).SerializeToString()).run_arrays(arrays, "static")["leaf_energy"]
    wrong = examples.estimator(examples.PAPER)
    for leaf in [*wrong["tiers"]["static"]["leaf"].values(), wrong["tiers"]["static"]["fallback"]]:
        leaf["terms"][-1]["mean"] += 1e-9 * abs(leaf["terms"][-1]["mean"])
    theirs = Oracle(wrong).leaf_energies("static", arrays)
    bounds = scales(data, "static", arrays)
    assert not compare({"leaf_energy": ours}, {"leaf_energy": theirs}, bounds, arrays["parent"]).agrees


@pytest.fixture(scope="module")
def changed(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same estimator after a recalibration that gave every leaf 10 % more."""
    data = examples.estimator()
    for leaf in [*data["tiers"]["static"]["leaf"].values(), data["tiers"]["static"]["fallback"]]:
        for term in leaf["terms"]:
            term["weight"] *= 1.1
    data["hardware"] = "other"
    folder = tmp_path_factory.mktemp("changed") / "out"
    export(data, folder, {})
    return folder


def test_diff_is_in_joules_per_tree_and_tier(bundle: Path, changed: Path) -> None:
    found = compare_bundles(bundle, changed)
    assert found["changed"] == {"hardware": ("random", "other")}
    assert {case["tree"] for case in found["trees"]} == {"golden-inside", "golden-outside", "tree-0"}
    static = [case for case in found["trees"] if case["tier"] == "static"]
    assert static
    for case in static:
        before, after = case["energy_j"]
        assert after > before
        assert sorted(n["index"] for n in case["nodes"]) == list(range(len(case["nodes"])))


def test_diff_of_a_bundle_with_itself_is_nothing(bundle: Path) -> None:
    found = compare_bundles(bundle, bundle)
    assert found["same_estimator"] and not found["changed"]
    assert all(case["change"] == "=" for case in found["trees"])


def test_bundles_of_different_cost_models_are_not_compared_and_say_so_once(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = examples.estimator()
    data["cost_model"] = "irene2021"
    export(data, tmp_path / "out", {})
    assert run("diff", str(bundle), str(tmp_path / "out")) == 0
    shown = capsys.readouterr()
    said = [line for line in (shown.out + shown.err).splitlines() if "not compared" in line]
    assert len(said) == 1 and "different cost models (analytic and irene2021)" in said[0]


def test_trees_that_one_bundle_refuses_are_named_once_per_reason(bundle: Path, tmp_path: Path) -> None:
    """The other estimator wants a feature that no tree of the first bundle has."""
    data = examples.estimator()
    feature = next(n for n in data["features"] if n not in ("batch_size", "seq_len", "input_size"))
    for tier in data["tiers"].values():
        for ranges in tier.get("ranges", {}).values():
            ranges[feature] = [1.0, 2.0]
    export(data, tmp_path / "out", {})
    tree = json.loads((bundle / "trees" / "tree-0.json").read_text(encoding="utf-8"))
    for node in tree["nodes"]:
        node["features"].pop(feature, None)
    old = tmp_path / "old"
    data = examples.estimator()
    for tier in data["tiers"].values():
        tier.pop("ranges", None)
    export(data, old, {"bare.json": from_json(tree)})
    found = compare_bundles(old, tmp_path / "out")
    (cases,) = [cases for reason, cases in found["not_compared"].items() if feature in reason]
    assert "bare, tier static" in cases
    assert found["trees"]


def test_percent() -> None:
    assert [percent(1.0, 1.0), percent(2.0, 3.0), percent(0.0, 1.0), percent(-2.0, -1.0)] == [
        "=",
        "+50 %",
        "new",
        "+50 %",
    ]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def test_the_commands(
    bundle: Path, changed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "estimator.json"
    source.write_text(json.dumps(examples.estimator()), encoding="utf-8")
    tree = str(bundle / "trees" / "tree-0.json")
    out = tmp_path / "out"
    assert run("export", str(out), "--estimator", str(source), "--tree", tree, "--json") == 0
    written = json.loads(capsys.readouterr().out)
    assert written["files"]["irene_estimator.py"] > 0 and written["verified"]["ok"]
    assert (out / "irene_estimator.py").read_bytes() == (bundle / "irene_estimator.py").read_bytes()
    assert run("verify", str(out)) == 0
    text = capsys.readouterr().out
    assert "onnx.reference" in text and "largest deviation" in text and "selftest: ok" in text
    assert run("verify", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out)["engines"]["skl2onnx"]["share_of_bound"] <= 1.0
    assert run("diff", str(out), str(changed)) == 0
    assert "hardware: random -> other" in capsys.readouterr().out
    assert run("diff", str(out), str(changed), "--json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == "irene-diff"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("export", "{tmp}/out", "--estimator", "{tmp}/none.json"), "cannot read"),
        (("export", "{tmp}/out", "--estimator", "{tmp}/bad.json"), "not an estimator"),
        (("export", "{tmp}/out", "--hardware", "nowhere"), "there is one of "),
        (("export", "{tmp}/out", "--hardware", "pc1", "--estimator", "x"), "not both"),
        (("export", "{tmp}/bad.json", "--estimator", "{tmp}/good.json"), "is a file"),
        (("export", "{tmp}", "--estimator", "{tmp}/good.json"), "not a bundle of ours"),
        (("export", "/proc/x", "--estimator", "{tmp}/good.json"), "cannot write /proc/x"),
        (("verify", "{tmp}/none"), "none"),
        (("verify", "{tmp}"), "manifest.json"),
        (("diff", "{tmp}", "{tmp}"), "manifest.json"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "bad.json").write_text('{"format": "other"}', encoding="utf-8")
    (tmp_path / "good.json").write_text(json.dumps(examples.estimator(examples.PAPER)), encoding="utf-8")
    assert run(*(a.format(tmp=tmp_path) for a in arguments)) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_tree_of_every_size_is_shipped_and_compared_in_each_section(tmp_path: Path) -> None:
    from irene_runtime.symbolic import SymbolicTree, load_any
    from tests.export.test_size_graph import of_everything
    from tests.trace.test_symbolic import symbolic

    tree = symbolic("LlamaForCausalLM")
    done = export(of_everything(True), tmp_path / "out", {"llama.json": tree})
    kept = load_any(str(done.folder / "trees" / "llama.json"))
    assert isinstance(kept, SymbolicTree) and kept.data == tree.data
    assert done.verified.worst.agrees and done.verified.cases > 2 * len(tree.sections)
    diff = compare_bundles(done.folder, done.folder)
    assert {c["tree"] for c in diff["trees"]} > {"llama-prefill-2x24", "llama-decode-2x40"}
