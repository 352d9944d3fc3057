"""Finds the sizes of a phase that share their expressions: fits a few, proves others, looks for where it changes.

What changes, on models that were looked at: batch 1 (eager attention expands its masks otherwise), one token,
tokens fewer than a convolution is wide, and the window of sliding attention.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from irene_build.errors import ModelError
from irene_runtime.expressions import Expression, monomials
from irene_runtime.outline import in_units
from irene_runtime.tree import ModelTree, Node

from .fit import Raw, Size, compiled, counted, fitted
from .tracer import collecting

#: Pieces of one phase and batch at most; a phase with more is refused beyond them.
MAX_PIECES = 6
#: Tokens at which it shows that a model runs them one by one.
STEPWISE = 256
#: What a leaf's features are made of; ``flops`` and ``mem_bytes`` are sums of these.
_DERIVED = ("flops", "mem_bytes", "batch_size", "seq_len")


class MisfitError(ModelError):
    """Sizes that follow no expression; the message lists the nodes."""


@dataclass
class Fit:
    """Expressions of every node at the sizes of one section."""

    phase: str
    nodes: Sequence[Node]
    features: list[dict[str, Raw]]
    kind: str
    low: int = 1
    high: int | None = None
    batch: tuple[int, int | None] = (2, None)
    compiled: list[dict[str, Expression]] = field(default_factory=list)

    def wrong(self, tree: ModelTree, size: Size) -> str:
        """The first node of a traced tree that this does not give to the last bit; empty where all are right."""
        if outline(tree) != outline_of(self.nodes):
            return "other nodes run"
        if not self.compiled:
            self.compiled = [{n: compiled(r) for n, r in own.items()} for own in self.features]
        at = monomials(*size)
        for node, own in zip(tree.nodes, self.compiled, strict=True):
            if node.primitive is None:
                continue
            values = {n: e if isinstance(e, (int, float)) else e(at) for n, e in own.items()}
            for name, value in in_units(values).items():
                if not _same(value, node.features[name], name):
                    return f"{name} of {node.name} is {node.features[name]!r}, not {value!r}"
        return ""


def _same(a: float, b: float, name: str) -> bool:
    """Equal; weights that are read of expected experts to 1e-12."""
    return a == b or (name in ("weight_bytes", "mem_bytes") and abs(a - b) <= 1e-12 * abs(b))


def outline_of(nodes: Sequence[Node]) -> tuple[Any, ...]:
    return tuple(
        (n.scope, n.type, n.level, n.parent, n.primitive, n.call, n.features["num_parameters"], _flag(n))
        for n in nodes
    )


def outline(tree: ModelTree) -> tuple[Any, ...]:
    """What two trees have in common when their numbers alone differ."""
    return outline_of(tree.nodes)


def _flag(node: Node) -> bool:
    return bool((node.shapes or {}).get("is_causal"))


class Prober:
    """Traces sizes of one phase, each once. ``run(batch, tokens, cached)`` traces one."""

    def __init__(
        self, phase: str, run: Callable[[int, int, int], ModelTree], experts: Sequence[tuple[int, int]]
    ) -> None:
        self.phase, self.experts = phase, experts
        self._run = run
        self._trees: dict[Size, ModelTree | ModelError] = {}
        self.traced = 0
        self.seconds: dict[Size, float] = {}

    def tree(self, size: Size) -> ModelTree:
        """Raises ModelError where this size cannot be traced."""
        if size not in self._trees:
            start = time.perf_counter()
            try:
                self._trees[size] = self._run(*size)
                self.traced += 1
            except ModelError as error:
                self._trees[size] = error
            self.seconds[size] = time.perf_counter() - start
        found = self._trees[size]
        if isinstance(found, ModelError):
            raise found
        return found

    def fit(self, sizes: Sequence[Size]) -> Fit:
        """Expressions through these sizes, the last of which only prove. Raises MisfitError, ModelError."""
        trees = [self.tree(size) for size in sizes]
        nodes = trees[0].nodes
        for size, tree in zip(sizes, trees, strict=True):
            if outline(tree) != outline(trees[0]):
                raise MisfitError(f"batch {size[0]}, {size[1]} tokens, {size[2]} cached run other nodes")
        known: dict[Any, tuple[dict[str, Raw], list[str]]] = {}
        features: list[dict[str, Raw]] = []
        wrong: list[str] = []
        for index, node in enumerate(nodes):
            if node.primitive is None:
                features.append(
                    {"num_parameters": counted("num_parameters", node.features["num_parameters"])}
                )
                continue
            of_each = [t.nodes[index].features for t in trees]
            names = [n for n in node.features if n not in _DERIVED]
            if any(own.keys() != node.features.keys() for own in of_each):
                wrong.append(f"{node.name}: features come and go")
                continue
            samples = {n: tuple(counted(n, own[n]) for own in of_each) for n in names}
            key = tuple(samples.items())
            if key not in known:
                known[key] = fitted(samples, sizes, self.phase, self.experts)
            own, misfits = known[key]
            features.append(own)
            if misfits:
                wrong.append(f"{node.name}: {', '.join(misfits)}")
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise MisfitError(f"no expression fits {'; '.join(wrong[:5])}{more}")
        kind = nodes[0].type
        return Fit(self.phase, nodes, features, kind)

    def holds(self, fit: Fit, size: Size) -> bool:
        """Whether a fit gives what tracing this size gives; not where it cannot be traced."""
        try:
            return not fit.wrong(self.tree(size), size)
        except ModelError:
            return False


@dataclass
class Domain:
    """Which sizes are looked at: ``length`` is of the dimension that varies most (tokens, or cached ones)."""

    phase: str
    top: int | None
    thresholds: list[int]
    fixed: bool = False

    def size(self, batch: int, length: int) -> Size:
        if self.phase == "decode":
            return batch, 1, length
        if self.phase == "extend":
            return batch, 2, length
        return batch, length, 0

    def window(self, start: int, batches: Sequence[int]) -> list[Size]:
        """Sizes to solve from, and then some to prove with."""
        lengths = [start, start + 1, start + 3]
        if self.phase == "decode":
            lengths = lengths[:2]
        if self.fixed:
            lengths = [start]
        if self.phase == "extend":
            pairs = [(2, start), (3, start), (5, start), (2, start + 1), (3, start + 1)]
            sizes = [(b, s, p) for s, p in pairs for b in batches]
            more = [(b, 4, start + 3) for b in (5,)] if len(batches) > 1 else [(batches[0], 4, start + 3)]
            return [*sizes, *more]
        sizes = [self.size(b, length) for length in lengths for b in batches]
        proof = 5 if len(batches) > 1 else batches[0]
        return [*sizes, self.size(proof, start + (0 if self.fixed else 4))]


def pieces(
    prober: Prober, domain: Domain, batches: Sequence[int]
) -> Iterator[Fit | tuple[int, int | None, str]]:
    """Fits that follow each other over all lengths; (low, high, why) where none does."""
    span = (2, None) if len(batches) > 1 else (batches[0], batches[0])
    batch, start = batches[0], 5
    for number in range(MAX_PIECES):
        fit = (
            _first(prober, domain, batches, start)
            if number == 0
            else prober.fit(domain.window(start, batches))
        )
        if isinstance(fit, str):
            yield 1, domain.top, fit
            return
        fit.batch = span
        if domain.fixed:
            fit.low = fit.high = int(fit_length(prober, fit, batch))
            yield fit
            return
        fit.low = _lowest(prober, domain, fit, batch) if number == 0 else start
        last = _top(prober, domain, fit, batch)
        fit.high = domain.top if last is None else last
        yield fit
        if last is None or last == domain.top:
            if fit.low > 1:
                yield from _one(prober, domain, batches, span, fit.low)
            return
        start = last + 1
        try:
            prober.tree(domain.size(batch, start))
            prober.fit(domain.window(start, batches))
        except ModelError as error:
            yield start, domain.top, str(error)
            return
    yield start, domain.top, f"more than {MAX_PIECES} pieces"


def fit_length(prober: Prober, fit: Fit, batch: int) -> float:
    return prober.tree((batch, 5, 0)).header["seq_len"] or 1


def _first(prober: Prober, domain: Domain, batches: Sequence[int], start: int) -> Fit | str:
    errors: list[ModelError] = []
    for at in (start, 2, 1, 9, 17):
        with collecting(errors):
            return prober.fit(domain.window(at, batches))
    return str(errors[0])


def _lowest(prober: Prober, domain: Domain, fit: Fit, batch: int) -> int:
    for length in (2, 3, 4):
        if prober.holds(fit, domain.size(batch, length)):
            return 1 if length == 2 and prober.holds(fit, domain.size(batch, 1)) else length
    return 5


def _top(prober: Prober, domain: Domain, fit: Fit, batch: int) -> int | None:
    """The last length at which a fit holds; None where nothing ends it."""
    tops = [domain.top] if domain.top is not None else [2**20, 2**16, 2**12]
    if (domain.top or STEPWISE) >= STEPWISE > fit.low and _is_stepwise(prober, domain, fit, batch):
        # Token by token in Python: a long sequence would take minutes, and there is nothing that could switch.
        return domain.top
    failed: list[int] = []
    for top in tops:
        assert top is not None
        if prober.holds(fit, domain.size(batch, top)):
            return top if domain.top is not None or failed else (None if top == 2**20 else top)
        failed.append(top)
    good, bad = fit.low, failed[-1]
    for threshold in domain.thresholds:
        for at in (threshold - 1, threshold, threshold + 1):
            if good < at < bad:
                if prober.holds(fit, domain.size(batch, at)):
                    good = at
                else:
                    bad = at
    while bad - good > 1:
        middle = (good + bad) // 2
        if prober.holds(fit, domain.size(batch, middle)):
            good = middle
        else:
            bad = middle
    return good


def _is_stepwise(prober: Prober, domain: Domain, fit: Fit, batch: int) -> bool:
    """Whether a model runs token by token, and its expressions hold for many."""
    few, many = domain.size(batch, max(fit.low, 5)), domain.size(batch, STEPWISE)
    if not prober.holds(fit, many) or few not in prober.seconds:
        return False
    return prober.seconds[many] > max(0.4, 4.0 * prober.seconds[few])


def _one(
    prober: Prober, domain: Domain, batches: Sequence[int], span: tuple[int, int | None], below: int
) -> Iterator[Fit | tuple[int, int | None, str]]:
    """The few lengths below the first piece: a table each."""
    for length in range(1, min(below, 5)):
        sizes = [domain.size(b, length) for b in (*batches, *((5,) if len(batches) > 1 else ()))]
        try:
            fit = prober.fit(sizes) if len(sizes) > 1 else _single(prober, sizes[0])
        except ModelError as error:
            yield length, length, str(error)
            continue
        fit.low = fit.high = length
        fit.batch = span
        yield fit


def _single(prober: Prober, size: Size) -> Fit:
    """Of one size alone: its very numbers."""
    nodes = prober.tree(size).nodes
    features = [
        {n: counted(n, v) for n, v in node.features.items() if n not in _DERIVED}
        if node.primitive is not None
        else {"num_parameters": counted("num_parameters", node.features["num_parameters"])}
        for node in nodes
    ]
    return Fit(prober.phase, nodes, features, nodes[0].type)


def sections(prober: Prober, domain: Domain) -> Iterator[Fit | tuple[int, int, int | None, str]]:
    """All fits of a phase; (batch, low, high, why) for sizes that follow none."""
    for piece in pieces(prober, domain, (2, 3)):
        if not isinstance(piece, Fit):
            yield (1, *piece)
            continue
        far = piece.low + 40 if piece.high is None else piece.high
        lengths = [5] if domain.fixed else sorted({min(piece.low + 2, far), far})
        if all(prober.holds(piece, domain.size(1, n)) for n in lengths):
            piece.batch = (1, None)
            yield piece
            continue
        yield piece
        try:
            if domain.fixed or piece.low == piece.high:
                alone = _single(prober, domain.size(1, lengths[0]))
            else:
                alone = prober.fit(domain.window(piece.low, (1,)))
            wrong = next((n for n in lengths if not prober.holds(alone, domain.size(1, n))), None)
            if wrong is not None:
                raise MisfitError(f"what fits {piece.low} tokens of batch 1 does not fit {wrong}")
        except ModelError as error:
            yield 1, piece.low, piece.high, str(error)
            continue
        alone.low, alone.high, alone.batch = piece.low, piece.high, (1, 1)
        yield alone
