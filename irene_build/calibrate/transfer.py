"""`calibrate --from OTHER --labels N` on measurements that were imported: as if N of them were all there is.

The other labels are held out: the error on them is told, beside that of no label at all and of all labels of the other
models. After a campaign of one's own, each label is held out in turn (``transfer_errors``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from irene_build import console
from irene_build.calibrate.summary import transfer_summary
from irene_build.errors import InputError
from irene_build.paths import find_artifact, hardware_dir
from irene_runtime.features import RESOURCE_FEATURES
from irene_runtime.tree import LEVELS

if TYPE_CHECKING:
    from irene_build.dataset.table import Dataset

_TIERS = ("static", "profile")


def is_imported(hardware: str) -> bool:
    """Whether the measurements of this hardware are an imported dataset, and no campaign of one's own."""
    from irene_build.measure.journal import Journal

    path = hardware_dir(hardware) / "campaign.sqlite"
    if not path.is_file():
        return False
    with Journal(path) as journal:
        return bool(journal.has_dataset and not journal.has_campaign)


def carry(hardware: str, origin: str, labels: int, train: bool, as_json: bool) -> None:
    """Carry the estimator of ``origin`` over by so many labels of the imported dataset, tell its error on the others,
    and write it.

    Raises InputError where there are no more labels than that.
    """
    from irene_build.dataset.store import load_dataset
    from irene_build.evaluate.run import evaluate
    from irene_build.train import estimator_file
    from irene_build.train.transfer import carry_over

    path = hardware_dir(hardware) / "campaign.sqlite"
    dataset = load_dataset(path)
    chosen = choose(dataset, labels)
    console.note(
        f"{path} holds imported measurements: {labels} of them are taken, the others are held-out labels"
    )
    source = estimator_file.load(find_artifact(origin, "estimator.json"))
    carried: dict[str, Any] = carry_over(source, _with_labels(dataset, chosen, kept=True))
    rest = _with_labels(dataset, chosen, kept=False)
    tiers = tuple(tier for tier in _TIERS if tier in source["tiers"])
    result: dict[str, Any] = {
        "hardware": hardware, "carried_from": origin, "labels": labels, "provenance": dataset.provenance,
        "boundary": dataset.boundary, "label_source": dataset.label_source,
        "no_label": _errors(source, rest, tiers), "carried": _errors(carried, rest, tiers), "full": {},
    }  # fmt: skip
    if len(dataset.models) > 1:
        console.note("calibrating by all labels, each model left out in turn, to compare")
        found = evaluate(dataset, "best", tiers=tiers, baselines=False)["tiers"]
        result["full"] = {
            tier: {level: found[tier][level]["mape"] for level in LEVELS} for tier in tiers if tier in found
        }
    if train:
        target = hardware_dir(hardware) / "estimator.json"
        estimator_file.save(carried, target)
        result["estimator"] = str(target)
    if as_json:
        console.emit_json(result)
        return
    console.say(transfer_summary(result))


def choose(dataset: Dataset, labels: int) -> list[int]:
    """The measurements to take: the longest runs of as many groups, from those that move bytes to those that compute.

    What is learnt is watts and joules a joule of the GPU, which only nodes of different mean power tell apart; long
    runs repeat best. The speed of the PC is that of its fastest nodes.
    """
    import numpy as np

    from irene_build.measure.plan import compute_share

    latency = RESOURCE_FEATURES.index("latency")
    nodes: dict[int, Any] = {}
    took: dict[int, float] = {}
    speed = {"flops": 0.0, "mem_bytes": 0.0}
    for tree in dataset.trees:
        own = (tree.measurement >= 0) & ~tree.of_another_shape & np.isfinite(tree.energy_j)
        for index in np.flatnonzero(own).tolist():
            node, seconds = tree.tree.nodes[index], float(tree.resources[index, latency])
            nodes.setdefault(int(tree.measurement[index]), node)
            took.setdefault(int(tree.measurement[index]), seconds if seconds > 0.0 else 0.0)
            for name in speed if seconds > 0.0 else ():
                speed[name] = max(speed[name], node.features.get(name, 0.0) / seconds)
    if len(nodes) <= labels:
        raise InputError(
            f"--labels {labels}: {dataset.hardware} has {len(nodes)} measurements: "
            f"at most {len(nodes) - 1} can be taken, so that at least one is held out to tell the error"
        )
    rates = (max(speed["flops"], 1e-9) * 1e6, max(speed["mem_bytes"], 1e-9) * 2**20)
    ranked = sorted(nodes, key=lambda number: (compute_share(nodes[number], *rates), number))
    groups = np.array_split(np.array(ranked), labels)
    return [max(group.tolist(), key=lambda number: took[number]) for group in groups]


