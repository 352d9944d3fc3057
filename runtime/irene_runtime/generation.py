"""What a request costs: the prefill of its prompt and every decode step after it.

Decode steps differ in their cached tokens alone. Where an estimator counts the tiles of products, joules follow those
in even steps, like stairs, and each stair is evaluated once. Else they follow smoothly: a few are evaluated, and
parabolas through them are summed exactly; where halving an interval changes its sum by too much it is halved again.
What the last halving changed, or how much a stair is bent, is reported as the error.
"""

from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from .errors import InputError, TreeError
from .expressions import monomials
from .outline import Folded
from .request_prediction import PhaseSum, RequestPrediction
from .symbolic import Section, SymbolicTree
from .tree import ModelTree, is_whole

#: Error of a sum of steps, as a share of it, from which intervals are halved.
TOLERANCE = 1e-4
#: Steps up to this many are evaluated one by one.
EXACT_STEPS = 5
MAX_NEW = 2**24


class StepValues(NamedTuple):
    """A step at one size: per folded node joules and both ends, the seconds that the law says, and flags."""

    energy_j: List[float]
    low_j: List[float]
    high_j: List[float]
    time_s: Optional[float]
    flags: int


def _sum_weights(low: int, middle: int, high: int, first: int) -> Tuple[float, float, float]:
    """Weights with which values at three sizes give the sum over ``first .. high`` of the parabola through them."""
    n = high - first + 1
    # Sums of 1, t and t^2 over t = i - low.
    a, b = first - low, high - low
    one = float(n)
    t = float((a + b) * n // 2) if (a + b) * n % 2 == 0 else (a + b) * n / 2.0
    tt = float(b * (b + 1) * (2 * b + 1) // 6 - (a - 1) * a * (2 * a - 1) // 6)
    m, h = float(middle - low), float(high - low)
    return (
        (tt - (m + h) * t + m * h * one) / (m * h),
        (tt - h * t) / (m * (m - h)),
        (tt - m * t) / (h * (h - m)),
    )


class _Total:
    """Weighted sums of steps of one layout."""

    def __init__(self, folded: Folded) -> None:
        self.folded = folded
        self.energy = [0.0] * len(folded.nodes)
        self.low = self.high = 0.0
        self.time: Optional[float] = 0.0
        self.flags = 0

    def add(self, values: StepValues, weight: float) -> None:
        self.energy = [a + weight * b for a, b in zip(self.energy, values.energy_j)]
        self.low, self.high = self.low + weight * values.low_j[0], self.high + weight * values.high_j[0]
        self.flags |= values.flags
        self.time = None if self.time is None or values.time_s is None else self.time + weight * values.time_s


class Generation:
    """Evaluates steps of one symbolic tree by one estimator, each size once."""

    def __init__(self, estimator: Any, tree: SymbolicTree) -> None:
        self.estimator, self.tree = estimator, tree
        self._known: Dict[Tuple[str, int, int, int], Tuple[Section, Folded, StepValues]] = {}
        self._nodes: Dict[Any, Any] = {}  # what was evaluated of nodes that do not change from step to step
        #: Keys that one tile of a product holds, where the estimator counts tiles: joules rise in steps of these.
        self.tile = estimator.tile_of_keys()

    def step(self, phase: str, batch: int, tokens: int, cached: int) -> Tuple[Section, Folded, StepValues]:
        """One step. Raises TreeError."""
        key = (phase, batch, tokens, cached)
        if key not in self._known:
            section = self.tree.section(phase, batch, tokens, cached)
            folded = self.tree.folded(section, monomials(batch, tokens, cached))
            for node in folded.nodes:
                node.features.update(batch_size=float(batch), seq_len=float(tokens))
            header = self.tree.headed(section, batch, tokens, cached)
            folded, values = self.estimator.step_values(folded, ModelTree([], header), self._nodes)
            self._known[key] = section, folded, values
        return self._known[key]

    def once(self, name: str, phase: str, batch: int, tokens: int, cached: int = 0) -> Tuple[PhaseSum, int]:
        """A phase of a single step."""
        _, folded, values = self.step(phase, batch, tokens, cached)
        total = _Total(folded)
        total.add(values, 1.0)
        return _phase(name, [total], 1.0, 0.0), total.flags

    def steps(
        self,
        name: str,
        phase: str,
        batch: int,
        tokens: int,
        first: int,
        last: int,
        weight: float,
        exact: bool,
    ) -> Tuple[PhaseSum, int]:
        """Steps behind ``first`` to ``last`` cached tokens, each counted ``weight`` times."""
        totals: Dict[int, _Total] = {}
        count, error = 0.0, 0.0

        def value(cached: int) -> float:
            return self.step(phase, batch, tokens, cached)[2].energy_j[0]

        for low, high in self._ranges(phase, batch, tokens, first, last):
            _, folded, _ = self.step(phase, batch, tokens, low)
            total = totals.setdefault(id(folded.places), _Total(folded))
            count += weight * (high - low + 1)
            if exact:
                points: Any = [(cached, 1.0, 0.0) for cached in range(low, high + 1)]
            elif self.tile > 1:
                points = _tiled(value, low, high, self.tile, self._offset(phase, batch, tokens, low))
            else:
                points = _weighted(value, low, high)
            for cached, share, off in points:
                error = error + weight * off
                total.add(self.step(phase, batch, tokens, cached)[2], weight * share)
        flags = 0
        for total in totals.values():
            flags |= total.flags
        return _phase(name, list(totals.values()), count, error), flags

    def _offset(self, phase: str, batch: int, tokens: int, cached: int) -> int:
        """Keys of an attention beside the cached ones: its own tokens."""
        for node in self.step(phase, batch, tokens, cached)[1].nodes:
            if node.primitive in ("Attention", "MatMul", "Softmax"):
                for name in ("gemm_n", "cols"):
                    keys = int(node.features.get(name, 0.0))
                    if cached < keys <= cached + tokens:
                        return keys - cached
        return tokens

    def _ranges(
        self, phase: str, batch: int, tokens: int, first: int, last: int
    ) -> Iterator[Tuple[int, int]]:
        """Runs of cached tokens that one section holds for. Raises TreeError where none does."""
        while first <= last:
            section = self.tree.section(phase, batch, tokens, first)
            high: Any = section.past_len.high
            end = last if high is None else min(last, high)
            positions: Any = self.tree.header["positions"]
            if is_whole(positions) and last + tokens > positions:
                self.tree.section(phase, batch, tokens, last)  # says what does not fit
            yield first, end
            first = end + 1


def _weighted(value: Callable[[int], float], low: int, high: int) -> Iterator[Tuple[int, float, float]]:
    """Points with the weights that sum ``value`` over ``low .. high``; the third is the error one stands for."""
    if high - low < EXACT_STEPS:
        for at in range(low, high + 1):
            yield at, 1.0, 0.0
        return
    allowed = TOLERANCE * 0.5 * (abs(value(low)) + abs(value(high)))
    stack = [(low, high, low)]
    while stack:
        a, b, first = stack.pop()
        if b - a < EXACT_STEPS:
            for at in range(first, b + 1):
                yield at, 1.0, 0.0
            continue
        m = (a + b) // 2
        left, right = (a, (a + m) // 2, m), (m, (m + b) // 2, b)
        whole = _applied(value, (a, m, b), first, b)
        off = abs(whole - _applied(value, left, first, m) - _applied(value, right, m + 1, b))
        if off > allowed * (b - first + 1):
            stack += [(m, b, m + 1), (a, m, first)]
            continue
        for points, start in ((left, first), (right, m + 1)):
            for at, share in zip(points, _sum_weights(points[0], points[1], points[2], start)):
                yield at, share, off / 6.0


def _applied(value: Callable[[int], float], points: Tuple[int, int, int], first: int, last: int) -> float:
    total = 0.0
    for at, share in zip(points, _sum_weights(points[0], points[1], points[2], first)):
        total = total + share * value(at)
    return total


def _tiled(
    value: Callable[[int], float], low: int, high: int, tile: int, offset: int
) -> Iterator[Tuple[int, float, float]]:
    """As ``_weighted``, of a staircase with steps of ``tile`` cached tokens, each a nearly straight line.

    A step begins where cached tokens and ``offset`` are one more than a multiple of ``tile``; it is taken at its
    middle, to the left and to the right of it by turns where it has none. How high steps are differs (waves of
    products over the processors), so that none is left out. The error is what a stair is bent in its middle, and once
    what a turn may leave.
    """
    side, longest, bent, aside = 0, 0, 0.0, 0.0
    while low <= high:
        end = min(high, (low + offset - 1) // tile * tile + tile - offset)
        count = end - low + 1
        if count < 3:
            for cached in range(low, end + 1):
                yield cached, 1.0, 0.0
            low = end + 1
            continue
        middle, off = (low + end + side) // 2, 0.0
        if count > longest:
            longest = count
            slope = (value(end) - value(low)) / (count - 1)
            bent = abs(value(middle) - value(low) - (middle - low) * slope) + 1e-12 * abs(value(low))
            aside = 0.5 * abs(slope)
        if count % 2 == 0:
            side, off, aside = 1 - side, aside, 0.0
        yield middle, float(count), (off + bent) * count
        low = end + 1


def _phase(name: str, totals: Sequence[_Total], steps: float, error: float) -> PhaseSum:
    energy, low, high = 0.0, 0.0, 0.0
    time: Optional[float] = 0.0
    nodes: Dict[str, float] = {}
    for total in totals:
        energy, low, high = energy + total.energy[0], low + total.low, high + total.high
        time = None if time is None or total.time is None else time + total.time
        for place in total.folded.places:
            node = total.folded.nodes[place.block]
            key = "%s:%s" % (place.scope, node.type) if place.scope else node.type
            key = "%s#%d" % (key, place.call) if place.call else key
            nodes[key] = nodes.get(key, 0.0) + total.energy[place.block]
    return PhaseSum(name, energy, (low, high), time, steps, error, nodes)


def _count(name: str, value: Any, low: int, most: int = MAX_NEW) -> int:
    if not is_whole(value) or not low <= value <= most:
        raise InputError("%s is %.40r, expected a whole number from %d on" % (name, value, low))
    return int(value)


def predicted_request(
    estimator: Any, tree: Any, prompt: Any, new: Any, batch_size: Any = 1, shared_prefix: Any = 0,
    speculative: Any = None, draft: Any = None, beams: Any = 1, exact: bool = False,
) -> RequestPrediction:  # fmt: skip
    """See ``Estimator.request``."""
    if not isinstance(tree, SymbolicTree):
        raise InputError(
            "request wants a symbolic tree: `irene-build trace MODEL --symbolic -o FILE` writes one"
        )
    prompt, new = _count("prompt", prompt, 1), _count("new", new, 1)
    batch, beams = _count("batch_size", batch_size, 1), _count("beams", beams, 1, 4096)
    prefix = _count("shared_prefix", shared_prefix, 0)
    if prefix >= prompt:
        raise InputError(
            "shared_prefix %d: expected fewer than the %d tokens of the prompt" % (prefix, prompt)
        )
    if tree.header["encoder"] == "text":
        raise TreeError(
            "%s reads its prompt with an encoder: its decode steps depend on two lengths, and a request of it is not "
            "predicted; take prefill and decode apart" % tree.header["model"]
        )
    absent = [phase for phase in ("prefill", "decode") if phase not in tree.phases]
    if absent:
        raise TreeError(
            "%s: this tree holds %s; a request needs prefill and decode, of a model that generates"
            % (tree.header["model"], ", ".join(tree.phases))
        )
    if tree.header["cost_model"] != estimator.cost_model:
        raise TreeError(
            "the tree was traced under the cost model %.40s, this estimator was calibrated under %s"
            % (tree.header["cost_model"], estimator.cost_model)
        )
    rows, run = batch * beams, Generation(estimator, tree)
    found: List[Tuple[PhaseSum, int]] = []
    if prefix:
        found.append(run.once("prefix", "prefill", 1, prefix))
        found.append(run.once("prefill", "extend", rows, prompt - prefix, prefix))
    else:
        found.append(run.once("prefill", "prefill", rows, prompt))
    last = prompt + new - 2
    if speculative is None:
        found.append(run.steps("decode", "decode", rows, 1, prompt, last, 1.0, exact))
    else:
        guessed, accepted = _speculation(speculative)
        each = 1.0 / accepted
        found.append(run.steps("decode", "extend", rows, guessed + 1, prompt, last, each, exact))
        if draft is not None:
            if not isinstance(draft, SymbolicTree):
                raise InputError("draft is %s, expected a symbolic tree" % type(draft).__name__)
            guesser = Generation(estimator, draft)
            found.append(guesser.once("draft prefill", "prefill", rows, prompt))
            found.append(guesser.steps("draft", "decode", rows, 1, prompt, last, guessed * each, exact))
    flags = 0
    for _, more in found:
        flags |= more
    size = {
        "prompt": prompt, "new": new, "batch_size": batch, "beams": beams if beams > 1 else None,
        "shared_prefix": prefix or None, "speculative": list(speculative) if speculative is not None else None,
    }  # fmt: skip
    about = {key: getattr(estimator, key) for key in ("hardware", "boundary", "provenance", "digest")}
    return RequestPrediction(tree.header, about, size, [phase for phase, _ in found], flags)


def _speculation(given: Any) -> Tuple[int, float]:
    """Guesses a check, and the tokens that it yields: (1 - a^(k+1)) / (1 - a) (Leviathan et al. 2023, eq. 1)."""
    try:
        guessed, acceptance = given
        good = is_whole(guessed) and 1 <= guessed <= 1024 and 0.0 <= float(acceptance) <= 1.0
    except (TypeError, ValueError):
        good = False
    if not good:
        raise InputError("speculative is %.60r, expected (guesses, acceptance from 0 to 1)" % (given,))
    a, total, power = float(acceptance), 0.0, 1.0
    for _ in range(guessed + 1):
        total, power = total + power, power * a
    return guessed, total
