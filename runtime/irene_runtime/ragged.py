"""A step of a server over requests of different lengths: sums over the requests, and what each has of it.

What each sequence adds is linear in the batch, so a step is ``n``, ``sum q``, ``sum q^2``, ``sum q * cached`` and
``sum cached`` put where one size has ``b``, ``bs``, ``bss``, ``bsp`` and ``bp``. What the step has once (weights,
kernels, tables of positions) counts once, at its longest request. The definitions are in docs/trees.md.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .errors import InputError, TreeError
from .expressions import ExpectedExperts, MeanOfBytes, Number, PolynomialOfSizes, divided, monomials, quotient
from .outline import SUMMED, Block, Outline
from .symbolic import Section, SizedTree, SymbolicTree
from .tree import is_whole

#: Joules of a byte over those of a FLOP where no law says: what a share of a leaf is divided by.
BYTE_PER_FLOP = 20.0
#: Features of a shape that a mean over requests stands for where they differ, and whether long requests weigh more.
_MEANS = {
    "gemm_batch": False, "gemm_m": False, "gemm_n": True, "gemm_k": True, "rows": False, "cols": True,
}  # fmt: skip
MAX_REQUESTS = 100_000


class Requested(NamedTuple):
    """One request of a step: tokens that it runs, and tokens that it has cached."""

    tokens: int
    cached: int


class Group(NamedTuple):
    """Requests of a step that one section of the tree holds for."""

    section: Section
    requests: List[int]  # indices


class Counts(NamedTuple):
    """A feature of one leaf in one group: what its requests add, what is there once, and how it is combined."""

    own: Number
    shared: Number
    mean: Optional[Tuple[Number, int]]  # weighted sum and weight, for what does not add up


def requested(requests: Any) -> List[Requested]:
    """Checks ``[(tokens, cached), ...]``. Raises InputError."""
    if isinstance(requests, (str, bytes, Mapping)) or not isinstance(requests, Sequence) or not requests:
        raise InputError("requests is %.40r, expected a list of (tokens, cached)" % (requests,))
    if len(requests) > MAX_REQUESTS:
        raise InputError("%d requests, at most %d make a step" % (len(requests), MAX_REQUESTS))
    out = []
    for index, pair in enumerate(requests):
        good = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(is_whole, pair))
        if not good or pair[0] < 1 or pair[1] < 0:
            raise InputError(
                "request %d is %.40r, expected (tokens from 1 on, cached from 0 on)" % (index, pair)
            )
        out.append(Requested(int(pair[0]), int(pair[1])))
    return out


def groups_of(tree: SymbolicTree, requests: Sequence[Requested]) -> List[Group]:
    """The requests by the section that holds for them, in the tree's order. Raises TreeError."""
    phases = tree.phases
    whole = "prefill" if "prefill" in phases else "forward"
    by_phase: Dict[str, int] = {}
    names = []
    for tokens, cached in requests:
        name = whole if not cached else "decode" if tokens == 1 else "extend"
        names.append(name)
        by_phase[name] = by_phase.get(name, 0) + 1
    found: Dict[int, Group] = {}
    chosen: Dict[Tuple[str, int, int], int] = {}
    for index, (name, (tokens, cached)) in enumerate(zip(names, requests)):
        key = (name, tokens, cached)
        if key not in chosen:
            section = tree.section(name, by_phase[name], tokens, cached)
            chosen[key] = tree.sections.index(section)
        at = chosen[key]
        found.setdefault(at, Group(tree.sections[at], [])).requests.append(index)
    return [found[at] for at in sorted(found)]


def _sums(requests: Sequence[Requested]) -> Dict[str, int]:
    """Monomials with ``b`` as sums over the requests, those without it at the longest."""
    q = p = qq = qp = 0
    for tokens, cached in requests:
        q, p, qq, qp = q + tokens, p + cached, qq + tokens * tokens, qp + tokens * cached
    longest = monomials(1, max(r.tokens for r in requests), max(r.cached for r in requests))
    return dict(longest, b=len(requests), bs=q, bss=qq, bp=p, bsp=qp)


