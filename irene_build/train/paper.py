"""IrEne's own method (ACL 2021): equations 1 to 4 and appendix A.4, vectorised over the whole forest.

Leaves are standardised linear regressions per primitive (scikit-learn); one set of weights over cubic
polynomial features decides how much of each child's energy its parent gets (torch, float64). Two recipes:

    converged   L-BFGS over all trees at once, from alpha = 1 (PredictedSum). After 200 steps the loss is
                within 5 % of its minimum; going on to the minimum itself overfits the 679 weights
    authors     Adam 1e-3, 8 epochs, a tree a step, as in the authors' cleaned-up code
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree, gpu_energy_is_label
from irene_build.dataset.view import has_published_counts, view
from irene_build.errors import DatasetError, InputError
from irene_build.train.forest import Collapsed, Forest, collapse, flatten
from irene_runtime.features import RESOURCE_FEATURES, TABLE_1

#: The 14 inputs of the authors' code: Table 1, the parameters of a node and the tokens of its input.
INPUTS = ("num_parameters", "input_size", *TABLE_1)
MODEL_INPUTS = tuple(name for name in INPUTS if name not in RESOURCE_FEATURES)
#: Table 8, without the model features: the two sizes that every node has stay, as in the authors' code.
RESOURCE_INPUTS = ("num_parameters", "input_size", *RESOURCE_FEATURES)
RECIPES = ("converged", "authors")
STRATEGIES = ("end2end", "stepwise", "predicted-sum")
TAU = 10.0
DEGREE = 3
STEPS = 200
EPOCHS = 8
LEARNING_RATE = 1e-3
AUTHORS_SEED = 13370


@dataclass(frozen=True)
class LinearLeaf:
    """Equation 1: energy = bias + sum of weight * (feature - mean) / scale, in joules."""

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        return ((features - self.mean) / self.scale) @ self.weight + self.bias


@dataclass(frozen=True)
class Aggregation:
    """Equation 3: alpha = 1 + tanh(poly(z) . weight + bias) / tau."""

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: float

    def alpha(self, features: np.ndarray) -> np.ndarray:
        z = polynomial((features - self.mean) / self.scale)
        return 1.0 + np.tanh(z @ self.weight + self.bias) / TAU


@dataclass(frozen=True)
class PaperModel:
    """The fitted method on the features ``names``; ``aggregation`` None is PredictedSum (equation 2)."""

    names: tuple[str, ...]
    leaves: dict[str, LinearLeaf]
    fallback: LinearLeaf
    aggregation: Aggregation | None

    def leaf_energies(self, forest: Forest) -> np.ndarray:
        """float64[n]: predicted joules at the leaves, 0 above."""
        out = np.zeros(len(forest.parent))
        for primitive in np.unique(forest.primitive[forest.leaf]):
            chosen = forest.leaf & (forest.primitive == primitive)
            out[chosen] = self.leaves.get(str(primitive), self.fallback).predict(forest.features[chosen])
        return out

    def predict(self, trees: Sequence[LabelledTree]) -> list[np.ndarray]:
        """Joules of every node, a float64 array a tree."""
        forest = flatten(trees, self.names)
        folded = collapse(replace(forest, energy_j=np.zeros(len(forest.parent))))
        energy = self.leaf_energies(forest)[folded.node]
        alpha = np.ones(len(folded.node))
        if self.aggregation is not None:
            alpha = self.aggregation.alpha(forest.features[folded.node])
        for parent, child, times in folded.steps():
            np.add.at(energy, parent, alpha[child] * energy[child] * times)
        return np.split(energy[folded.of], forest.starts[1:-1])


def polynomial(z: np.ndarray) -> np.ndarray:
    """All monomials of the columns up to degree 3, without the constant, in the order of FORMAT.md."""
    columns = range(z.shape[1])
    blocks = [z]
    picks: list[tuple[int, ...]] = [(column,) for column in columns]
    for _ in range(DEGREE - 1):
        longer = [(*pick, last) for pick in picks for last in range(pick[-1], z.shape[1])]
        index = {pick: position for position, pick in enumerate(picks)}
        prefix = np.array([index[pick[:-1]] for pick in longer])
        blocks.append(blocks[-1][:, prefix] * z[:, [pick[-1] for pick in longer]])
        picks = longer
    return np.concatenate(blocks, axis=1)


def usable(dataset: Dataset, names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that every labelled node has, without the source of the label (DESIGN, rule 4)."""
    return _usable(dataset, flatten(dataset.trees, names))


