"""The products of attention: how many, how large, and which of them a kernel that knows the mask leaves out.

``flops`` of fused attention count the full square, as torch's FlopCounterMode does; ``attended`` counts the scores
that a kernel computes where it is told that a token sees only those before it (or only a window of them).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Block(NamedTuple):
    """``products`` independent products (batch x heads) of ``queries`` x ``keys`` scores."""

    products: int
    queries: int
    keys: int
    attended: int

    @property
    def scores(self) -> int:
        return self.products * self.queries * self.keys


class Attended(NamedTuple):
    """All scores of one call; widths of a query (and key) and of a value."""

    blocks: tuple[Block, ...]
    width: int
    value_width: int

    @property
    def scores(self) -> int:
        return sum(block.scores for block in self.blocks)

    @property
    def matmul_flops(self) -> float:
        """Both products: q k' and softmax(q k') v."""
        return 2.0 * self.scores * (self.width + self.value_width)

    @property
    def softmax_flops(self) -> float:
        return 5.0 * self.scores

    @property
    def shape(self) -> dict[str, float]:
        """Shape features: of one block where all are alike, else rows and columns that keep the sums."""
        rows = sum(block.products * block.queries for block in self.blocks)
        found: dict[str, float] = {
            "rows": rows,
            "cols": self.blocks[0].keys if len(self.blocks) == 1 else self.scores / max(rows, 1),
            "attended": sum(block.products * block.attended for block in self.blocks),
        }
        if len(self.blocks) == 1:
            products, queries, keys, _ = self.blocks[0]
            found |= {"gemm_batch": products, "gemm_m": queries, "gemm_n": keys, "gemm_k": self.width}
        return found


def attended_pairs(queries: int, keys: int, left: int = -1, right: int = -1, offset: int = 0) -> int:
    """Pairs (i, j) with i + offset - left <= j <= i + offset + right; a side below 0 is open.

    Causal masks have ``right`` 0; ``offset`` is 0 where they begin at the top left, keys - queries at the bottom right.
    """
    below = queries * keys if right < 0 else _staircase(queries, keys, offset + right + 1)
    return below - (_staircase(queries, keys, offset - left) if left >= 0 else 0)


def _staircase(rows: int, most: int, first: int) -> int:
    """The sum over rows i of min(max(first + i, 0), most), in closed form: a polynomial in each of its pieces."""
    start = max(0, -first)
    full = min(max(most - first, start), rows)
    rising = max(full - start, 0)
    low = first + start
    return rising * low + rising * (rising - 1) // 2 + max(rows - max(full, start), 0) * most


def of_heads(query: Tensor, key: Tensor, value: Tensor, mask: Any = None, causal: bool = False) -> Attended:
    """Operands laid out [..., heads, tokens, width]. Their batch dimensions, and those of the mask, are broadcast.

    ``causal`` begins at the top left; a mask that is a ``CausalBias`` of torch's says where it does. Fewer heads of
    keys and values than of queries are shared by groups of these. Source: torch's
    ``scaled_dot_product_attention``.
    """
    queries, keys = int(query.shape[-2]), int(key.shape[-2])
    offset = 0
    if is_causal_bias(mask):
        offset = keys - queries if "LOWER" in mask.variant.name else 0
        causal, mask = True, None
    lead = lead_of(query, key, value, mask)
    pairs = attended_pairs(queries, keys, right=0, offset=offset) if causal else queries * keys
    block = Block(prod(lead), queries, keys, pairs)
    return Attended((block,), int(query.shape[-1]), int(value.shape[-1]))


def is_causal_bias(mask: Any) -> bool:
    return type(mask).__name__ == "CausalBias"


def lead_of(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> tuple[int, ...]:
    """Sizes of batch and heads that the result has."""
    leads = [_grouped(query.shape, t.shape) for t in (key, value)]
    masks = [tuple(mask.shape[:-2])] if mask is not None and mask.dim() > 2 else []
    return tuple(int(n) for n in torch.broadcast_shapes(tuple(query.shape[:-2]), *leads, *masks))


def _grouped(query: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Batch and heads of keys or values, shared heads as the queries have them."""
    lead = tuple(other[:-2])
    if len(query) > 2 and len(lead) and query[-3] != lead[-1] and query[-3] % max(lead[-1], 1) == 0:
        return (*lead[:-1], int(query[-3]))
    return lead


def of_tokens(
    query: Tensor, key: Tensor, value: Tensor, causal: bool = False, window: tuple[int, int] = (-1, -1)
) -> Attended:
    """Operands laid out [batch, tokens, heads, width], as flash and efficient attention take them."""
    queries, keys = int(query.shape[-3]), int(key.shape[-3])
    lead = torch.broadcast_shapes(tuple(query.shape[:-3]), tuple(key.shape[:-3]))
    left, right = window
    pairs = attended_pairs(queries, keys, left, 0 if causal else right, keys - queries)
    block = Block(prod(lead) * int(query.shape[-2]), queries, keys, pairs)
    return Attended((block,), int(query.shape[-1]), int(value.shape[-1]))


def of_sequences(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[tuple[int, int]], causal: bool = False,
    window: tuple[int, int] = (-1, -1),
) -> Attended:  # fmt: skip
    """Operands laid out [all tokens, heads, width]; ``lengths``: (queries, keys) of each sequence."""
    heads, width = (int(n) for n in query.shape[-2:])
    return of_lengths(heads, width, int(value.shape[-1]), lengths, causal, window)


def of_lengths(
    heads: int, width: int, value_width: int, lengths: Sequence[tuple[int, int]], causal: bool = False,
    window: tuple[int, int] = (-1, -1),
) -> Attended:  # fmt: skip
    """Sequences of (queries, keys) tokens that attend within themselves; alike ones are one block."""
    left, right = window
    blocks = tuple(
        Block(heads, q, k, attended_pairs(q, k, left, 0 if causal else right, k - q)) for q, k in lengths
    )
    if len(set(blocks)) == 1:
        blocks = (blocks[0]._replace(products=heads * len(blocks)),)
    return Attended(blocks or (Block(heads, 0, 0, 0),), width, value_width)


def lengths_of(ends: Any, values: Any, longest: int) -> list[int]:
    """Lengths of sequences from their cumulated ends [sequences + 1]; all ``longest`` where these are not known."""
    if values is None:
        return [int(longest)] * (int(ends.shape[0]) - 1)
    numbers = values.tolist()
    return [int(b - a) for a, b in pairwise(numbers)]
