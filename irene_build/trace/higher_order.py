"""Operators that take functions: control flow runs as written, flex attention is a leaf like any fused attention.

Outside of a compiler torch would compile their functions first; for the time of a pass it does not (``conditions``), so
that they arrive here as operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._C import DispatchKey

from . import attention
from .tensors import numel


def is_higher_order(func: Any) -> bool:
    return isinstance(func, torch._ops.HigherOrderOperator)


def as_written(func: Any) -> Any:
    """What runs the functions of ``cond``, ``while_loop``, ``scan`` and their kin one after the other, or None."""
    if func.name() == "cond":
        return _branch
    if func.name() == "scan":
        return _scan
    return func.py_kernels.get(DispatchKey.CompositeExplicitAutograd)


def _branch(predicate: Any, then: Any, otherwise: Any, operands: Any = ()) -> Any:
    return (then if predicate else otherwise)(*operands)


def _scan(step: Any, first: Any, items: Any, more: Any = ()) -> Any:
    from torch._higher_order_ops.scan import generic_scan

    return generic_scan(step, first, items, additional_inputs=more)


def is_flex_attention(func: Any) -> bool:
    return is_higher_order(func) and func.name() == "flex_attention"


def flex_scores(args: tuple[Any, ...], known: Any) -> attention.Attended:
    """Scores of flex attention; those that its kernel computes are blocks that the mask does not leave out."""
    query, key, value = args[:3]
    found = attention.of_heads(query, key, value)
    (block,) = found.blocks
    mask = args[4] if len(args) > 4 else None
    if mask is None:
        return found
    share = _kept_share(mask, block, known)
    return found._replace(blocks=(block._replace(attended=round(share * block.queries * block.keys)),))


def _kept_share(mask: tuple[Any, ...], block: attention.Block, known: Any) -> float:
    """Of all blocks of keys, the share that the mask keeps: 1 where their numbers are not known.

    ``mask`` as ``BlockMask.as_tuple`` flattens it: numbers of partial and full blocks a row of blocks, and their size.
    """
    counts = [known(t) for t in (mask[2], mask[4]) if t is not None]
    if any(c is None for c in counts):
        return 1.0
    a_row = sum(float(c.sum()) for c in counts) / max(numel(counts[0]), 1)
    return min(1.0, a_row * float(mask[-2]) / max(block.keys, 1))


def flex_result(query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """What flex attention returns for hollow tensors: values, and two float32 numbers a row."""
    lead = attention.lead_of(query, key, value)
    rows = (*lead, query.shape[-2])
    statistics = [query.new_empty(rows, dtype=torch.float32) for _ in range(2)]
    return query.new_empty((*rows, value.shape[-1])), statistics[0], statistics[1]
