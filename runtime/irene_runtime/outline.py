"""Trees in which equal subtrees stand once: blocks, the places where they stand, and sums from the leaves up."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .expressions import Number
from .features import FEATURES
from .tree import Node

MILLION, MEBIBYTE = 1e6, float(2**20)
#: What a leaf counts, before units; inner nodes have the sums.
SUMMED = ("matmul_flops", "elementwise_flops", "read_bytes", "write_bytes", "weight_bytes", "kernels")
_SCALES = {"1e6": MILLION, "MiB": MEBIBYTE}


class Block(NamedTuple):
    """A subtree that may stand at several places. ``children``: (suffix of the scope, index of a later block)."""

    type: str
    primitive: Optional[str]
    features: Dict[str, int]  # name -> index of an expression
    shapes: Optional[Dict[str, Any]]
    children: List[Tuple[str, int]]


class Place(NamedTuple):
    """Where a block stands in the whole tree."""

    block: int
    scope: str
    parent: int
    call: int


class Folded(NamedTuple):
    """A tree in which equal subtrees stand once: ``nodes`` of the blocks, parents before children.

    ``children`` may name a node several times; ``places`` says which node stands where in the whole tree.
    """

    nodes: List[Node]
    children: List[List[int]]
    places: List[Place]

    def with_leaf(self, leaf: Node) -> "Folded":
        """With one more leaf, the last under the root."""
        at = len(self.nodes)
        children = [self.children[0] + [at]] + self.children[1:] + [[]]
        return Folded(self.nodes + [leaf], children, self.places + [Place(at, leaf.scope, 0, leaf.call)])


class Outline:
    """Blocks, parents before their children."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = list(blocks)
        self._places: Dict[int, List[Place]] = {}
        self._renumbered: Dict[int, List[Place]] = {}  # by the number of the folded node, not of the block
        self._used: Dict[int, Tuple[List[int], List[int]]] = {}

    def places(self, root: int) -> List[Place]:
        """Every node of the whole tree under a root block, in pre-order."""
        if root not in self._places:
            calls: Dict[Tuple[str, str], int] = {}
            out: List[Place] = []
            stack = [(root, "", -1)]
            while stack:
                index, scope, parent = stack.pop()
                block = self.blocks[index]
                key = (scope, block.type)
                calls[key] = calls.get(key, 0) + 1
                for suffix, child in reversed(block.children):
                    stack.append((child, _joined(scope, suffix), len(out)))
                out.append(Place(index, scope, parent, calls[key] - 1))
            self._places[root] = out
        return self._places[root]

    def used(self, root: int) -> Tuple[List[int], List[int]]:
        """The blocks under a root, parents before children, and the expressions that they are made of."""
        if root not in self._used:
            seen = {root}
            for index in range(root, len(self.blocks)):
                if index in seen:
                    seen.update(child for _, child in self.blocks[index].children)
            blocks = sorted(seen)
            wanted = {i for index in blocks for i in self.blocks[index].features.values()}
            self._used[root] = (blocks, sorted(wanted))
        return self._used[root]

    def assembled(self, root: int, raw: Dict[int, Dict[str, Number]]) -> Folded:
        """Nodes from the counts of the leaves (block -> name -> number before units), sums above them."""
        blocks, _ = self.used(root)
        at = {index: number for number, index in enumerate(blocks)}
        nodes: List[Any] = [None] * len(blocks)
        children: List[List[int]] = [[] for _ in blocks]
        sums: Dict[int, List[Number]] = {}
        for index in reversed(blocks):
            block, own = self.blocks[index], raw[index]
            if block.primitive is None:
                total: List[Number] = [0] * len(SUMMED)
                times: Dict[int, int] = {}
                for _, child in block.children:
                    times[child] = times.get(child, 0) + 1
                for child, count in times.items():
                    total = [a + count * b for a, b in zip(total, sums[child])]
                children[at[index]] = [at[child] for _, child in block.children]
            else:
                total = [own[name] for name in SUMMED]
            sums[index] = total
            level = "ml" if block.primitive is not None else "model" if index == root else "module"
            features = in_units(dict(own, **dict(zip(SUMMED, total))))
            nodes[at[index]] = Node("", block.type, level, -1, block.primitive, 0, features, block.shapes)
        if root not in self._renumbered:
            self._renumbered[root] = [p._replace(block=at[p.block]) for p in self.places(root)]
        return Folded(nodes, children, self._renumbered[root])


def in_units(raw: Mapping[str, Number]) -> Dict[str, float]:
    """Counts as features in their units, with the totals of FLOPs and bytes."""
    both = dict(
        raw, flops=raw["matmul_flops"] + raw["elementwise_flops"],
        mem_bytes=raw["read_bytes"] + raw["write_bytes"] + raw["weight_bytes"],
    )  # fmt: skip
    return {name: value / _SCALES.get(FEATURES[name][1], 1) for name, value in both.items()}


def _joined(scope: str, suffix: str) -> str:
    if suffix[:1] == "/":
        return suffix[1:]
    return "%s.%s" % (scope, suffix) if scope and suffix else scope or suffix