def _usable(dataset: Dataset, forest: Forest) -> tuple[str, ...]:
    labelled = ~np.isnan(forest.energy_j)
    if not labelled.any():
        raise DatasetError(f"the dataset of {dataset.hardware!r} has no labels")
    known = np.isfinite(forest.features[labelled]).all(axis=0)
    return tuple(
        name
        for name, is_known in zip(forest.names, known, strict=True)
        if is_known and not (name == "gpu_energy" and gpu_energy_is_label(dataset.label_source))
    )


def train_view(dataset: Dataset, counts: str = "irene2021") -> tuple[Dataset, str]:
    """What the method is fitted on, and its cost model: the published nodes where there are any, else all.

    ``counts`` as in ``dataset.view``: ``irene2021`` can be traced again, ``published`` is what the paper had.
    """
    if has_published_counts(dataset):
        return view(dataset, counts), "irene2021"
    return dataset, "analytic"


def fit(
    dataset: Dataset,
    names: Sequence[str] = INPUTS,
    recipe: str = "converged",
    strategy: str = "end2end",
    seed: int = 0,
    steps: int = STEPS,
) -> PaperModel:
    """Fit the method to a dataset (as ``train_view`` gives it).

    ``strategy``: end2end (equation 4), stepwise (equation 5: parents learn from their children's labels) or
    predicted-sum (equation 2). Raises DatasetError without labelled leaves, InputError for unknown names.
    """
    if recipe not in RECIPES or strategy not in STRATEGIES:
        raise InputError(
            f"recipe {recipe!r} ({', '.join(RECIPES)}), strategy {strategy!r} ({', '.join(STRATEGIES)})"
        )
    forest = flatten(dataset.trees, names)
    names = _usable(dataset, forest)
    columns = [forest.names.index(name) for name in names]
    forest = replace(forest, names=names, features=forest.features[:, columns])
    folded = collapse(forest)
    leaves, fallback = _fit_leaves(forest, folded)
    model = PaperModel(names, leaves, fallback, None)
    if strategy == "predicted-sum":
        return model
    if recipe == "authors":
        aggregation = _fit_authors(dataset.trees, model, strategy, seed)
    else:
        aggregation = _fit_converged(forest, folded, model, strategy, steps)
    return replace(model, aggregation=aggregation)


def _fit_leaves(forest: Forest, folded: Collapsed) -> tuple[dict[str, LinearLeaf], LinearLeaf]:
    energy = forest.energy_j[folded.node]
    features = forest.features[folded.node]
    primitive = forest.primitive[folded.node]
    labelled = forest.leaf[folded.node] & ~np.isnan(energy)
    if not labelled.any():
        raise DatasetError("the dataset has no labelled ML primitives, which the paper's method starts from")
    leaves = {
        str(name): _linear(features[chosen], energy[chosen], folded.count[chosen])
        for name in np.unique(primitive[labelled])
        for chosen in [labelled & (primitive == name)]
    }
    return leaves, _linear(features[labelled], energy[labelled], folded.count[labelled])


def _linear(features: np.ndarray, energy: np.ndarray, count: np.ndarray) -> LinearLeaf:
    """Standardised least squares; a row that occurs ``count`` times weighs as many."""
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features, sample_weight=count)
    regression = LinearRegression().fit(scaler.transform(features), energy, sample_weight=count)
    return LinearLeaf(scaler.mean_, scaler.scale_, regression.coef_, float(regression.intercept_))


