"""What primitives cost, from shapes at the level of their call: a formula each, and the operands it takes.

A formula takes the costs of a pass (which storages hold parameters), the operands and the outputs, and
what a primitive's ``setting`` found beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import attention as scores
from .aten_costs import convolution_flops, window
from .ops import Costs
from .tensors import data_of, is_packed, is_sparse, numel, stored


@dataclass
class Cost:
    """What a leaf costs: absolute FLOPs and bytes, and the shape features of its kind."""

    matmul_flops: float = 0.0
    elementwise_flops: float = 0.0
    read_bytes: float = 0.0
    write_bytes: float = 0.0
    weight_bytes: float = 0.0
    kernels: float = 1.0
    shape: dict[str, float] = field(default_factory=dict)
    weights: tuple[int, ...] = ()
    unseen: int = 0


def moved(costs: Costs, operands: list[Any], outputs: list[Any], **values: Any) -> Cost:
    """A cost whose bytes are: every operand read once, every output written once."""
    read, weight, ids = costs.traffic([t for t in operands if t is not None])
    write = float(sum(numel(t) * t.element_size() for t in outputs))
    return Cost(read_bytes=read, weight_bytes=weight, write_bytes=write, weights=ids, **values)


def weight_bias(module: Any, args: tuple[Any, ...]) -> list[Any]:
    return [args[0], module.weight, getattr(module, "bias", None)]


def input_only(module: Any, args: tuple[Any, ...]) -> list[Any]:
    return [args[0]]


def linear(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
    """x[..., k] w[n, k] + b: 2 m n k (of stored weights where they are sparse), and m n for the bias."""
    x, weight = operands[0], operands[1]
    k = int(x.shape[-1])
    m = numel(x) // max(k, 1)
    n = int(weight.shape[0]) if weight.dim() == 2 else 1
    bias = m * n if len(operands) > 2 and operands[2] is not None else 0
    gemm = {"gemm_batch": 1, "gemm_m": m, "gemm_n": n, "gemm_k": k}
    held = stored(weight) if is_sparse(weight) else n * k
    each = _complex(x)
    return moved(
        costs, operands, outputs, matmul_flops=2.0 * each * m * held,
        elementwise_flops=float(bias * (2 if each > 1 else 1)), shape=gemm,
    )  # fmt: skip


def _complex(x: Any) -> int:
    """Real products in one of complex values."""
    return 4 if x.is_complex() else 1


def conv1d_gpt(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
    """GPT's Conv1D is a Linear with its weight stored as [k, n]."""
    x, weight = operands[0], operands[1]
    k, n = (int(size) for size in weight.shape)
    m = numel(x) // max(k, 1)
    gemm = {"gemm_batch": 1, "gemm_m": m, "gemm_n": n, "gemm_k": k}
    return moved(
        costs, operands, outputs, matmul_flops=2.0 * m * n * k, elementwise_flops=float(m * n), shape=gemm
    )