def _with_labels(dataset: Dataset, numbers: list[int], kept: bool) -> Dataset:
    """The dataset with the labels of these measurements alone (``kept``), or of all others."""
    import numpy as np

    trees = [
        replace(t, energy_j=np.where(np.isin(t.measurement, numbers) == kept, t.energy_j, np.nan))
        for t in dataset.trees
    ]
    return replace(dataset, trees=trees)


def _errors(
    estimator: Mapping[str, Any], dataset: Dataset, tiers: tuple[str, ...]
) -> dict[str, dict[str, float | None]]:
    """Mean error in percent per tier and level, copies counted."""
    from irene_build.evaluate.metrics import mape, score
    from irene_build.train import arithmetic

    out = {}
    for tier in tiers:
        answers = arithmetic.predict(estimator, dataset.trees, tier)
        found = score(dataset.trees, [answer.energy_j for answer in answers])
        out[tier] = {level: mape(found, found.level == level) for level in LEVELS}
    return out


def fit(
    dataset: Dataset, method: str, origin: str, seed: int
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """The estimator of a campaign, with its errors on models left out where there are several.

    With ``origin`` it is carried over from that hardware's estimator by the labels of the campaign, and
    ``transfer_errors`` come with it; else nothing does.
    """
    from irene_build.train import api, estimator_file

    if origin:
        from irene_build.paths import find_artifact
        from irene_build.train.transfer import carry_over

        source = estimator_file.load(find_artifact(origin, "estimator.json"))
        carried: dict[str, Any] = carry_over(source, dataset)
        return carried, transfer_errors(source, dataset)
    estimator = api.fit(dataset, method=method, seed=seed)
    if len(dataset.models) > 1:
        from irene_build.evaluate.run import evaluate, summary

        found = evaluate(dataset, method, tiers=tuple(estimator["tiers"]), seed=seed, baselines=False)
        estimator["evaluation"] = summary(found)
    return estimator, {}


def transfer_errors(source: Mapping[str, Any], dataset: Dataset) -> dict[str, dict[str, float]]:
    """Per tier, mean error of an estimator of another PC on the labels of this one, %.

    ``no_label``: as it came. ``carried``: carried over by all labels but the one that it is asked for, in turn
    (from two labels on). ``labels``: how many there are. The live tier is left out: it reads the root's run,
    which few labels need not hold.
    """
    from irene_build.train.transfer import carry_over

    labels = sorted({int(m) for tree in dataset.trees for m in tree.measurement if m >= 0})
    result: dict[str, dict[str, float]] = {}
    others = {m: carry_over(source, _without(dataset, m)) for m in labels} if len(labels) > 1 else {}
    for tier in ("static", "profile"):
        if tier not in source["tiers"]:
            continue
        found = {
            "labels": float(len(labels)),
            "no_label": _mean_error(dict.fromkeys(labels, source), dataset, tier),
        }
        if others:
            found["carried"] = _mean_error(others, dataset, tier)
        result[tier] = found
    return result


def _without(dataset: Dataset, measurement: int) -> Dataset:
    """The same nodes and readings with one label hidden."""
    import numpy as np

    trees = []
    for tree in dataset.trees:
        hidden = tree.measurement == measurement
        energy, own = np.where(hidden, np.nan, tree.energy_j), np.where(hidden, -1, tree.measurement)
        trees.append(replace(tree, energy_j=energy, measurement=own))
    return replace(dataset, trees=trees)


def _mean_error(estimators: Mapping[int, Mapping[str, Any]], dataset: Dataset, tier: str) -> float:
    """Mean over measurements of |prediction / label - 1|, %, each by its own estimator."""
    from statistics import fmean

    from irene_build.train import arithmetic

    errors = {}
    for tree in dataset.trees:
        predicted: dict[int, Any] = {}
        for node, measurement in enumerate(tree.measurement):
            if measurement < 0 or measurement in errors:
                continue
            estimator = estimators[int(measurement)]
            if id(estimator) not in predicted:
                predicted[id(estimator)] = arithmetic.predict(estimator, [tree], tier)[0].energy_j
            errors[measurement] = abs(predicted[id(estimator)][node] / tree.energy_j[node] - 1.0)
    return 100.0 * float(fmean(errors.values()))
