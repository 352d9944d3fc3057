"""Settings are chosen by models and families left out inside the training data, and follow the data."""

from __future__ import annotations

import numpy as np
import pytest

from irene_build.dataset.table import Dataset
from irene_build.train import best, formulas
from irene_build.train.best import aggregation, cross_validation, gaussian_process, select_leaf, select_module
from irene_build.train.best.sample import TrainingSet, sample
from irene_build.train.best.static import Structure, choose_forms
from tests.train import synthetic

MODELS = {"a": (2, 64), "b": (3, 64), "c": (2, 128), "d": (3, 128), "e": (2, 256)}
SIZES = [(1, 16), (2, 32), (4, 64), (8, 64)]


def inner(data: TrainingSet) -> tuple[Structure, list[cross_validation.Part]]:
    left, structure = cross_validation.gone(data), Structure()
    structure.forms = choose_forms(data, np.array([rows for rows, _ in left]))
    return structure, cross_validation.parts(data, structure, left)


def chosen(dataset: Dataset) -> aggregation.Settings:
    data = sample(dataset)
    structure, parts = inner(data)
    return select_module.choose(structure, data, parts)


def with_modules(factor: dict[str, float], bend: float = 0.0) -> Dataset:
    """A PC whose modules take more than their children: ``factor`` by type, ``bend`` over the input's size."""
    made = synthetic.dataset(MODELS, SIZES, noise=0.003, hidden=("Copy", "Elementwise"))
    for tree in made.trees:
        size = np.log(tree.tree.header["batch_size"] * tree.tree.header["seq_len"])
        for index, node in enumerate(tree.tree.nodes):
            if node.level == "module":
                tree.energy_j[index] *= factor.get(node.type, 1.0) * np.exp(bend * np.sin(2.0 * size))
    return made


def test_grids_span_orders_of_magnitude_and_begin_with_the_smoothest() -> None:
    for name, least in (("kind_length", 50.0), ("size_length", 50.0), ("ratio", 1e3)):
        grid = select_module.GRIDS[name]
        assert grid[0] / grid[-1] > least and list(grid) == sorted(grid, reverse=True)
    assert select_module.PRIORS[0] / select_module.PRIORS[-1] > 1e4
    assert select_leaf.NOISE_FACTORS[0] / select_leaf.NOISE_FACTORS[-1] >= 100.0
    start = aggregation.Settings()
    assert start.prior in select_module.PRIORS
    assert all(getattr(start.module, name) in grid for name, grid in select_module.GRIDS.items())


def test_corrections_reach_as_short_as_modules_change_over_sizes() -> None:
    plain, bent = (chosen(with_modules({}, bend)).module for bend in (0.0, 0.15))
    assert bent.ratio < plain.ratio or bent.size_length < plain.size_length


def test_what_is_chosen_does_not_depend_on_the_order_of_models_or_chance() -> None:
    made = with_modules({"Mix": 1.1})
    assert chosen(made) == chosen(made.subset(made.models[::-1]))


def test_one_model_chooses_nothing() -> None:
    data = sample(synthetic.dataset({"a": (2, 64)}, SIZES))
    assert select_module.choose(Structure(), data, []) == aggregation.Settings()


def test_a_model_that_is_left_out_has_no_say() -> None:
    """The labels of a model that no fold and no fit holds change no choice."""
    made = with_modules({"Mix": 1.1})
    rest = made.subset(["a", "b", "c", "d"])
    before = chosen(rest)
    for tree in made.trees:
        if tree.model == "e":
            tree.energy_j *= 5.0
    assert chosen(made.subset(["a", "b", "c", "d"])) == before


