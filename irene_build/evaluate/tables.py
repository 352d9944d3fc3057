"""Tables 5 to 9 and Figure 3 of the paper, recomputed on a dataset, each number beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irene_build.dataset.table import Dataset
from irene_build.evaluate import metrics, published
from irene_build.evaluate.methods import Method, paper_variant, strubell, unstructured
from irene_build.evaluate.run import run
from irene_runtime.tree import LEVELS

#: One cell: (ours, the paper's or None).
Cell = tuple[float | None, float | None]
#: Smaller differences from a printed number need no explanation.
_LEAST = 0.03


def variants(recipe: str, seed: int = 0) -> dict[str, Method]:
    """What the tables compare, by the names of their rows."""
    from irene_build.train import paper

    return {
        "IrEne": paper_variant("irene", paper.INPUTS, recipe=recipe, seed=seed),
        "w/o resource features": paper_variant("no-resource", paper.MODEL_INPUTS, recipe=recipe, seed=seed),
        "w/o model features": paper_variant("no-model", paper.RESOURCE_INPUTS, recipe=recipe, seed=seed),
        "StepWise": paper_variant("stepwise", paper.INPUTS, "stepwise", recipe, seed),
        "PredictedSum": paper_variant("predicted-sum", paper.INPUTS, "predicted-sum"),
        "Unstructured": unstructured(recipe=recipe),
    }


def compute(
    dataset: Dataset,
    recipe: str = "converged",
    seed: int = 0,
    constants: Any = None,
    report: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """All tables by leaving one model out at a time; ``constants``: the Strubell formula's.

    Cells are (ours, the paper's). Raises DatasetError where the dataset cannot be split.
    """
    todo = variants(recipe, seed)
    scores: dict[str, metrics.Scores] = {}
    for number, (name, method) in enumerate(todo.items()):
        found = run(method, dataset, "model-out", ("static", "profile"))
        scores[name] = next(iter(found.values()))
        if report is not None:
            report((number + 1) / len(todo), name)
    own = scores["IrEne"]
    pc = dataset.hardware if dataset.hardware in published.TABLE_6 else ""
    first = {"IrEne": published.TABLE_5.get(pc, {}).get("irene")}
    by_formula = None
    if constants is not None:
        by_formula = run(strubell(constants), dataset, "model-out", ("profile",)).get("profile")
    table_5 = {"IrEne": _per_model(own, "model", first["IrEne"])}
    if by_formula is not None:
        paper_row = published.TABLE_5.get(pc, {}).get("strubell")
        table_5["Strubell et al., 2019"] = _per_model(by_formula, "model", paper_row)
    is_pc1 = pc == "pc1"
    result: dict[str, Any] = {
        "hardware": dataset.hardware,
        "recipe": recipe,
        "columns": {"models": list(published.MODELS.values()), "primitives": list(published.PRIMITIVES)},
        "table_5": table_5,
        "table_6": {"IrEne": _per_model(own, "module", published.TABLE_6.get(pc))},
        "table_7": {"IrEne": _per_primitive(own, published.TABLE_7.get(pc))},
        "table_8": {
            name: _per_level(scores[name], row if is_pc1 else None) for name, row in published.TABLE_8.items()
        },
        "table_9": {
            name: _per_level(scores[name.split(" (")[0]], row if is_pc1 else None)
            for name, row in published.TABLE_9.items()
        },
        "figure_3": cdf(own),
    }
    result["figure_3_paper"] = [list(point) for point in published.FIGURE_3] if is_pc1 else []
    result["notes"] = notes(result) if is_pc1 else []
    return result


def cdf(scores: metrics.Scores) -> dict[str, list[float]]:
    """Figure 3: errors at model level in percent, sorted, and the percent of predictions up to each."""
    error = np.sort(scores.error[(scores.level == "model") & np.isfinite(scores.predicted_j)])
    share = 100.0 * np.arange(1, len(error) + 1) / len(error)
    return {"error_percent": error.tolist(), "share_percent": share.tolist()}


def _per_model(scores: metrics.Scores, level: str, paper: Sequence[float] | None) -> list[Cell]:
    at = scores.level == level
    ours = [metrics.mape(scores, at & (scores.model == model)) for model in published.MODELS]
    return _cells([*ours, metrics.mape(scores, at)], paper)


def _per_primitive(scores: metrics.Scores, paper: Sequence[float] | None) -> list[Cell]:
    at = scores.level == "ml"
    ours = [metrics.mape(scores, at & (scores.primitive == name)) for name in published.PRIMITIVES]
    return _cells([*ours, metrics.mape(scores, at)], paper)


def _per_level(scores: metrics.Scores, paper: Sequence[float | None] | None) -> list[Cell]:
    return _cells([metrics.mape(scores, scores.level == level) for level in LEVELS], paper)


def _cells(ours: Sequence[float | None], paper: Sequence[float | None] | None) -> list[Cell]:
    return list(zip(ours, paper or [None] * len(ours), strict=True))


def notes(result: dict[str, Any]) -> list[str]:
    """Why our numbers on PC1 differ from the printed ones, where they differ by more than rounding."""
    out = []
    if result["recipe"] == "authors":
        out.append(
            "Model level: eight epochs of Adam stop before the 680 weights settle, so this number depends"
            " on the random start: 3.9 to 7.9 % over ten starts (--seed 0 to 9, mean 6.1), and 4.3 to 7.1 %"
            " over six orders of the trees with one start; module level 8.6 to 8.8 %. The paper's 5.52 and the"
            " 7.37 of the authors' cleaned-up code are two draws of it; DistilBERT alone moves from 3 to 21 %."
        )
    else:
        out.append(
            "Module and model level: the same equations fitted further, by L-BFGS over all trees in place"
            " of eight epochs of Adam, for as many steps as serve training models best that are left out in"
            " turn. Modules count what their published leaves count, as they do in a"
            " tree that is traced today. --recipe authors keeps the authors' fit and their module counts."
        )
    out.append(
        "BERT and DistilBERT at model level move by points between fits of nearly equal loss; 680 terms are "
        "fitted to five models, and the roots of the sixth lie outside of what those cover."
    )
    out.append(
        "Averages are over trees and nodes, not over models: Table 6 prints 8.54, its models average 10.06."
    )
    if _differs(result["table_8"]["w/o resource features"][0]):
        out.append(
            "Table 8, ML without resource features: the regression has a closed form, nothing is left to "
            "tune; the authors' cleaned-up code gives 5.80 as well."
        )
    out.append(
        "Table 9, Unstructured: least squares of the relative error here, Adam steps in theirs, which "
        "gives 278 % at module level in one version and 2347 % in the other: far from converged both times."
    )
    if "Strubell et al., 2019" in result["table_5"]:
        out.append(
            "Strubell: the formula with the profile's PUE and rated powers on the published utilisation. "
            "The paper ran experiment-impact-tracker, whose own readings (RAPL, nvidia-smi, per process) "
            "were not published."
        )
    return out


def _differs(cell: Cell) -> bool:
    ours, paper = cell
    return ours is not None and paper is not None and abs(ours - paper) >= _LEAST
