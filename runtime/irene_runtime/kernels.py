"""Time and energy of one GPU kernel from its shape: a roofline, bent by a bounded table, under a power law.

``device`` is plain data, as an estimator file holds it: peak FLOP/s by class, bytes/s, SMs, power limit, the
power law's numbers, and per kind and dtype of kernel six numbers of the roofline and a small table of log
corrections. Every function takes ``ops``: ``Scalar`` for floats, numpy for arrays; the formulas are the same.
Shapes are tuples in the order of ``KINDS``.
"""

import math
from bisect import bisect_right
from typing import Any, Dict, List, Mapping, Sequence, Tuple

#: Kind of kernel -> the names of its shape's numbers.
KINDS: Dict[str, Tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "prefill": ("sequences", "tokens", "cached", "heads", "kv_heads", "head_dim", "window"),
    "decode": ("sequences", "context", "heads", "kv_heads", "head_dim", "window"),
    "encoder": ("sequences", "tokens", "heads", "head_dim"),
    "experts": ("tokens", "hidden", "inter", "topk", "experts", "tp", "ep", "skew"),
    "mla_prefill": ("sequences", "tokens", "cached", "heads"),
    "mla_decode": ("sequences", "context", "heads"),
    "all_reduce": ("gpus", "bytes"),
    "memory": ("bytes",),
}
#: dtype -> bytes of a weight (scales included), bytes of an activation, class of peak FLOP/s.
DTYPES: Dict[str, Tuple[float, float, str]] = {
    "float32": (4.0, 4.0, "float32"), "bfloat16": (2.0, 2.0, "bfloat16"), "float16": (2.0, 2.0, "bfloat16"),
    "fp8": (1.0, 1.0, "fp8"), "fp8_block": (1.0, 1.0, "fp8"), "nvfp4": (0.5625, 0.5625, "fp4"),
    "int8": (1.0, 1.0, "fp8"), "int8_wo": (1.0, 2.0, "bfloat16"), "int4_wo": (0.53, 2.0, "bfloat16"),
    "mxfp4": (0.53, 2.0, "bfloat16"),
}  # fmt: skip
TILES = ((64, 64), (64, 128), (64, 256), (128, 128), (128, 256), (256, 128))
#: Log corrections of time stay within one fifth to five.
BOUND = math.log(5.0)
#: DeepSeek's latent attention: hidden size, ranks of queries and of the cache, widths of a head.
MLA = {"hidden": 7168, "q_rank": 1536, "rank": 512, "rope": 64, "nope": 128, "value": 128}


class Scalar:
    """The functions that the formulas need, of floats; numpy has the same names."""

    ceil = staticmethod(math.ceil)
    log2 = staticmethod(math.log2)
    exp = staticmethod(math.exp)
    minimum = staticmethod(min)
    maximum = staticmethod(max)

    @staticmethod
    def where(condition: Any, yes: Any, no: Any) -> Any:
        return yes if condition else no


def bytes_of(dtype: str) -> Tuple[float, float, str]:
    """DTYPES, and a guess by the name for what is not in it. ``weights/cache`` names a cache of its own dtype."""
    dtype, _, cache = dtype.partition("/")
    if cache:
        weight, _, peak = bytes_of(dtype)
        return weight, bytes_of(cache)[1], peak
    if dtype in DTYPES:
        return DTYPES[dtype]
    if "4" in dtype:
        return DTYPES["nvfp4" if "fp4" in dtype and "w4a16" not in dtype else "int4_wo"]
    return DTYPES["fp8" if "8" in dtype else "bfloat16"]


def variant(kind: str, dtype: str, shape: Sequence[float]) -> str:
    """Name of the numbers that a kernel uses: kind, dtype, and the width of a head."""
    if kind in ("prefill", "decode", "encoder"):
        return "%s|%s|%d" % (kind, dtype, shape[KINDS[kind].index("head_dim")])
    if kind == "all_reduce":
        return "%s|%s|%d" % (kind, dtype, shape[0])
    return "%s|%s" % (kind, dtype)