def _standardised(features: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polynomial features of all nodes, with the mean and scale that lead to them."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features, sample_weight=count)
    # A resource that is not known at an unlabelled node counts as its mean while fitting.
    z = np.nan_to_num(scaler.transform(features), nan=0.0)
    return polynomial(z), scaler.mean_, scaler.scale_


class _Loss:
    """Equation 4 over a folded forest, and its forward pass (equations 3 and 5), in torch."""

    def __init__(
        self, forest: Forest, folded: Collapsed, z: np.ndarray, model: PaperModel, strategy: str
    ) -> None:
        import torch

        self.z = torch.from_numpy(z)
        leaf = np.nan_to_num(model.leaf_energies(forest)[folded.node])
        gold = forest.energy_j[folded.node]
        self.leaf = torch.from_numpy(leaf)
        self.steps = [tuple(torch.from_numpy(part) for part in step) for step in folded.steps()]
        scored = (folded.height > 0) & ~np.isnan(gold)
        self.scored = torch.from_numpy(scored)
        self.gold = torch.from_numpy(np.where(scored, gold, 1.0))
        self.count = torch.from_numpy(np.where(scored, folded.count, 0.0))
        #: Stepwise: what a child hands up is its label, where it has one.
        self.handed = torch.from_numpy(gold) if strategy == "stepwise" else None

    def __call__(self, weight: Any, bias: Any) -> Any:
        import torch

        alpha = 1.0 + torch.tanh(self.z @ weight + bias) / TAU
        energy = self.leaf
        for parent, child, times in self.steps:
            given = energy[child]
            if self.handed is not None:
                given = torch.where(torch.isnan(self.handed[child]), given, self.handed[child])
            energy = energy.index_add(0, parent, alpha[child] * given * times)
        return (((energy - self.gold) / self.gold) ** 2 * self.count).sum()


def _fit_converged(
    forest: Forest, folded: Collapsed, model: PaperModel, strategy: str, steps: int
) -> Aggregation:
    import torch

    z, mean, scale = _standardised(forest.features[folded.node], folded.count)
    # A term that is 0 everywhere (a constant feature is in it) has no gradient: its weight stays 0.
    used = np.flatnonzero(z.any(axis=0))
    loss = _Loss(forest, folded, z[:, used], model, strategy)
    weight = torch.zeros(len(used), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, max_eval=2 * steps, history_size=20, line_search_fn="strong_wolfe",
        tolerance_grad=1e-9, tolerance_change=1e-12,
    )  # fmt: skip

    def closure() -> Any:
        optimiser.zero_grad()
        value = loss(weight, bias)
        value.backward()
        return value

    optimiser.step(closure)
    every = np.zeros(z.shape[1])
    every[used] = weight.detach().numpy()
    return Aggregation(mean, scale, every, float(bias.detach()))


def _fit_authors(trees: Sequence[LabelledTree], model: PaperModel, strategy: str, seed: int) -> Aggregation:
    import torch

    forest = flatten(trees, model.names)
    features = forest.features
    _, mean, scale = _standardised(features, np.ones(len(features)))
    losses = []
    for tree in trees:
        single = flatten([tree], model.names)
        folded = collapse(single)
        z = polynomial(np.nan_to_num((single.features[folded.node] - mean) / scale, nan=0.0))
        losses.append(_Loss(single, folded, z, model, strategy))
    # torch.nn.Linear's start: uniform within 1 / sqrt(inputs), the polynomial's constant among them.
    generator = torch.Generator().manual_seed(AUTHORS_SEED + seed)
    bound = 1.0 / np.sqrt(losses[0].z.shape[1] + 1.0)
    start = (
        torch.rand(losses[0].z.shape[1] + 2, generator=generator, dtype=torch.float64) * 2.0 - 1.0
    ) * bound
    weight = start[:-2].clone().requires_grad_()
    constant = start[-2].clone().requires_grad_()
    bias = start[-1].clone().requires_grad_()
    optimiser = torch.optim.Adam([weight, constant, bias], lr=LEARNING_RATE)
    for _, loss in itertools.product(range(EPOCHS), losses):
        optimiser.zero_grad()
        loss(weight, constant + bias).backward()
        optimiser.step()
    total = float((constant + bias).detach())
    return Aggregation(mean, scale, weight.detach().numpy().copy(), total)