def test_each_option_is_judged_on_every_fold_by_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sample(with_modules({}))
    structure, parts = inner(data)
    assert [int(np.unique(data.model[part.out]).size) for part in parts] == [1, 1, 1, 1, 1, 2, 2]
    seen: list[np.ndarray] = []

    def watched(errors: np.ndarray) -> int:
        seen.append(errors)
        return 0

    monkeypatch.setattr(select_module, "simplest", watched)
    first = select_module.choose(structure, data, parts)
    assert (
        first.module == aggregation.CorrectionSettings(6.4, 6.4, 1.0, False)
        and first.prior == select_module.PRIORS[0]
    )
    grids = [(len(grid), len(parts)) for grid in select_module.GRIDS.values()]
    priors, biased = (len(select_module.PRIORS), len(parts)), (len(select_module.BIASED), len(parts))
    assert [errors.shape for errors in seen] == [*grids, priors, *grids, biased]
    assert all(np.isfinite(errors).all() for errors in seen)


def test_whole_models_choose_the_pooling_where_they_alone_have_labels() -> None:
    made = with_modules({})
    for tree in made.trees:
        tree.energy_j[1:] = np.nan
    assert chosen(made).module == aggregation.CorrectionSettings()


def test_roughness_follows_the_scatter_between_equal_shapes() -> None:
    """What is left of a law with jumps from shape to shape is followed; mere noise is not."""
    rng = np.random.default_rng(0)
    size = np.repeat(np.arange(1.0, 31.0), 4) * 64
    names = ("kernels", "mem_bytes", "rows", "cols")
    features = np.column_stack([np.ones_like(size), size / 100, size, np.full_like(size, 64.0)])
    model = np.tile(np.arange(4), 30)
    gone = np.array([model == one for one in range(4)])
    noise = np.exp(0.01 * rng.normal(size=len(size)))
    jumps = np.exp(0.08 * rng.choice([-1.0, 1.0], size=30))[np.repeat(np.arange(30), 4)]

    def noise_factor(energy: np.ndarray) -> float:
        return select_leaf.choose(
            select_leaf.Trials(names, features, energy, np.ones(len(size)), gone)
        ).noise_factor

    plain = (1e-3 + 1e-5 * size) * noise
    assert noise_factor(plain * jumps) < noise_factor(plain)


def test_the_estimator_is_made_with_what_was_chosen() -> None:
    made = with_modules({"Mix": 1.1, "Feed": 0.95})
    wanted = chosen(made)
    correction = best.fit(made)["tiers"]["static"]["correction"]["module"]
    assert (
        correction["length"][: aggregation.SIGNATURE_COLUMNS]
        == [wanted.module.kind_length] * aggregation.SIGNATURE_COLUMNS
    )
    assert correction["length"][aggregation.SIGNATURE_COLUMNS :] == [wanted.module.size_length] * 2


def test_a_layers_own_sizes_reach_as_far_as_they_do_whatever_the_inputs_size_does() -> None:
    """Two layers whose cost differs by a constant share keep that share at inputs larger than any measured."""
    rows = np.repeat(np.geomspace(64.0, 2048.0, 16), 2)
    width = np.tile([256.0, 1024.0], 16)
    rng = np.random.default_rng(3)
    residual = np.where(width > 500.0, 0.05, -0.05) + 0.001 * rng.normal(size=len(rows))
    z = np.log(np.column_stack([rows, width]))
    points = gaussian_process.Points(z, residual, np.ones(len(rows)), 0.001, np.ones(len(rows)))
    apart, alike = (
        gaussian_process.scales(points, 1.0, gaussian_process.KernelCache(z, flag)) for flag in (True, False)
    )
    assert apart is not None and alike is not None
    assert apart.length[0] > apart.length[1] and alike.length[0] == alike.length[1]
    far = np.log(np.array([[16384.0, 256.0], [16384.0, 1024.0]]))
    for using, least in ((apart, 0.06), (alike, 0.0)):
        data = gaussian_process.fit(points, [0, 1], 16, using)
        assert data is not None
        k = formulas.kernel(
            "matern32", far, np.array(data["centers"]) + np.array(data["mean"]), np.array(data["length"])
        )
        low, high = k @ np.array(data["weights"])
        assert high - low > least