def _seen(ops: Any, cached: Any, tokens: Any, window: Any) -> Any:
    """Pairs of query and key of one head of one sequence under the causal mask, within the window."""
    full = tokens * cached + tokens * (tokens + 1) / 2
    return ops.where(window > 0, ops.minimum(full, tokens * window), full)


def work(ops: Any, kind: str, dtype: str, shape: Sequence[Any], tile_k: float = 0.0) -> Tuple[Any, Any, Any]:
    """FLOPs, FLOPs with what tiles waste (see ``_waves`` for products), bytes. Each a number or an array."""
    weight, act, _ = bytes_of(dtype)
    if kind == "gemm":
        m, n, k = shape
        flops = 2.0 * m * n * k
        return flops, flops, weight * n * k + act * m * k + 2.0 * m * n
    if kind == "prefill":
        b, s, cached, heads, kv, d, window = shape
        flops = 4.0 * b * heads * d * _seen(ops, cached, s, window)
        padded = flops * (ops.ceil(s / 128.0) * 128.0 / s) ** 0.5
        keys = ops.where(window > 0, ops.minimum(s + cached, window + s), s + cached)
        return flops, padded, b * d * (4.0 * heads * s + 2.0 * act * kv * keys)
    if kind == "decode":
        b, context, heads, kv, d, window = shape
        keys = ops.where(window > 0, ops.minimum(context, window), context)
        flops = 4.0 * b * heads * d * keys
        return flops, flops, b * d * (4.0 * heads + 2.0 * act * kv * keys)
    if kind == "encoder":
        b, s, heads, d = shape
        flops = 4.0 * b * heads * d * s * s
        return flops, flops, 8.0 * b * heads * d * s
    if kind == "experts":
        tokens, hidden, inter, topk, experts, tp, ep, skew = shape
        local = experts / ep
        pairs = tokens * topk / ep
        used = local * (1.0 - (1.0 - topk / experts) ** tokens)
        width = 3.0 * hidden * inter / tp
        flops = 2.0 * width * pairs
        blocks = used * ops.maximum(1.0, pairs / ops.maximum(used, 1e-9) / 64.0) * 64.0
        padded = 2.0 * width * ops.minimum(ops.maximum(blocks, pairs), pairs * 64.0)
        data = weight * width * used + pairs * (2.0 * act * hidden + 6.0 * inter / tp) + 4.0 * tokens * hidden
        return flops, padded, data
    if kind == "mla_prefill":
        b, s, cached, heads = shape
        rows = b * s
        width = _mla_width(heads) + MLA["rank"] * heads * (MLA["nope"] + MLA["value"])
        wide = MLA["nope"] + MLA["rope"] + MLA["value"]
        flops = 2.0 * rows * width + 2.0 * b * heads * wide * _seen(ops, cached, s, 0.0 * s)
        return flops, flops, weight * width + rows * (6.0 * MLA["hidden"] + 8.0 * heads * wide)
    if kind == "mla_decode":
        b, context, heads = shape
        width = _mla_width(heads) + MLA["rank"] * heads * (MLA["nope"] + MLA["value"])
        latent = MLA["rank"] + MLA["rope"]
        flops = 2.0 * b * width + 2.0 * b * heads * context * (latent + MLA["rank"])
        return flops, flops, weight * width + b * context * latent * act + 6.0 * b * MLA["hidden"]
    if kind == "all_reduce":
        gpus, size = shape
        return 0.0 * size, 0.0 * size, 2.0 * size * (gpus - 1.0) / gpus
    (size,) = shape
    return 0.0 * size, 0.0 * size, size


def _mla_width(heads: Any) -> Any:
    """Weights of the projections around the attention (the latent's own aside)."""
    m = MLA
    wide = m["q_rank"] * (m["nope"] + m["rope"]) + m["value"] * m["hidden"]
    return m["hidden"] * (m["q_rank"] + m["rank"] + m["rope"]) + heads * wide


