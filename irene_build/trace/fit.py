"""Exact expressions through counts: polynomials solved in fractions, and the few forms that are none.

An expression is found from as many sizes as it has unknowns and must give the very count at every other size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import product
from math import lcm
from typing import Any

from irene_runtime.expressions import Expression, Number, expression, monomials
from irene_runtime.features import FEATURES
from irene_runtime.outline import MEBIBYTE, MILLION

#: (batch size, input tokens, cached tokens)
Size = tuple[int, int, int]
Raw = Any

#: What an expression may be made of, by what varies.
BASES = {
    "forward": ("1", "b", "s", "bs", "ss", "bss"),
    "prefill": ("1", "b", "s", "bs", "ss", "bss"),
    "decode": ("1", "b", "p", "bp"),
    "extend": ("1", "b", "s", "bs", "ss", "bss", "p", "bp", "sp", "bsp"),
}
#: Relative error up to which expected experts count as found: they are no whole numbers.
CLOSE = 1e-12


def basis_of(phase: str, sizes: Sequence[Size]) -> tuple[str, ...]:
    """The monomials of a phase that tell these sizes apart: without those of a dimension that does not vary."""
    fixed = {name for name, at in (("b", 0), ("s", 1), ("p", 2)) if len({size[at] for size in sizes}) == 1}
    return tuple(m for m in BASES[phase] if not fixed & set(m))


@cache
def _inverse(basis: tuple[str, ...], sizes: tuple[Size, ...]) -> tuple[tuple[Fraction, ...], ...] | None:
    """The inverse of the matrix of monomials at as many sizes; None where it has none."""
    count = len(basis)
    rows = [[Fraction(monomials(*size)[name]) for name in basis] for size in sizes]
    for index, row in enumerate(rows):
        row.extend(Fraction(int(i == index)) for i in range(count))
    for column in range(count):
        pivot = next((r for r in range(column, count) if rows[r][column]), None)
        if pivot is None:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [v / rows[column][column] for v in rows[column]]
        for r in range(count):
            if r != column and rows[r][column]:
                rows[r] = [a - rows[r][column] * b for a, b in zip(rows[r], rows[column], strict=True)]
    return tuple(tuple(row[count:]) for row in rows)


def counted(name: str, value: float) -> Number:
    """A feature before its unit: a whole number where it is one."""
    raw = value * {"1e6": MILLION, "MiB": MEBIBYTE}.get(FEATURES[name][1], 1.0)
    near = round(raw)
    return near if abs(raw - near) <= 1e-14 * abs(raw) + 1e-9 else raw


def polynomial(values: Sequence[Number], sizes: Sequence[Size], phase: str) -> Raw:
    """A polynomial of a tree file through all of ``values``, None where there is none."""
    if any(not isinstance(value, int) for value in values):
        return None
    basis = basis_of(phase, sizes)
    count = len(basis)
    inverse = _inverse(basis, tuple(sizes[:count])) if len(sizes) > count else None
    if inverse is None:
        return None
    found = [
        sum((a * int(v) for a, v in zip(row, values[:count], strict=True)), Fraction(0)) for row in inverse
    ]
    by = lcm(*(c.denominator for c in found))
    raw: dict[str, int] = {name: int(c * by) for name, c in zip(basis, found, strict=True) if c}
    if by != 1:
        raw["by"] = by
    if set(raw) <= {"1"}:
        return raw.get("1", 0)
    at = expression(raw, "fit")
    assert not isinstance(at, (int, float))
    return raw if all(at(monomials(*s)) == v for s, v in zip(sizes, values, strict=True)) else None


def experts(
    values: Sequence[Number], sizes: Sequence[Size], phase: str, candidates: Sequence[tuple[int, int]]
) -> Raw:
    """``plus + times * (1 - (1 - k/E)^T)`` with the (k, E) of ``candidates`` that fits, None where none does."""
    tokens = "b" if phase == "decode" else "bs"
    counts = [monomials(*size)[tokens] for size in sizes]
    low, high = counts.index(min(counts)), counts.index(max(counts))
    for chosen, every in candidates:
        shares = [1.0 - (1.0 - min(1.0, chosen / every)) ** count for count in counts]
        if shares[low] == shares[high]:
            continue
        times = (values[high] - values[low]) / (shares[high] - shares[low])
        whole: Number = round(times) if abs(times - round(times)) <= 1e-9 * abs(times) else times
        plus = round(values[high] - whole * shares[high])
        if all(
            abs(plus + whole * share - value) <= CLOSE * abs(value) + 1e-9
            for share, value in zip(shares, values, strict=True)
        ):
            return {"experts": [chosen, every], "times": whole, "plus": plus, "tokens": tokens}
    return None


def expert_candidates(config: Any) -> list[tuple[int, int]]:
    """(experts a token, experts) that a configuration may mean, by the names of its numbers."""
    chosen: set[int] = set()
    every: set[int] = set()
    for part in (config, getattr(config, "text_config", None)):
        for name, value in (vars(part) if part is not None and hasattr(part, "__dict__") else {}).items():
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                if "per_tok" in name or "top_k" in name or "topk" in name:
                    chosen.add(value)
                elif "expert" in name:
                    every.add(value)
    return [(k, n) for k, n in product(sorted(chosen), sorted(every)) if k < n]


def fitted(
    samples: Mapping[str, Sequence[Number]],
    sizes: Sequence[Size],
    phase: str,
    candidates: Sequence[tuple[int, int]],
) -> tuple[dict[str, Raw], list[str]]:
    """An expression for every feature of a leaf, and the names of those that fit none."""
    out: dict[str, Raw] = {}
    wrong: list[str] = []
    for name, values in samples.items():
        found: Raw
        if len(set(values)) == 1:
            found = values[0]
        elif name == "bytes_per_element":
            written = samples["write_bytes"]
            weighed = [v * w for v, w in zip(values, written, strict=True)]
            near = [round(x) if abs(x - round(x)) <= 1e-9 * abs(x) else x for x in weighed]
            above, below = polynomial(near, sizes, phase), polynomial(written, sizes, phase)
            found = None if above is None or below is None else {"mean": [above, below]}
        else:
            found = polynomial(values, sizes, phase)
            if found is None:
                found = experts(values, sizes, phase, candidates)
        if found is None:
            wrong.append(name)
        else:
            out[name] = found
    return out, wrong


def compiled(raw: Raw) -> Expression:
    return expression(raw, "fit")