class Step:
    """A ragged step of a symbolic tree. ``tree``: as a ModelTree, to predict like any other."""

    def __init__(self, symbolic: SymbolicTree, requests: Any) -> None:
        self.requests = requested(requests)
        self.symbolic = symbolic
        self.groups = groups_of(symbolic, self.requests)
        self._of = [[self.requests[i] for i in group.requests] for group in self.groups]
        self._sums = [_sums(of) for of in self._of]
        self.tokens = sum(r.tokens for r in self.requests)
        self.outline, root, self._leaves = self._merged()
        raw = {index: self._raw(parts) for index, parts in self._leaves.items()}
        for index, block in enumerate(self.outline.blocks):
            if block.primitive is None:
                raw[index] = {"num_parameters": self._parameters(block)}
        folded = self.outline.assembled(root, raw)
        count = len(self.requests)
        length = divided(self.tokens, count)
        for node in folded.nodes:
            node.features.update(batch_size=float(count), seq_len=float(length))
        cached = divided(sum(r.cached for r in self.requests), count)
        header = symbolic.headed(self.groups[0].section, count, length, cached)
        phases = list(dict.fromkeys(group.section.phase for group in self.groups))
        header.update(phase="+".join(phases))
        self.tree = SizedTree(folded, header)

    def _merged(self) -> Tuple[Outline, int, Dict[int, List[Optional[int]]]]:
        """The blocks of all groups laid over each other; per merged leaf its block in each group."""
        blocks: List[Block] = []
        known: Dict[Tuple[Optional[int], ...], int] = {}
        leaves: Dict[int, List[Optional[int]]] = {}
        source = self.symbolic.blocks

        def add(parts: Tuple[Optional[int], ...]) -> int:
            if parts in known:
                return known[parts]
            present = [source[i] for i in parts if i is not None]
            first = present[0]
            children: List[Tuple[str, int]] = []
            if first.primitive is None:
                rows: Dict[Any, List[Optional[int]]] = {}
                for group, part in enumerate(parts):
                    seen: Dict[Any, int] = {}
                    for suffix, child in () if part is None else source[part].children:
                        name = (suffix, source[child].type, source[child].primitive)
                        seen[name] = seen.get(name, 0) + 1
                        row = rows.setdefault((name, seen[name]), [None] * len(parts))
                        row[group] = child
                children = [(key[0][0], add(tuple(row))) for key, row in rows.items()]
            known[parts] = number = len(blocks)
            features = {name: at for block in present for name, at in block.features.items()}
            blocks.append(Block(first.type, first.primitive, features, first.shapes, children))
            if first.primitive is not None:
                leaves[number] = list(parts)
            return number

        root = add(tuple(group.section.root for group in self.groups))
        last = len(blocks) - 1
        turned = [
            b._replace(children=[(suffix, last - child) for suffix, child in b.children])
            for b in reversed(blocks)
        ]
        return Outline(turned), last - root, {last - number: parts for number, parts in leaves.items()}

    def _parameters(self, block: Block) -> Number:
        found = self.symbolic.expressions[block.features["num_parameters"]]
        return found if isinstance(found, (int, float)) else 0

    def _raw(self, parts: List[Optional[int]]) -> Dict[str, Number]:
        """The counts of a merged leaf: sums of what requests add, the most of what is there once, means of shapes."""
        of: Dict[str, List[Tuple[int, Any]]] = {}
        for group, part in enumerate(parts):
            if part is not None:
                for name, at in self.symbolic.blocks[part].features.items():
                    of.setdefault(name, []).append((group, self.symbolic.expressions[at]))
        out: Dict[str, Number] = {}
        for name, found in of.items():
            if name == "bytes_per_element":
                out[name] = self._mean_size(found)
                continue
            counts = [self._counts(name, group, expression) for group, expression in found]
            means = [c.mean for c in counts if c.mean is not None]
            if means:
                above, below = 0, 0  # type: Number, int
                for value, weight in means:
                    above, below = above + value, below + weight
                out[name] = divided(above, below) if isinstance(above, int) else above / below
                continue
            total: Number = 0
            for c in counts:
                total = total + c.own
            out[name] = total + max(c.shared for c in counts)
        return out

    def _counts(self, name: str, group: int, expression: Any) -> Counts:
        if isinstance(expression, (int, float)):
            return Counts(0, expression, None)
        at = self._sums[group]
        if isinstance(expression, ExpectedExperts):
            return Counts(0, expression.plus(at) + expression.expected(self.tokens), None)
        if isinstance(expression, MeanOfBytes):
            raise TreeError("feature %s is a mean: this tree is damaged" % name)
        if name not in _MEANS or expression.grows_with_batch or expression.is_constant:
            return Counts(expression.part(at, True), expression.part(at, False), None)
        above, below = 0, 0  # type: Number, int
        for tokens, cached in self._of[group]:
            weight = tokens if _MEANS[name] else 1
            above, below = above + weight * expression(monomials(1, tokens, cached)), below + weight
        return Counts(0, 0, (above, below))

    def _mean_size(self, found: List[Tuple[int, Any]]) -> Number:
        above, below = 0.0, 0.0
        single = [e for _, e in found if isinstance(e, (int, float))]
        if len(single) == len(found):
            return max(single)
        for group, expression in found:
            if isinstance(expression, MeanOfBytes):
                above += expression.above(self._sums[group])
                below += expression.below(self._sums[group])
        return quotient(above, below) or max(single or [4.0])

    def shares(self, leaf_j: Mapping[int, float], price: Any) -> List[float]:
        """Per request the part of all leaves' joules that is its own, as shares that add up to 1.

        ``leaf_j``: joules of all copies of a merged leaf, by its block. ``price(node)``: (joules a FLOP, joules a byte,
        the part of the leaf that static power is), as the law has it.
        """
        own_of: List[Dict[str, float]] = [{} for _ in self.groups]
        together = 0.0  # by tokens
        for block, joules in leaf_j.items():
            parts = self._leaves.get(block)
            if parts is None:
                together = together + joules
                continue
            per_flop, per_byte, static = price(block)
            raw = self._raw(parts)
            cost = per_flop * (raw["matmul_flops"] + raw["elementwise_flops"])
            cost = cost + per_byte * (raw["read_bytes"] + raw["write_bytes"] + raw["weight_bytes"])
            own = 0.0
            scale = joules * (1.0 - static) / cost if cost > 0.0 else 0.0
            for group, part in enumerate(parts):
                if part is None or not scale:
                    continue
                for name in SUMMED[:5]:
                    e = self.symbolic.expressions[self.symbolic.blocks[part].features[name]]
                    if isinstance(e, PolynomialOfSizes):
                        each = scale * (per_flop if name.endswith("flops") else per_byte) / e.denominator
                        for monomial, factor in e.terms:
                            if monomial[0] == "b":
                                weights = own_of[group]
                                weights[monomial] = weights.get(monomial, 0.0) + each * factor
                                own = own + each * factor * self._sums[group][monomial]
            together = together + (joules - own)
        out = [together * r.tokens / self.tokens for r in self.requests]
        for each, weights in zip(self.groups, own_of):
            for index in each.requests:
                at = monomials(1, *self.requests[index])
                for monomial, weight in weights.items():
                    out[index] = out[index] + weight * at[monomial]
        total = 0.0
        for share in out:
            total = total + share
        return (
            [share / total for share in out]
            if total > 0.0
            else [r.tokens / self.tokens for r in self.requests]
        )
