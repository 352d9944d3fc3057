"""One dataset, seen under another cost model.

An imported dataset holds traced trees (cost model ``analytic``) with the published counts beside ours. The
paper's method works on what the authors published: those nodes alone, with those counts.
"""

from __future__ import annotations

from irene_build.dataset.table import Dataset, LabelledTree
from irene_build.errors import DatasetError
from irene_runtime.tree import ModelTree, Node

_COUNTS = {"flops_2021": "flops", "mem_bytes_2021": "mem_bytes"}


def has_published_counts(dataset: Dataset) -> bool:
    """Whether every tree can be seen as the authors published it."""
    return all(
        tree.tree.header["cost_model"] == "irene2021" or "flops_2021" in tree.tree.nodes[0].features
        for tree in dataset.trees
    )


def view(dataset: Dataset, cost_model: str) -> Dataset:
    """The dataset under ``cost_model``: ``analytic`` (as it is) or ``irene2021`` (published nodes only).

    Raises DatasetError where a tree has no published counts.
    """
    if cost_model == "analytic":
        return dataset
    if cost_model != "irene2021":
        raise DatasetError(f"unknown cost model {cost_model!r}, expected analytic or irene2021")
    trees = [published_nodes(tree) for tree in dataset.trees]
    return Dataset(
        dataset.hardware,
        dataset.boundary,
        dataset.provenance,
        dataset.label_source,
        trees,
        dict(dataset.info),
    )


def published_nodes(labelled: LabelledTree) -> LabelledTree:
    """The tree without the nodes that the authors did not count; children move to the nearest node that is left."""
    if labelled.tree.header["cost_model"] == "irene2021":
        return labelled
    nodes: list[Node] = []
    keep: list[int] = []
    #: Per node of the traced tree its nearest kept node at or above it, as an index into the new list.
    above: list[int] = []
    for index, node in enumerate(labelled.tree.nodes):
        parent = above[node.parent] if node.parent >= 0 else -1
        if "flops_2021" not in node.features:
            if node.parent < 0:
                raise DatasetError(
                    f"{labelled.model}: no published counts; only a dataset from `irene-build import irene` has them"
                )
            above.append(parent)
            continue
        features = {name: value for name, value in node.features.items() if name == "num_parameters"}
        features.update({ours: node.features[theirs] for theirs, ours in _COUNTS.items()})
        above.append(len(nodes))
        keep.append(index)
        nodes.append(Node(node.scope, node.type, node.level, parent, node.primitive, node.call, features))
    header = dict(labelled.tree.header, cost_model="irene2021")
    return LabelledTree(
        ModelTree(nodes, header),
        labelled.energy_j[keep],
        labelled.resources[keep],
        labelled.measurement[keep],
        labelled.energy_std_j[keep],
    )
