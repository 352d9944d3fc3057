"""The best method on a PC whose law is known, and on the published measurements."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from irene_build.dataset.table import Dataset
from irene_build.errors import DatasetError
from irene_build.train import arithmetic, best, estimator_file, formulas
from irene_build.train.best import gaussian_process, huber_nnls, roofline
from irene_build.train.best.columns import ColumnRegistry
from irene_runtime.tree import LEVELS
from tests.train import synthetic

MODELS = {"a": (2, 64), "b": (3, 128), "c": (2, 256), "d": (4, 192)}
SIZES = [(1, 16), (2, 32), (4, 32), (4, 64), (8, 64), (8, 128)]


@pytest.fixture(scope="module")
def measured() -> Dataset:
    return synthetic.dataset(MODELS, SIZES, hidden=("Copy", "Elementwise"))


@pytest.fixture(scope="module")
def estimator(measured: Dataset) -> dict:
    return best.fit(measured)


def errors(estimator: dict, held_out: Dataset, tier: str) -> dict[str, float]:
    """Mean relative error per level against the law, unlabelled nodes included."""
    out: dict[str, list[float]] = {level: [] for level in LEVELS}
    for tree, p in zip(held_out.trees, arithmetic.predict(estimator, held_out.trees, tier), strict=True):
        true, _ = synthetic.truth(tree.tree)
        for node, error in zip(tree.tree.nodes, np.abs(p.energy_j / true - 1.0), strict=True):
            if node.primitive not in ("Copy", "Elementwise"):
                out[node.level].append(float(error))
    return {level: float(np.mean(values)) for level, values in out.items()}


def test_an_unseen_model_is_predicted_in_every_tier(estimator: dict) -> None:
    held_out = synthetic.dataset({"e": (3, 160)}, [(4, 48), (8, 96)], noise=0.0)
    static, live, profile = (errors(estimator, held_out, tier) for tier in ("static", "live", "profile"))
    assert static["ml"] < 0.05 and static["module"] < 0.05 and static["model"] < 0.05
    assert live["model"] < 0.02
    assert all(error < 0.02 for error in profile.values())


def test_kernels_without_a_label_get_a_cost_from_the_modules_around_them(estimator: dict) -> None:
    held_out = synthetic.dataset({"e": (2, 256)}, [(8, 128)], noise=0.0)
    (p,) = arithmetic.predict(estimator, held_out.trees, "static")
    true, _ = synthetic.truth(held_out.trees[0].tree)
    for index, node in enumerate(held_out.trees[0].tree.nodes):
        if node.primitive in ("Copy", "Elementwise"):
            assert 0.5 < p.energy_j[index] / true[index] < 2.0


def test_extrapolation_far_beyond_a_tiny_noisy_campaign_stays_sane() -> None:
    small = synthetic.dataset(
        {"a": (1, 64), "b": (2, 128)}, [(1, 16), (2, 32), (4, 64)], noise=0.1, gpu=False
    )
    estimator = best.fit(small)
    large = [synthetic.tree("large", 12, 768, 8, length) for length in (32, 64, 128, 256)]
    answers = arithmetic.predict(estimator, large, "static")
    ratio = [p.energy_j[0] / synthetic.truth(t)[0][0] for p, t in zip(answers, large, strict=True)]
    assert all(0.4 < r < 2.5 for r in ratio)
    roots = [p.energy_j[0] for p in answers]
    assert roots == sorted(roots)
    assert all((p.energy_j > 0).all() and (p.low_j > 0).all() for p in answers)
    assert all(p.flags[0] & arithmetic.EXTRAPOLATES for p in answers)


def test_one_model_alone_gives_an_estimator_whose_intervals_say_how_little_is_known() -> None:
    alone = best.fit(synthetic.dataset({"a": (2, 64)}, [(1, 16), (2, 32)]))
    more = best.fit(synthetic.dataset(MODELS, SIZES))
    for level in LEVELS:
        wide = alone["tiers"]["static"]["interval"]["levels"][level]["q"]
        assert wide > more["tiers"]["static"]["interval"]["levels"][level]["q"]


def test_a_pc_without_a_gpu_has_all_tiers_from_latency() -> None:
    estimator = best.fit(synthetic.dataset(MODELS, SIZES[:3], gpu=False))
    assert list(estimator["tiers"]) == ["static", "live", "profile"]
    assert "gpu_energy" not in estimator["features"]
    assert "latency" in estimator["features"]


def test_nvml_labels_take_gpu_energy_out_of_the_features() -> None:
    estimator = best.fit(synthetic.dataset(MODELS, SIZES[:3], label_source="nvml"))
    assert "gpu_energy" not in json.dumps(estimator["tiers"])


def test_readings_that_are_missing_everywhere_leave_the_static_tier() -> None:
    bare = synthetic.dataset(MODELS, SIZES[:3])
    for tree in bare.trees:
        tree.resources[:] = np.nan
    assert list(best.fit(bare)["tiers"]) == ["static"]
    with pytest.raises(DatasetError, match="only tier static"):
        best.fit(bare, tiers=("live",))


def test_a_dataset_without_a_label_is_refused() -> None:
    empty = synthetic.dataset({"a": (1, 64)}, [(1, 16)])
    empty.trees[0].energy_j[:] = np.nan
    with pytest.raises(DatasetError, match="no labelled node"):
        best.fit(empty)


def test_equal_inputs_give_equal_bytes_and_a_valid_file(measured: Dataset, estimator: dict) -> None:
    assert estimator_file.dumps(best.fit(measured)) == estimator_file.dumps(estimator)
    estimator_file.validate(estimator, "test")


def test_it_stays_small(estimator: dict) -> None:
    assert len(json.dumps(estimator["tiers"], separators=(",", ":"))) < 40_000
    assert estimator["tiers"]["live"]["base"] == estimator["tiers"]["profile"]["base"] == "static"


def test_a_primitive_that_was_never_calibrated_is_flagged_and_never_zero(estimator: dict) -> None:
    made = synthetic.tree("e", 1, 64, 2, 32)
    made.nodes[3].primitive = "Conv1D"
    made.nodes[5].primitive = "FFT"
    (p,) = arithmetic.predict(estimator, [made], "static")
    assert estimator["tiers"]["static"]["stand_in"]["Conv1D"] == "Linear"
    for index in (3, 5):
        assert p.flags[index] & arithmetic.UNCALIBRATED and p.energy_j[index] > 0
        assert p.high_j[index] / p.low_j[index] > 3.0


def test_a_held_out_model_leaves_nothing_behind(measured: Dataset) -> None:
    """Scaling every label of a model that is left out changes nothing that is trained without it."""
    rest = measured.subset(["a", "b", "c"])
    before = estimator_file.dumps(best.fit(rest))
    for tree in measured.trees:
        if tree.model == "d":
            tree.energy_j *= 3.0
    after = estimator_file.dumps(best.fit(measured.subset(["a", "b", "c"])))
    for tree in measured.trees:
        if tree.model == "d":
            tree.energy_j /= 3.0
    assert before == after


def test_waves_are_found_where_the_device_works_in_waves() -> None:
    names = ("kernels", "mem_bytes", "matmul_flops", *roofline.GEMM)
    m = np.repeat(np.arange(128, 4096, 128), 2).astype(float)
    n = np.tile([768.0, 3072.0], len(m) // 2)
    tiles = np.ceil(m / 128) * np.ceil(n / 128)
    energy = 5e-3 * np.ceil(tiles / 40) + 1e-8 * m * n
    features = np.column_stack([np.ones_like(m), m * n * 1e-6, 2e-6 * m * n * 768, np.ones_like(m), m, n,
                                np.full_like(m, 768)])  # fmt: skip
    measured = energy * np.exp(0.005 * np.random.default_rng(0).normal(size=len(m)))
    one = np.ones(len(m))
    shapes = roofline.by_shape(features, measured, one, np.zeros(len(m), dtype=bool))
    assert roofline.form_of(names, shapes).wave == (128, 128, 40)
    assert roofline.form_of(names[:3], shapes).wave is None


def test_a_correction_follows_a_smooth_residual_and_is_silent_far_away() -> None:
    x = np.linspace(0.0, 6.0, 40)
    z = x[:, None]
    points = gaussian_process.Points(z, 0.2 * np.sin(x), np.ones(40), 0.0, np.ones(40))
    book = ColumnRegistry(["rows"])
    column = book.raw("rows", "log")
    data = gaussian_process.fit(points, [column], 16, gaussian_process.scales(points))
    assert data is not None and len(data["centers"]) <= 16
    factor = formulas.correction(data, book.over(np.exp(z)))
    assert np.abs(np.log(factor) - 0.2 * np.sin(x)).max() < 0.03
    away = formulas.correction(data, book.over(np.exp(np.array([[60.0]]))))
    assert abs(away[0] - 1.0) < 1e-3


def test_noise_alone_gets_no_correction() -> None:
    rng = np.random.default_rng(0)
    points = gaussian_process.Points(
        rng.normal(size=(60, 2)), 0.01 * rng.normal(size=60), np.ones(60), 0.0, np.ones(60)
    )
    found = gaussian_process.scales(points)
    assert found is None or found.noise > 5 * found.signal


def test_outliers_do_not_move_a_robust_fit() -> None:
    x = np.linspace(1.0, 10.0, 50)
    y = 2.0 * x
    y[3] = 40.0 * x[3]
    assert huber_nnls.nnls(x[:, None], y, np.ones(50))[0] == pytest.approx(2.0, rel=0.01)


@pytest.fixture(scope="module")
def published(irene_dataset: Path) -> Dataset:
    from irene_build.dataset.irene import plain_dataset

    return plain_dataset(irene_dataset, "pc1")


def test_profile_errors_on_the_published_measurements(published: Dataset) -> None:
    """Two models out, the noise floor of the labels: about half a per cent at every level."""
    for held_out in ("roberta-base", "distilgpt2"):
        estimator = best.fit(
            published.subset([m for m in published.models if m != held_out]), tiers=("profile",)
        )
        test = published.subset([held_out])
        error: dict[str, list[float]] = {level: [] for level in LEVELS}
        for tree, p in zip(test.trees, arithmetic.predict(estimator, test.trees, "profile"), strict=True):
            off = np.abs(p.energy_j / tree.energy_j - 1.0)
            for node, value in zip(tree.tree.nodes, off, strict=True):
                error[node.level].append(float(value))
        assert all(np.mean(values) < 0.0065 for values in error.values())
