"""One dataset, seen under another cost model.

An imported dataset holds traced trees (cost model ``analytic``) with the published counts beside ours. The
paper's method works on what the authors published: those nodes alone, with those counts.
"""

from __future__ import annotations

from irene_build.dataset.splits import with_trees
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


def view(dataset: Dataset, counts: str) -> Dataset:
    """The dataset with the authors' nodes and counts only.

    ``counts``: ``irene2021``, modules count what their published leaves do (as ``trace`` does under that cost
    model); ``published``, modules keep their own rows, which also count operations that have no row.
    Raises DatasetError where a tree has no published counts.
    """
    if counts not in ("irene2021", "published"):
        raise DatasetError(f"unknown counts {counts!r}, expected irene2021 or published")
    trees = [_published_nodes(tree, counts == "irene2021") for tree in dataset.trees]
    return with_trees(dataset, trees)


def _published_nodes(labelled: LabelledTree, add_up: bool) -> LabelledTree:
    """The tree without the nodes that have no row; children move to the nearest node that is left."""
    plain = labelled.tree.header["cost_model"] == "irene2021"
    nodes: list[Node] = []
    keep: list[int] = []
    #: Per node of the traced tree its nearest kept node at or above it, as an index into the new list.
    above: list[int] = []
    for index, node in enumerate(labelled.tree.nodes):
        parent = above[node.parent] if node.parent >= 0 else -1
        if not plain and "flops_2021" not in node.features:
            if node.parent < 0:
                raise DatasetError(
                    f"{labelled.model}: no published counts; only `irene-build import irene` gives them"
                )
            above.append(parent)
            continue
        features = {name: value for name, value in node.features.items() if name == "num_parameters"}
        for theirs, ours in _COUNTS.items():
            features[ours] = node.features[ours if plain else theirs]
            if add_up and node.level != "ml":
                features[ours] = 0.0
        above.append(len(nodes))
        keep.append(index)
        nodes.append(Node(node.scope, node.type, node.level, parent, node.primitive, node.call, features))
    if add_up:
        for node in reversed(nodes[1:]):
            for name in _COUNTS.values():
                nodes[node.parent].features[name] += node.features[name]
    header = dict(labelled.tree.header, cost_model="irene2021")
    return LabelledTree(
        ModelTree(nodes, header),
        labelled.energy_j[keep],
        labelled.resources[keep],
        labelled.measurement[keep],
        labelled.energy_std_j[keep],
    )