def rowwise(per_element: float) -> Callable[[Costs, list[Any], list[Any]], Cost]:
    """``per_element`` FLOPs an element of the input, worked on in rows of its last dimension."""

    def cost(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
        x = operands[0]
        cols = int(x.shape[-1]) if x.dim() else 1
        shape = {"rows": numel(x) // max(cols, 1), "cols": cols}
        return moved(costs, operands, outputs, elementwise_flops=per_element * numel(x), shape=shape)

    return cost


def pointwise(per_element: float) -> Callable[[Costs, list[Any], list[Any]], Cost]:
    def cost(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
        each = per_element * (2 if operands[0].is_complex() else 1)
        return moved(costs, operands[:1], outputs, elementwise_flops=each * numel(operands[0]))

    return cost


def embedding(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
    """A lookup reads indices and the picked rows."""
    indices = operands[0]
    made = moved(costs, operands[:1], outputs)
    made.weight_bytes += made.write_bytes
    made.weights = costs.traffic(operands[1:2])[2]
    made.shape = {"rows": int(indices.numel()), "cols": int(operands[1].shape[-1])}
    return made


def convolution(transposed: bool) -> Callable[[Costs, list[Any], list[Any]], Cost]:
    def cost(costs: Costs, operands: list[Any], outputs: list[Any]) -> Cost:
        x, weight, out = operands[0], operands[1], outputs[0]
        spatial = weight.dim() - 2
        if x.dim() == spatial + 1:
            x, out = x.unsqueeze(0), out.unsqueeze(0)
        flops = convolution_flops(x, weight, out, transposed)
        bias = out.numel() if len(operands) > 2 and operands[2] is not None else 0
        return moved(costs, operands, outputs, matmul_flops=flops, elementwise_flops=float(bias))

    return cost


def attention(costs: Costs, operands: list[Any], outputs: list[Any], causal: float = 0.0) -> Cost:
    """Fused softmax(q k' + mask) v: two products and a softmax, scores are never written to memory."""
    q, k, v = operands[:3]
    mask = operands[3] if len(operands) > 3 else None
    found = _scores(costs, q, k, v, mask, bool(causal))
    return moved(
        costs, [t for t in operands[:4] if not scores.is_causal_bias(t)], outputs,
        matmul_flops=found.matmul_flops * _complex(q),
        elementwise_flops=found.softmax_flops, shape=found.shape,
    )  # fmt: skip


def _scores(costs: Costs, q: Any, k: Any, v: Any, mask: Any, causal: bool) -> scores.Attended:
    """Scores of [..., heads, tokens, width] operands; of sequences of different lengths one by one."""
    if not q.is_nested:
        return scores.of_heads(q, k, v, mask, causal)
    if not is_packed(q):
        # Strided nested tensors: (heads, tokens, width) of each sequence.
        sizes = [t._nested_tensor_size().tolist() for t in (q, k, v)]
        heads = sizes[0][0][0]
        lengths = [(a[1], b[1]) for a, b in zip(sizes[0], sizes[1], strict=True)]
        return scores.of_lengths(heads, sizes[0][0][2], sizes[2][0][2], lengths, causal)
    # Jagged: [sequences, heads, lengths, width] is a view of [tokens, heads, width].
    ends = [t.offsets() for t in (q, k)]
    sides = [scores.lengths_of(e, costs.values(e), _longest(t)) for e, t in zip(ends, (q, k), strict=True)]
    packed = [data_of(t) for t in (q, k, v)]
    if packed[0].shape[0] != sum(sides[0]):
        packed = [t.transpose(0, 1) for t in packed]
    lengths = list(zip(*sides, strict=True))
    return scores.of_sequences(packed[0], packed[1], packed[2], lengths, causal)


def _longest(nested: Any) -> int:
    """The mean length of the sequences of a jagged tensor, rounded up: what is taken where lengths are not known."""
    total = int(data_of(nested).shape[nested._ragged_idx - 1])
    return -(-total // max(int(nested.shape[0]), 1))


def is_causal(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """Whether fused attention is told that a token sees only those before it."""
    return float(bool(args[5] if len(args) > 5 else kwargs.get("is_causal")))


def hollow_attention(operands: list[Any], grouped: bool) -> Any:
    """The fused kernel of the CPU lays its result out as the query is; what it does not take runs as products.

    It takes four dimensions, rows without gaps, one width, one number of heads (unless ``grouped``), and a
    mask of two or four dimensions (torch's ``sdp_utils_cpp``). None where it has to be called: nested tensors.
    """
    import torch

    query, key, value = operands[:3]
    if query.is_nested:
        return None
    operands = [None if scores.is_causal_bias(t) else t for t in operands]
    mask = operands[3] if len(operands) > 3 else None
    fused = (
        query.dim() == 4
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and all(t.stride(-1) == 1 for t in (query, key, value))
        and query.shape[0] == key.shape[0] == value.shape[0]
        and (grouped or query.shape[1] == key.shape[1] == value.shape[1])
        and (mask is None or (mask.dim() in (2, 4) and not mask.requires_grad))
    )
    if fused:
        return torch.empty_like(query)
    return query.new_empty((*scores.lead_of(query, key, value), query.shape[-2], value.shape[-1]))


def pool(costs: Costs, operands: list[Any], outputs: list[Any], looked_at: float) -> Cost:
    """Each value of the output looks at a window of the input; together, adaptive ones look at all of it once."""
    flops = looked_at * outputs[0].numel() if looked_at else float(operands[0].numel())
    return moved(costs, operands[:1], outputs, elementwise_flops=flops)


def pool_window(source: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """Values of a pooling's window, 0 where it adapts."""
    name = getattr(source, "__name__", type(source).__name__)
    if "adaptive" in name.lower():
        return 0.0
    size = getattr(source, "kernel_size", None)
    if size is None:
        size = kwargs["kernel_size"] if "kernel_size" in kwargs else args[1]
    return float(window(size, next(int(letter) for letter in name if letter.isdigit())))


def normalised(module: Any, args: tuple[Any, ...]) -> list[Any]:
    """Of batch normalisation: its statistics are read as well."""
    return [args[0], module.weight, module.bias, module.running_mean, module.running_var]


def recurrent_operands(module: Any, args: tuple[Any, ...]) -> list[Any]:
    """A packed sequence is its values."""
    return [getattr(args[0], "data", args[0]), *module.parameters()]


def steps(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """How often a cell of a recurrent module is run: time steps x layers x directions."""
    x = args[0] if args else next(iter(kwargs.values()))
    if hasattr(x, "batch_sizes"):
        steps = x.batch_sizes.shape[0]
    else:
        steps = x.shape[1 if module.batch_first and x.dim() == 3 else 0]
    return float(steps * module.num_layers * (2 if module.bidirectional else 1))


def recurrent(gates: int, each: float) -> Callable[[Costs, list[Any], list[Any], float], Cost]:
    """Per token: 2 FLOPs a weight, ``each`` a hidden value, 1 a bias; a kernel for each run of a cell."""

    def cost(costs: Costs, operands: list[Any], outputs: list[Any], runs: float) -> Cost:
        x = operands[0]
        tokens = x.numel() // max(int(x.shape[-1]), 1)
        matrices = [w for w in operands[1:] if w.dim() == 2]
        biases = sum(w.numel() for w in operands[1:] if w.dim() == 1)
        # Both matrices of a cell have a row for each gate of each hidden value; a projection has fewer.
        hidden = sum(int(w.shape[0]) for w in matrices if w.shape[0] % gates == 0) / (2 * gates)
        return moved(
            costs, operands, outputs, matmul_flops=2.0 * tokens * sum(w.numel() for w in matrices),
            elementwise_flops=tokens * (each * hidden + biases), kernels=runs,
        )  # fmt: skip

    return cost
