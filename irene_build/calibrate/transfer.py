"""`calibrate --from OTHER --labels N` on measurements that were imported: as if N of them were all there is.

The rest of the labels is what the result is judged by, beside no label at all and all labels of the other models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from irene_build import console
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
    """Carry the estimator of ``origin`` over by so many labels of the imported dataset, judge it, and write it.

    Raises InputError where there are no more labels than that.
    """
    from irene_build.dataset.store import load_dataset
    from irene_build.evaluate.run import evaluate
    from irene_build.train import api
    from irene_build.train.transfer import carry_over

    path = hardware_dir(hardware) / "campaign.sqlite"
    dataset = load_dataset(path)
    chosen = choose(dataset, labels)
    console.note(
        f"{path} holds imported measurements: {labels} of them are taken, the others judge the result"
    )
    source = api.load(find_artifact(origin, "estimator.json"))
    carried: dict[str, Any] = carry_over(source, _labelled(dataset, chosen, kept=True))
    rest = _labelled(dataset, chosen, kept=False)
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
        api.save(carried, target)
        result["estimator"] = str(target)
    if as_json:
        console.emit_json(result)
        return
    console.say(summary(result))


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
            f"--labels {labels}: {dataset.hardware} has {len(nodes)} measurements, and some must judge"
        )
    rates = (max(speed["flops"], 1e-9) * 1e6, max(speed["mem_bytes"], 1e-9) * 2**20)
    ranked = sorted(nodes, key=lambda number: (compute_share(nodes[number], *rates), number))
    groups = np.array_split(np.array(ranked), labels)
    return [max(group.tolist(), key=lambda number: took[number]) for group in groups]


def _labelled(dataset: Dataset, numbers: list[int], kept: bool) -> Dataset:
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


def summary(result: Mapping[str, Any]) -> str:
    """The end of it, for a person."""
    labels = "1 label" if result["labels"] == 1 else f"{result['labels']} labels"
    heads = ("tier", "level", "no label", labels, "all labels, models left out")
    rows = [
        (
            tier,
            level,
            *(
                f"{result[key][tier][level]:.2f}" if result[key] else ""
                for key in ("no_label", "carried", "full")
            ),
        )
        for tier in result["carried"]
        for level in LEVELS
    ]
    lines = [
        f"error of the estimator of {result['carried_from']} on the other measurements of {result['hardware']}, %"
    ]
    lines.append(console.table(rows, heads))
    if "estimator" in result:
        lines.append(f"wrote {result['estimator']}")
    return "\n".join(lines)
