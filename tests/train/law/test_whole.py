"""Whole-model labels through the law: what is fitted, what it says of other conditions, and which runs failed."""

from dataclasses import replace

import numpy as np
import pytest

from irene_build.train import api, arithmetic
from irene_build.train.law import failed
from irene_build.train.law.correction import Correction
from irene_runtime.model import Estimator
from tests.train.law.models import dataset, labelled, measured, model


@pytest.fixture(scope="module")
def estimator():
    return api.fit(dataset(measured(noise=0.03)))


def test_the_runtime_and_the_trainer_say_the_same(estimator):
    tree = model("e", 1536, 20, 256)
    trained = arithmetic.predict(estimator, [tree], "static")[0]
    found = Estimator(estimator).predict(tree)
    assert found.energy_j == pytest.approx(trained.energy_j[0], rel=1e-9)
    assert found.interval_j == pytest.approx((trained.low_j[0], trained.high_j[0]), rel=1e-9)


def test_a_new_model_is_predicted_and_its_parts_are_less_sure(estimator):
    truth = measured(clocks=(1410.0,))
    for own in (tree for tree in truth if tree.model in ("b", "d")):
        found = Estimator(estimator).predict(own.tree)
        assert abs(found.energy_j / own.energy_j[0] - 1.0) < 0.1
        low, high = found.interval_j
        assert low <= own.energy_j[0] <= high
        parts = [node for node in found.nodes if node.level == "ml"]
        assert all(
            part.interval_j[1] / part.energy_j > high / found.energy_j for part in parts if part.energy_j
        )


def test_the_host_is_a_part_of_the_whole(estimator):
    found = Estimator(estimator).predict(model("tiny", 256, 24, 16))
    host = next(node for node in found.nodes if node.primitive == "Host")
    assert host.energy_j > 0.3 * found.energy_j


def test_clock_and_power_limit_are_asked_about(estimator):
    compiled = Estimator(estimator)
    joules = {
        clock: compiled.predict(model("d", 4096, 32, 2048, clock=clock)).energy_j
        for clock in (700, 900, 1410)
    }
    assert joules[1410] > joules[900]
    limited = model("d", 4096, 32, 2048)
    limited.header["power_limit_w"] = 200.0
    assert compiled.predict(limited).energy_j != compiled.predict(model("d", 4096, 32, 2048)).energy_j


def test_a_dtype_that_is_rare_takes_its_rates_from_the_datasheet():
    trees = measured()
    single = model("a", 768, 12, 2048, dtype="float32", clock=1410.0)
    said = Estimator(api.fit(dataset(trees))).predict(single)
    half = Estimator(api.fit(dataset(trees))).predict(model("a", 768, 12, 2048, clock=1410.0))
    assert 2.0 * half.energy_j < said.energy_j < 60.0 * half.energy_j


def test_failed_runs_are_found_by_the_datasheet_and_by_their_neighbours():
    trees = measured(noise=0.02)
    for name, energy, seconds in (("d", 5.0, 1e-3), ("c", 300.0, None), ("b", 0.1, 0.9)):
        own = next(tree for tree in trees if tree.model == name and tree.tree.header["seq_len"] == 2048)
        was = trees.index(own)
        trees[was] = labelled(own.tree, energy, seconds or float("nan"), 1000 + was)
    found = failed.find(dataset(trees))
    reasons = sorted(found.values())
    assert len(reasons) == 3
    assert any("TFLOP/s, more than" in reason for reason in reasons)
    assert any("less than the 60 W" in reason for reason in reasons)
    assert any("times more than the law says" in reason for reason in reasons)
    clean = dataset(measured(noise=0.02))
    assert failed.find(clean) == {}


def test_failed_runs_are_not_trained_on():
    trees = measured(noise=0.02)
    spoiled = [labelled(t.tree, 50.0 * t.energy_j[0], t.resources[0, 6], t.measurement[0]) if i == 7 else t
               for i, t in enumerate(trees)]  # fmt: skip
    told = replace(
        dataset(spoiled), info={"labels": "model", "device": "A100", "implausible": {"7": {"reason": "x"}}}
    )
    rest = dataset([tree for i, tree in enumerate(trees) if i != 7])
    assert api.fit(told)["law"] == api.fit(rest)["law"]


def test_a_correction_keeps_order_and_is_1_away_from_data():
    random = np.random.default_rng(1)
    law_j = np.exp(random.uniform(0.0, 5.0, 60))
    bend = Correction(
        law_j, law_j * np.exp(0.3 * np.sin(9.0 * np.log(law_j))), np.array(["a", "b", "c"] * 20)
    )
    grid = np.exp(np.linspace(-6.0, 12.0, 3000))
    assert (np.diff(grid * bend.factor(grid)) > 0.0).all()
    assert bend.factor(grid)[[0, -1]] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert np.abs(np.log(bend.factor(grid))).max() < np.log(2.0)


def test_evaluate_prints_the_law_and_the_errors_with_failed_runs():
    from irene_build.evaluate.run import evaluate
    from irene_build.evaluate.text import evaluation_text

    trees = measured(noise=0.03)
    trees[7] = labelled(trees[7].tree, 90.0 * trees[7].energy_j[0], trees[7].resources[0, 6], 7)
    data = dataset(trees)
    data.info["implausible"] = {"7": {"row": "t.csv, line 9", "reason": "broken"}}
    result = evaluate(data)
    assert result["tiers"]["static"]["model"]["n"] == len(trees) - 1
    assert result["failed_runs"]["with_them"]["static"]["n"] == len(trees)
    assert result["failed_runs"]["with_them"]["static"]["max"] > 90.0
    assert result["baselines"]["law-static"]["model"] < 15.0
    assert not result["beaten_by"]
    assert "t.csv, line 9: broken" in evaluation_text(result)


def test_what_was_never_measured_is_wider(estimator):
    compiled = Estimator(estimator)

    def width(**asked):
        tree = model("d", 4096, 8, 512)
        tree.header.update(asked)
        found = compiled.predict(tree)
        return found.interval_j[1] / found.energy_j

    assert width(dtype="float16") == pytest.approx(width())  # one rate for 16 bits
    assert width(dtype="float32") > 1.5 * width()
    assert width(phase="decode") > 1.5 * width()
