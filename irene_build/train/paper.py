"""IrEne's own method (ACL 2021): equations 1 to 4 and appendix A.4, vectorised over the whole forest.

Leaves are standardised linear regressions per primitive; one set of weights over cubic polynomial features decides
how much of each child's energy its parent gets. Two recipes:

    converged   L-BFGS (scipy) over all trees at once, from alpha = 1 (PredictedSum), for as many steps as serve
                training models best that are left out in turn
    authors     Adam 1e-3, 8 epochs, a tree a step, as in the authors' cleaned-up code (torch)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from irene_build.dataset.table import Dataset, LabelledTree, gpu_energy_is_label
from irene_build.dataset.view import has_published_counts, view
from irene_build.errors import DatasetError, InputError
from irene_build.train.forest import Forest, collapse, flatten
from irene_build.train.paper_nodes import TAU, Loss, Nodes, gather, moments, polynomial
from irene_runtime.features import RESOURCE_FEATURES, TABLE_1

#: The 14 inputs of the authors' code: Table 1, the parameters of a node and the tokens of its input.
INPUTS = ("num_parameters", "input_size", *TABLE_1)
MODEL_INPUTS = tuple(name for name in INPUTS if name not in RESOURCE_FEATURES)
#: Table 8, without the model features: the two sizes that every node has stay, as in the authors' code.
RESOURCE_INPUTS = ("num_parameters", "input_size", *RESOURCE_FEATURES)
RECIPES = ("converged", "authors")
STRATEGIES = ("end2end", "stepwise", "predicted-sum")
#: Most steps of L-BFGS, and how often what was left out is asked whether it is time to stop.
MOST_STEPS, EVERY = 200, 20
#: Steps where one model alone was measured, so that nothing can be left out.
USUAL_STEPS = 200
#: Directions of features that vary by less, as a share of the largest, are one with the others.
COLLINEAR = 1e-10
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

    def leaf_energies(self, forest: Forest | Nodes) -> np.ndarray:
        """float64[n]: predicted joules of the nodes without children, 0 above."""
        ends = forest.childless
        out = np.zeros(len(ends))
        for primitive in np.unique(forest.primitive[ends]):
            chosen = ends & (forest.primitive == primitive)
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


def usable(dataset: Dataset, nodes: Nodes) -> tuple[str, ...]:
    """Those features that every labelled node has, without the source of the label (DESIGN, rule 4)."""
    if not nodes.labelled.any():
        raise DatasetError(f"the dataset of {dataset.hardware!r} has no labels")
    known = np.isfinite(nodes.features[nodes.labelled]).all(axis=0)
    return tuple(
        name
        for name, is_known in zip(nodes.names, known, strict=True)
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
) -> PaperModel:
    """Fit the method to a dataset (as ``train_view`` gives it).

    ``strategy``: end2end (equation 4), stepwise (equation 5: parents learn from their children's labels) or
    predicted-sum (equation 2). Raises DatasetError without labelled leaves, InputError for unknown names.
    """
    check_names(recipe, strategy)
    nodes = gather(dataset.trees, names)
    nodes = nodes.columns(usable(dataset, nodes))
    if strategy == "predicted-sum":
        return fit_leaves(nodes)
    if recipe == "authors":
        return fit_authors(dataset.trees, nodes, strategy, seed)
    steps = best_steps(nodes, leave_out(nodes, nodes.model, strategy))
    return fit_nodes(nodes, steps, strategy)[0]


def check_names(recipe: str, strategy: str = "end2end") -> None:
    """Raises InputError for a recipe or strategy that there is not."""
    if recipe not in RECIPES or strategy not in STRATEGIES:
        raise InputError(
            f"recipe {recipe!r} ({', '.join(RECIPES)}), strategy {strategy!r} ({', '.join(STRATEGIES)})"
        )


def fit_leaves(nodes: Nodes) -> PaperModel:
    """Equations 1 and 2: the regressions of the leaves, modules being sums."""
    labelled = nodes.leaf & nodes.labelled
    if not labelled.any():
        raise DatasetError("the dataset has no labelled ML primitives, which the paper's method starts from")
    leaves = {
        str(name): _linear(nodes, labelled & (nodes.primitive == name))
        for name in np.unique(nodes.primitive[labelled])
    }
    return PaperModel(nodes.names, leaves, _linear(nodes, labelled), None)


def _linear(nodes: Nodes, rows: np.ndarray) -> LinearLeaf:
    """Standardised least squares (the shortest solution); a row that occurs ``count`` times weighs as many."""
    features, energy, count = nodes.features[rows], nodes.energy_j[rows], nodes.count[rows]
    mean, scale = moments(features, count)
    bias, root = float(np.average(energy, weights=count)), np.sqrt(count)
    design = (features - mean) / scale * root[:, None]
    weight = np.linalg.lstsq(design, (energy - bias) * root, rcond=COLLINEAR)[0]
    return LinearLeaf(mean, scale, weight, bias)


def fit_nodes(
    nodes: Nodes, steps: int, strategy: str = "end2end", unseen: Nodes | None = None
) -> tuple[PaperModel, list[np.ndarray]]:
    """Recipe ``converged``, stopped after ``steps``, and the joules of ``unseen`` nodes at every EVERY of them."""
    from scipy.optimize import minimize

    summed = fit_leaves(nodes)
    mean, scale = moments(nodes.features, nodes.count)

    def loss_of(some: Nodes, stepwise: bool, columns: np.ndarray | None = None) -> Loss:
        # A resource that is not known at an unlabelled node counts as its mean while fitting. Single precision
        # is enough for the terms: it halves the time, and the labels have three digits.
        z = polynomial(np.nan_to_num((some.features - mean) / scale).astype(np.float32))
        z = z if columns is None else np.ascontiguousarray(z[:, columns])
        return Loss(some, z, np.nan_to_num(summed.leaf_energies(some)), stepwise)

    loss = loss_of(nodes, strategy == "stepwise")
    # A term that is 0 everywhere (a constant feature is in it) has no gradient: its weight stays 0.
    used, width = np.flatnonzero(loss.z.any(axis=0)), loss.z.shape[1]
    loss.z = np.ascontiguousarray(loss.z[:, used])
    watched = None if unseen is None else loss_of(unseen, False, used)
    shown: list[np.ndarray] = []
    taken = itertools.count(1)

    def value(weights: np.ndarray) -> tuple[float, np.ndarray]:
        off, gradient, by_bias = loss(weights[:-1], float(weights[-1]))
        return off, np.append(gradient, by_bias)

    def step(weights: np.ndarray) -> None:
        if next(taken) % EVERY == 0 and watched is not None:
            shown.append(watched.energies(weights[:-1], float(weights[-1])))

    found = minimize(
        value, np.zeros(len(used) + 1), jac=True, method="L-BFGS-B", callback=step,
        options={"maxiter": steps, "maxfun": 4 * steps, "maxcor": 20, "ftol": 0.0, "gtol": 0.0},
    ).x  # fmt: skip
    if watched is not None:
        # It may have converged earlier.
        last = watched.energies(found[:-1], float(found[-1]))
        shown += [last] * (steps // EVERY - len(shown))
    every = np.zeros(width)
    every[used] = found[:-1]
    return replace(summed, aggregation=Aggregation(mean, scale, every, float(found[-1]))), shown


@dataclass
class Unseen:
    """What fits said of the nodes of groups that they had not seen.

    ``energy_j``: float64[checkpoints, m], joules after every EVERY steps, NaN where nothing was said.
    ``uncalibrated``: bool[m], leaves of primitives that the fit had no label of.
    """

    energy_j: np.ndarray
    uncalibrated: np.ndarray


def leave_out(
    nodes: Nodes, group: np.ndarray, strategy: str = "end2end", known: Unseen | None = None
) -> Unseen:
    """Every group (int64[m], whole models) by a fit to the others, where that has labelled leaves.

    ``known``: what leaving out models one by one has shown; a group of one model needs no other fit.
    """
    size = len(nodes.level)
    out = Unseen(np.full((MOST_STEPS // EVERY, size), np.nan), np.zeros(size, dtype=bool))
    for one in np.unique(group).tolist():
        mine = group == one
        if known is not None and len(np.unique(nodes.model[mine])) == 1:
            out.energy_j[:, mine] = known.energy_j[:, mine]
            out.uncalibrated[mine] = known.uncalibrated[mine]
            continue
        rest, held = nodes.where(~mine), nodes.where(mine)
        if not (rest.leaf & rest.labelled).any():
            continue
        model, shown = fit_nodes(rest, MOST_STEPS, strategy, held)
        out.energy_j[:, mine] = shown
        out.uncalibrated[mine] = held.leaf & ~np.isin(held.primitive, list(model.leaves))
    return out


def best_steps(nodes: Nodes, unseen: Unseen) -> int:
    """The number of steps after which equation 4 is least on nodes of models that were left out."""
    rows = np.flatnonzero((nodes.height > 0) & nodes.labelled & np.isfinite(unseen.energy_j[-1]))
    if not len(rows):
        return USUAL_STEPS
    off = (unseen.energy_j[:, rows] / nodes.energy_j[rows] - 1.0) ** 2
    return EVERY * (1 + int(np.argmin(off @ nodes.count[rows])))


def fit_authors(trees: Sequence[LabelledTree], nodes: Nodes, strategy: str, seed: int) -> PaperModel:
    """Recipe ``authors``: Adam, a tree a step in the order of the dataset; ``nodes`` are those of the trees."""
    import torch

    summed = fit_leaves(nodes)
    mean, scale = moments(nodes.features, nodes.count)
    losses = []
    for tree in trees:
        own = gather([tree], nodes.names)
        z = polynomial(np.nan_to_num((own.features - mean) / scale))
        losses.append(Loss(own, z, np.nan_to_num(summed.leaf_energies(own)), strategy == "stepwise"))
    # torch.nn.Linear's start: uniform within 1 / sqrt(inputs), single precision, the polynomial's constant first.
    generator = torch.Generator().manual_seed(AUTHORS_SEED + seed)
    bound = (losses[0].z.shape[1] + 1.0) ** -0.5
    start = torch.empty(losses[0].z.shape[1] + 1).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(1).uniform_(-bound, bound, generator=generator)
    weights = torch.cat([start[1:], start[:1], bias]).double()
    optimiser = torch.optim.Adam([weights], lr=LEARNING_RATE)
    values = weights.numpy()
    for _, loss in itertools.product(range(EPOCHS), losses):
        # The last two are the polynomial's constant and the bias: each gets the gradient of their sum.
        _, gradient, by_bias = loss(values[:-2], float(values[-2] + values[-1]))
        weights.grad = torch.from_numpy(np.append(gradient, [by_bias, by_bias]) * loss.total)
        optimiser.step()
    return replace(
        summed, aggregation=Aggregation(mean, scale, values[:-2].copy(), float(values[-2] + values[-1]))
    )
