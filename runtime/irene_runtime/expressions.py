"""Exact expressions in the sizes of a pass: what a symbolic tree holds where a tree of one size has numbers.

A size is ``b`` (sequences of a batch), ``s`` (input tokens of one) and ``p`` (cached tokens of one). Arithmetic
is that of whole numbers, so an expression gives the very count that tracing that size would.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple, Union

from .errors import TreeError

Number = Union[int, float]
Monomials = Mapping[str, int]

#: Products of sizes that a polynomial may hold: at most one ``b``, in all at most two of ``s`` and ``p``.
MONOMIALS = ("1", "b", "s", "bs", "ss", "bss", "p", "bp", "sp", "bsp")
#: Largest batch, sequence or number of cached tokens that is evaluated.
MAX_SIZE = 2**31


def monomials(batch_size: int, seq_len: int, past_len: int) -> Dict[str, int]:
    """The value of every monomial at one size."""
    b, s, p = batch_size, seq_len, past_len
    return {
        "1": 1, "b": b, "s": s, "bs": b * s, "ss": s * s, "bss": b * s * s,
        "p": p, "bp": b * p, "sp": s * p, "bsp": b * s * p,
    }  # fmt: skip


def divided(number: int, by: int) -> Number:
    """A whole number where it is one."""
    return number // by if number % by == 0 else number / by


class PolynomialOfSizes:
    """``sum of coefficient * monomial / denominator``, all whole numbers."""

    __slots__ = ("terms", "denominator")

    def __init__(self, terms: Sequence[Tuple[str, int]], denominator: int = 1) -> None:
        self.terms = list(terms)
        self.denominator = denominator

    def total(self, at: Monomials) -> int:
        """The value times the denominator."""
        out = 0
        for name, factor in self.terms:
            out += factor * at[name]
        return out

    def __call__(self, at: Monomials) -> Number:
        return divided(self.total(at), self.denominator)

    def part(self, at: Monomials, of_batch: bool) -> Number:
        """What each sequence adds (monomials with ``b``), or what the batch has once (the others)."""
        out = 0
        for name, factor in self.terms:
            if (name[0] == "b") == of_batch:
                out += factor * at[name]
        return divided(out, self.denominator)

    @property
    def is_constant(self) -> bool:
        return all(name == "1" for name, _ in self.terms)

    @property
    def grows_with_batch(self) -> bool:
        return any(name[0] == "b" for name, _ in self.terms)


class ExpectedExperts:
    """``plus + times * (1 - (1 - k/E)^T)``: what is read of E experts when each of T tokens picks k of them."""

    __slots__ = ("chosen", "experts", "times", "plus", "tokens")

    def __init__(
        self, chosen: int, experts: int, times: Number, plus: PolynomialOfSizes, tokens: str
    ) -> None:
        self.chosen, self.experts, self.times, self.plus, self.tokens = chosen, experts, times, plus, tokens

    def expected(self, tokens: int) -> float:
        return float(self.times * (1.0 - (1.0 - min(1.0, self.chosen / self.experts)) ** tokens))

    def __call__(self, at: Monomials) -> Number:
        return self.plus(at) + self.expected(at[self.tokens])


class MeanOfBytes:
    """A quotient of two polynomials: a mean that is weighted by bytes."""

    __slots__ = ("above", "below")

    def __init__(self, above: PolynomialOfSizes, below: PolynomialOfSizes) -> None:
        self.above, self.below = above, below

    def __call__(self, at: Monomials) -> Number:
        return quotient(self.above(at), self.below(at))


def quotient(above: Number, below: Number) -> float:
    """``above / below``; 0.0 where nothing is weighed."""
    return above / below if below else 0.0


Expression = Union[int, float, PolynomialOfSizes, ExpectedExperts, MeanOfBytes]


class Sizes(NamedTuple):
    """A half-open or closed range of one size; ``high`` None where nothing ends it."""

    low: int
    high: Any

    def holds(self, value: int) -> bool:
        return self.low <= value and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.high == self.low:
            return str(self.low)
        return "%d to %d" % self if self.high is not None else "%d or more" % self.low


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**80:
        raise TreeError("%s: %.40r is not a whole number" % (where, value))
    return int(value)


def _polynomial(raw: Any, where: str) -> PolynomialOfSizes:
    if not isinstance(raw, dict):
        return PolynomialOfSizes([("1", _integer(raw, where))])
    by = _integer(raw.get("by", 1), where)
    if by < 1:
        raise TreeError("%s: divides by %d" % (where, by))
    terms = []
    for name, factor in raw.items():
        if name != "by":
            if name not in MONOMIALS:
                raise TreeError("%s: %.40r is none of the monomials %s" % (where, name, ", ".join(MONOMIALS)))
            terms.append((name, _integer(factor, where)))
    return PolynomialOfSizes(terms, by)


def expression(raw: Any, where: str) -> Expression:
    """An expression of a tree file. Raises TreeError.

    A number; ``{"bs": 6144, "s": 8, "by": 2}`` for a polynomial; ``{"experts": [k, E], "times": n, "plus":
    polynomial, "tokens": monomial}``; ``{"mean": [polynomial, polynomial]}``.
    """
    if isinstance(raw, bool) or not isinstance(raw, (int, float, dict)):
        raise TreeError("%s is %s, expected an expression" % (where, type(raw).__name__))
    if not isinstance(raw, dict):
        if not 0 <= raw < float("inf"):
            raise TreeError("%s is %r, expected a number >= 0" % (where, raw))
        return raw
    if "mean" in raw:
        pair = raw["mean"]
        if not isinstance(pair, list) or len(pair) != 2:
            raise TreeError("%s: a mean is a pair of polynomials" % where)
        return MeanOfBytes(_polynomial(pair[0], where), _polynomial(pair[1], where))
    if "experts" in raw:
        pair, times, tokens = raw["experts"], raw.get("times"), raw.get("tokens")
        if not isinstance(pair, list) or len(pair) != 2 or tokens not in MONOMIALS:
            raise TreeError("%s: experts are [chosen, all] and a monomial of tokens" % where)
        chosen, experts = (_integer(n, where) for n in pair)
        if not (0 < chosen <= experts) or isinstance(times, bool) or not isinstance(times, (int, float)):
            raise TreeError("%s: %r experts, %.40r times" % (where, pair, times))
        return ExpectedExperts(chosen, experts, times, _polynomial(raw.get("plus", 0), where), tokens)
    return _polynomial(raw, where)


def evaluated(expressions: List[Expression], at: Monomials) -> List[Number]:
    """The value of each. Raises TreeError where one is negative: a damaged file."""
    out: List[Number] = []
    for index, one in enumerate(expressions):
        value = one if isinstance(one, (int, float)) else one(at)
        if value < 0:
            raise TreeError(
                "expression %d is negative (%r) at this size: the tree is damaged" % (index, value)
            )
        out.append(value)
    return out