def _waves(ops: Any, shape: Sequence[Any], sms: float, extra_k: float, tile: float) -> Any:
    """FLOPs of a product as its busiest SM sees them, times the SMs: the best of six tiles, half quantised."""
    m, n, k = shape
    best = None
    for rows, cols in TILES:
        waves = ops.ceil(m / rows) * ops.ceil(n / cols) / sms
        waves = 0.5 * ops.ceil(waves) + 0.5 * ops.maximum(waves, 1.0)
        cost = waves * (2.0 * rows * cols * sms) * (k + extra_k) * (1.0 + tile / (rows * cols))
        best = cost if best is None else ops.minimum(best, cost)
    return best


def axes(ops: Any, kind: str, shape: Sequence[Any]) -> List[Any]:
    """Coordinates (log2) of the correction's table."""
    if kind == "gemm":
        raw = list(shape)
    elif kind == "prefill":
        b, s, cached, heads, kv, _, window = shape
        raw = [b, s + cached, heads, heads / kv]
    elif kind == "decode":
        b, context, heads, kv, _, window = shape
        raw = [b * kv, ops.where(window > 0, ops.minimum(context, window), context), heads / kv]
    elif kind == "encoder":
        raw = [shape[0], shape[1], shape[2]]
    elif kind == "experts":
        tokens, hidden, inter, topk, experts, tp, ep, skew = shape
        raw = [tokens * topk / experts, experts / ep, hidden * inter / tp, topk]
    elif kind == "mla_prefill":
        raw = [shape[0], shape[1] + shape[2], shape[3]]
    elif kind == "mla_decode":
        raw = list(shape)
    else:
        raw = [shape[-1]]
    return [ops.log2(ops.maximum(x, 1e-6)) for x in raw]


def roofline(
    ops: Any, kind: str, dtype: str, shape: Sequence[Any], law: Mapping[str, float], device: Any
) -> Any:
    """Seconds before corrections. ``law``: eff, eff_bytes, t0_s, sharp, extra_k, tile, skew."""
    peak, bandwidth = _rates(kind, dtype, device)
    _, padded, data = work(ops, kind, dtype, shape)
    if kind == "gemm":
        padded = _waves(ops, shape, device["sms"], law["extra_k"], law["tile"])
    slow = 1.0
    if kind == "experts":
        slow = 1.0 + law["skew"] * shape[7] * ops.log2(shape[6])
    flop_s = padded / (peak * law["eff"])
    byte_s = data / (bandwidth * law["eff_bytes"])
    most, least = ops.maximum(flop_s, byte_s), ops.minimum(flop_s, byte_s)
    most = ops.maximum(most, 1e-15)
    both = most * (1.0 + (least / most) ** law["sharp"]) ** (1.0 / law["sharp"])
    return law["t0_s"] + both * slow


def _rates(kind: str, dtype: str, device: Any) -> Tuple[float, float]:
    peaks = device["peak_flops_per_s"]
    name = "bfloat16" if kind in ("prefill", "decode", "encoder") else bytes_of(dtype)[2]
    peak = peaks.get(name) or peaks.get("fp8" if name == "fp4" else "bfloat16") or peaks["bfloat16"]
    link = device.get("link_bytes_per_s") or 25e9
    return peak, (link if kind == "all_reduce" else device["bandwidth_bytes_per_s"])


def correction(table: Mapping[str, Any], point: Sequence[float]) -> float:
    """Log correction at ``point``: multilinear between knots, fading to 0 over four doublings outside them."""
    corners = [(0, 1.0)]
    outside = 0.0
    for x, knots in zip(point, table["knots"]):
        outside += max(knots[0] - x, x - knots[-1], 0.0)
        x = min(max(x, knots[0]), knots[-1])
        i = min(max(bisect_right(knots, x) - 1, 0), len(knots) - 2)
        f = (x - knots[i]) / (knots[i + 1] - knots[i])
        corners = [
            (c * len(knots) + i + j, w * g) for c, w in corners for j, g in ((0, 1.0 - f), (1, f)) if g
        ]
    value = 0.0
    for c, w in corners:
        value += w * table["milli"][c]
    value *= 1e-3 * max(0.0, 1.0 - outside / 4.0)
    return min(max(value, -BOUND), BOUND)


def nearest(laws: Mapping[str, Any], key: str) -> str:
    """The fitted numbers for ``key``, or those of the nearest dtype and head width of its kind. Raises KeyError."""
    if key in laws:
        return key
    kind, _, rest = key.partition("|")
    dtype, _, width = rest.partition("|")
    bits = bytes_of(dtype)[0]

    def distance(other: str) -> Tuple[float, float, str]:
        name, _, size = other.partition("|")[2].partition("|")
        far = abs(math.log2(float(size or 1) / float(width or 1)))
        return abs(bytes_of(name)[0] - bits) + (bytes_of(name)[2] != bytes_of(dtype)[2]), far, other

    return min((name for name in laws if name.startswith(kind + "|")), key=distance)


def kernel(device: Any, kind: str, dtype: str, shape: Sequence[float]) -> Tuple[float, float, float, float]:
    """Seconds, joules, FLOPs and bytes of one kernel on one GPU."""
    laws = device["kernels"]
    key = variant(kind, dtype, shape)
    if kind == "memory":
        law: Any = device["memory"]
    else:
        law = laws[nearest(laws, key)]
    time_s = roofline(Scalar, kind, dtype, shape, law, device)
    table = law.get("table")
    if table is not None:
        time_s *= math.exp(correction(table, axes(Scalar, kind, shape)))
    flops, _, data = work(Scalar, kind, dtype, shape)
    return time_s, time_s * power(kind, dtype, shape, flops, data, time_s, device), flops, data


def law_power(ops: Any, kind: str, dtype: str, flops: Any, data: Any, time_s: Any, device: Any) -> Any:
    """Watts by the law alone: static, joules a FLOP by class, joules a byte; the board's limit caps it."""
    numbers = device["power"]
    flop_j = numbers["flop_j"][bytes_of(dtype)[2]]
    return ops.minimum(
        numbers["limit_w"], numbers["p0_w"] + (flop_j * flops + numbers["byte_j"] * data) / time_s
    )


def power_axes(ops: Any, kind: str, dtype: str, flops: Any, data: Any, time_s: Any, device: Any) -> List[Any]:
    """Coordinates (log2) of the power's tables: use of the peak and of the bandwidth, microseconds."""
    peak, bandwidth = _rates(kind, dtype, device)
    parts = (flops / time_s / peak, data / time_s / bandwidth, time_s * 1e6)
    return [ops.log2(ops.maximum(x, 2.0**-10)) for x in parts]


def shape_axes(ops: Any, kind: str, shape: Sequence[Any]) -> List[Any]:
    """Coordinates of the power's second table: those of time, and of attention the head's width and a window."""
    points = axes(ops, kind, shape)
    if kind == "decode":
        points += [ops.log2(shape[4]), ops.where(shape[5] > 0, 2.0 + 0.0 * shape[5], 0.0 * shape[5])]
    return points


def power(
    kind: str, dtype: str, shape: Sequence[float], flops: float, data: float, time_s: float, device: Any
) -> float:
    """Watts of one kernel: the law, and the corrections of its kind (by rates, by shape) where they were fitted."""
    numbers = device["power"]
    watts: float = law_power(Scalar, kind, dtype, flops, data, time_s, device)
    if any(name.startswith(kind + "|") for name in numbers["tables"]):
        rates, shapes = numbers["tables"][nearest(numbers["tables"], "%s|%s" % (kind, dtype))]
        value = correction(rates, power_axes(Scalar, kind, dtype, flops, data, time_s, device))
        value += correction(shapes, shape_axes(Scalar, kind, shape))
        watts *= math.exp(min(max(value, -BOUND), BOUND))
    return float(min(watts, numbers["limit_w"]))
