"""Counts of operators by kind: layouts of attention, linear algebra, packed weights, complex and batched tensors."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from irene_build.trace import trace_model
from irene_build.trace.attention import attended_pairs

aten: Any = torch.ops.aten


class Fn(nn.Module):
    """A function of the module and its inputs, with attributes of any kind."""

    def __init__(self, function: Callable[..., Any], **attributes: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, **inputs: Any) -> Any:
        return self.function(self, *inputs.values())


def root(module: nn.Module, **inputs: Any) -> dict[str, float]:
    """FLOPs and bytes of the whole, in units of one."""
    found = trace_model(module, 1, 1, inputs=inputs).nodes[0].features
    flops = {name: round(found[name] * 1e6) for name in ("flops", "matmul_flops")}
    return {
        **flops,
        **{n: round(v * 2**20) for n, v in found.items() if n.endswith("_bytes")},
        "unseen": found.get("unseen", 0),
    }


def leaf(module: nn.Module, primitive: str, **inputs: Any) -> dict[str, float]:
    tree = trace_model(module, 1, 1, inputs=inputs)
    (node,) = [n for n in tree.nodes if n.primitive == primitive]
    return node.features


# Attention

B, M, H, K = 2, 12, 3, 8


@pytest.mark.parametrize(
    ("attend", "shape"),
    [
        (lambda q: aten._scaled_dot_product_flash_attention_for_cpu(q, q, q)[0], (B, H, M, K)),
        (lambda q: aten._scaled_dot_product_efficient_attention(q, q, q, None, False)[0], (B, H, M, K)),
        (lambda q: aten._scaled_dot_product_flash_attention(q, q, q)[0], (B, H, M, K)),
        (lambda q: aten._flash_attention_forward(q, q, q, None, None, M, M, 0.0, False, False)[0], (B, M, H, K)),
        (lambda q: aten._efficient_attention_forward(q, q, q, *[None] * 5, 0.0, 0, False)[0], (B, M, H, K)),
        (lambda q: F.scaled_dot_product_attention(q, q, q), (B, H, M, K)),
    ],
    ids=["cpu", "sdpa efficient", "sdpa flash", "flash", "efficient", "function"],
)  # fmt: skip
def test_attention_is_counted_in_the_layout_of_its_operator(attend: Any, shape: tuple[int, ...]) -> None:
    found = root(Fn(lambda s, q: attend(q)), q=torch.zeros(shape, dtype=torch.bfloat16))
    assert found["matmul_flops"] == 4 * B * H * M * M * K
    assert found["flops"] == 4 * B * H * M * M * K + 5 * B * H * M * M


def test_sequences_of_different_lengths_attend_within_themselves() -> None:
    ends = torch.tensor([0, 3, 10], dtype=torch.int32)
    q = torch.zeros(10, H, K, dtype=torch.bfloat16)

    def attend(s: Any, q: Any, ends: Any) -> Any:
        return aten._flash_attention_forward(q, q, q, ends, ends, 7, 7, 0.0, True, False)[0]

    found = leaf(Fn(attend), "Attention", q=q, ends=ends)
    assert found["matmul_flops"] * 1e6 == pytest.approx(4 * H * (9 + 49) * K)
    assert found["attended"] == H * (6 + 28)


@pytest.mark.parametrize(
    ("q", "k", "mask", "batch"),
    [
        ((1, H, M, K), (5, H, M, K), None, 5 * H), ((5, 1, M, K), (1, H, M, K), None, 5 * H),
        ((M, K), (4, M, K), None, 4), ((B, H, M, K), (B, 1, M, K), (M, M), B * H),
        ((B, H, M, K), (B, H, M, K), (1, 1, M, M), B * H),
    ],
)  # fmt: skip
def test_batches_of_queries_keys_and_masks_are_broadcast(q: Any, k: Any, mask: Any, batch: int) -> None:
    given_mask = None if mask is None else torch.zeros(mask)

    def attend(s: Any, q: Any, k: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, k, given_mask).sum(0)

    tree = trace_model(Fn(attend), 1, 1, inputs={"q": torch.zeros(q), "k": torch.zeros(k)})
    (node,) = [n for n in tree.nodes if n.primitive == "Attention"]
    assert node.features["matmul_flops"] * 1e6 == pytest.approx(4 * batch * M * M * K)
    real = F.scaled_dot_product_attention(torch.zeros(q), torch.zeros(k), torch.zeros(k), given_mask)
    assert (node.shapes or {})["out"][0].partition(":")[0] == "x".join(map(str, real.shape))


def test_a_causal_leaf_tells_what_its_kernel_computes() -> None:
    def attend(causal: bool) -> dict[str, float]:
        module = Fn(lambda s, q: F.scaled_dot_product_attention(q, q, q, is_causal=causal))
        return leaf(module, "Attention", q=torch.zeros(B, H, M, K))

    both, causal = attend(False), attend(True)
    assert both["matmul_flops"] == causal["matmul_flops"]
    assert both["attended"] == B * H * M * M and causal["attended"] == B * H * M * (M + 1) // 2


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.integers(0, 9), st.integers(0, 9), st.integers(-1, 9), st.integers(-1, 9), st.integers(-9, 9)
)  # fmt: skip
def test_attended_pairs_are_those_of_the_mask(
    queries: int, keys: int, left: int, right: int, offset: int
) -> None:
    pairs = sum(
        (left < 0 or j >= i + offset - left) and (right < 0 or j <= i + offset + right)
        for i in range(queries)
        for j in range(keys)
    )
    assert attended_pairs(queries, keys, left, right, offset) == pairs


def test_flex_attention_is_a_leaf_of_fused_attention() -> None:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q = torch.zeros(1, 2, 512, 16)
    assert leaf(Fn(lambda s, q: flex_attention(q, q, q)), "Attention", q=q)["attended"] == 2 * 512 * 512
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 512, 512, device="cpu")
    found = leaf(Fn(lambda s, q: flex_attention(q, q, q, block_mask=mask)), "Attention", q=q)
    # Four by four blocks of 128: ten of them are not left out.
    assert found["attended"] == 2 * 10 * 128 * 128
    assert found["matmul_flops"] * 1e6 == pytest.approx(4 * 2 * 512 * 512 * 16)


def test_control_flow_runs_as_it_is_written() -> None:
    linear = nn.Linear(8, 8, bias=False)

    def branch(s: Any, x: Any) -> Any:
        return torch.cond(x.shape[0] > 1, lambda x: s.l(x), lambda x: x, (x,))

    assert root(Fn(branch, l=linear), x=torch.zeros(3, 8))["matmul_flops"] == 2 * 3 * 64

    def loop(s: Any, x: Any) -> Any:
        from torch._higher_order_ops import while_loop

        start = torch.tensor(0)
        return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x @ s.w), (start, x))

    assert (
        root(Fn(loop, w=nn.Parameter(torch.zeros(8, 8))), x=torch.zeros(4, 8))["matmul_flops"]
        == 3 * 2 * 4 * 64
    )


# Operators that no table of aten's products knows


@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (torch.linalg.solve, [(6, 6), (6, 2)], 2 / 3 * 6**3 + 2 * 36 * 2), (torch.linalg.inv, [(6, 6)], 2 * 6**3),
        (torch.linalg.cholesky, [(3, 6, 6)], 3 * 6**3 / 3), (torch.linalg.qr, [(6, 3)], 4 * 9 * (6 - 1)),
        (torch.linalg.eigh, [(6, 6)], 9 * 6**3),
    ],
)  # fmt: skip
def test_linear_algebra_has_the_counts_of_the_textbook(function: Any, shapes: Any, flops: float) -> None:
    inputs = {f"x{i}": torch.zeros(shape) for i, shape in enumerate(shapes)}
    found = root(Fn(lambda s, *xs: function(*xs)), **inputs)
    assert (
        found["flops"] == pytest.approx(flops, abs=1) and found["matmul_flops"] == 0 and not found["unseen"]
    )


def test_a_bag_reads_the_rows_that_it_adds_up() -> None:
    ids, offsets = torch.zeros(400, dtype=torch.long), torch.arange(0, 400, 100)
    found = root(nn.EmbeddingBag(1000, 64, mode="sum"), input=ids, offsets=offsets)
    assert (found["weight_bytes"], found["flops"]) == (400 * 64 * 4, 400 * 64)


def test_a_bilinear_layer_is_two_contractions() -> None:
    found = root(nn.Bilinear(3, 4, 5, bias=False), input1=torch.zeros(2, 3), input2=torch.zeros(2, 4))
    assert found["flops"] == 2 * 2 * 5 * 3 * 4 + 2 * 2 * 5 * 4


def _custom(name: str, formula: bool) -> Any:
    space = f"irene{uuid.uuid4().hex[:8]}"
    schema = "(Tensor a, Tensor w) -> Tensor"
    op: Any = torch.library.custom_op(
        f"{space}::{name}", lambda a, w: a @ w.T, mutates_args=(), schema=schema
    )
    op.register_fake(lambda a, w: a.new_empty(a.shape[0], w.shape[0]))
    found = getattr(getattr(torch.ops, space), name)
    if formula:
        register_flop_formula(found)(lambda a, w, out_shape=None, **_: 2 * a[0] * a[1] * w[0])
    return found


@pytest.mark.parametrize("name", ["linear8", "mv", "index"])
def test_a_custom_operator_has_the_flops_that_were_registered_for_it(name: str) -> None:
    op = _custom(name, True)
    module = Fn(lambda s, x: op(x, s.w), w=nn.Parameter(torch.zeros(4, 8)))
    found = root(module, x=torch.zeros(6, 8))
    assert (found["matmul_flops"], found["weight_bytes"], found["unseen"]) == (2 * 6 * 8 * 4, 4 * 8 * 4, 0)


def test_what_nobody_can_count_is_marked() -> None:
    op = _custom("secret", False)
    module = nn.Sequential(nn.Linear(8, 8), Fn(lambda s, x: op(x, s.w), w=nn.Parameter(torch.zeros(4, 8))))
    module[1].forward = lambda x: op(x, module[1].w)  # type: ignore[method-assign, assignment]
    tree = trace_model(module, inputs=torch.zeros(6, 8))
    marked = [n.primitive or n.level for n in tree.nodes if n.features.get("unseen")]
    assert marked == ["model", "module", "Custom"]


# Weights that are no plain tensors


@pytest.mark.filterwarnings("ignore")
def test_packed_weights_of_dynamic_quantisation_are_seen() -> None:
    layer = nn.Sequential(nn.Linear(64, 32))
    packed = torch.ao.quantization.quantize_dynamic(layer, {nn.Linear}, dtype=torch.qint8)
    tree = trace_model(packed, inputs=torch.zeros(4, 64))
    found = tree.nodes[0].features
    assert found["matmul_flops"] * 1e6 == pytest.approx(2 * 4 * 64 * 32)
    assert found["weight_bytes"] * 2**20 == pytest.approx(64 * 32 + 32 * 4)
    assert found["num_parameters"] == 64 * 32 + 32 and "unseen" not in found


class Codes(torch.Tensor):
    """A weight of 8 bits and a scale a row, as libraries of quantisation subclass tensors."""

    @staticmethod
    def __new__(cls, codes: Any, scale: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scale.dtype, device=codes.device)

    def __init__(self, codes: Any, scale: Any) -> None:
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self) -> Any:
        return ["codes", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: Any, *_: Any) -> Any:
        return cls(inner["codes"], inner["scale"])

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            return args[0] @ (args[1].codes.to(args[1].scale.dtype) * args[1].scale[:, None]).T
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def apply(t: Any) -> Any:
            return cls(func(t.codes, *args[1:], **_plain(kwargs)), func(t.scale, *args[1:], **_plain(kwargs)))

        return apply(args[0])


def _plain(kwargs: Any) -> dict[str, Any]:
    return {k: v for k, v in (kwargs or {}).items() if k != "dtype"}


def test_a_weight_of_a_subclass_has_the_bytes_of_its_parts() -> None:
    layer = nn.Linear(64, 16, bias=False)
    layer.weight = nn.Parameter(Codes(torch.zeros(16, 64, dtype=torch.int8), torch.ones(16)), False)
    found = root(nn.Sequential(layer), input=torch.zeros(8, 64))
    assert (found["matmul_flops"], found["weight_bytes"]) == (2 * 8 * 64 * 16, 16 * 64 + 16 * 4)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_sparse_weight_counts_what_it_stores() -> None:
    layer = nn.Linear(8, 4)
    kept = torch.arange(32).view(4, 8) % 4 == 0
    layer.weight = nn.Parameter((kept * 1.0).to_sparse_csr(), requires_grad=False)
    found = root(nn.Sequential(layer), input=torch.zeros(6, 8))
    assert found["matmul_flops"] == 2 * 6 * 8
    assert found["weight_bytes"] == 5 * 8 + 8 * 8 + 8 * 4 + 4 * 4


def test_weights_in_lists_and_tables_that_are_not_registered_are_read() -> None:
    module = Fn(lambda s, x: s.last(s.others[0](x)), others=[nn.Linear(8, 8)], last=nn.Linear(8, 8))
    found = root(module, x=torch.zeros(6, 8))
    assert (found["matmul_flops"], found["weight_bytes"]) == (2 * 2 * 6 * 64, 2 * (64 + 8) * 4)
    table = Fn(lambda s, i: s.l(F.embedding(i, s.table)), table=torch.zeros(9, 8), l=nn.Linear(8, 4))
    assert root(table, i=torch.zeros(2, 5, dtype=torch.long))["matmul_flops"] == 2 * 10 * 8 * 4


# Numbers and tensors of other kinds


def test_complex_values_take_several_real_operations() -> None:
    a = torch.zeros(4, 8, dtype=torch.cfloat)
    assert root(Fn(lambda s, a: a @ a.mT), a=a)["matmul_flops"] == 8 * 4 * 8 * 4
    assert root(Fn(lambda s, a: a * a), a=a)["flops"] == 6 * 32
    assert root(nn.Linear(8, 5, bias=False, dtype=torch.cfloat), input=a)["matmul_flops"] == 8 * 4 * 8 * 5
    convolution = nn.Conv1d(3, 4, 3, dtype=torch.cfloat)
    found = root(convolution, input=torch.zeros(2, 3, 10, dtype=torch.cfloat))
    assert found["matmul_flops"] == 3 * 2 * 16 * 36


def test_a_mapped_function_counts_all_samples() -> None:
    module = Fn(lambda s, x: torch.vmap(F.linear)(x, s.w), w=nn.Parameter(torch.zeros(4, 16, 8)))
    assert root(module, x=torch.zeros(4, 5, 8))["matmul_flops"] == 2 * 4 * 5 * 8 * 16
    layer = Fn(lambda s, x: torch.vmap(s.l)(x), l=nn.Linear(8, 16))
    assert root(layer, x=torch.zeros(4, 5, 8))["matmul_flops"] == 2 * 4 * 5 * 8 * 16


def test_jagged_sequences_count_their_tokens() -> None:
    def forward(s: Any, x: Any) -> Any:
        nested = torch.nested.nested_tensor([x[:2], x[2:]], layout=torch.jagged)
        return s.l(nested).values()

    found = root(Fn(forward, l=nn.Linear(8, 4)), x=torch.zeros(6, 8))
    assert found["matmul_flops"] == 2 * 6 * 8 * 4


def test_operations_on_jagged_sequences_are_those_on_their_tokens() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2, 8), torch.zeros(4, 8)], layout=torch.jagged)
    module = Fn(lambda s, n: (F.silu(n) @ s.w).values(), w=nn.Parameter(torch.zeros(8, 4)))
    found = root(module, n=nested)
    assert (found["matmul_flops"], found["flops"], found["unseen"]) == (
        2 * 6 * 8 * 4,
        2 * 6 * 8 * 4 + 5 * 48,
        0,
    )


@pytest.mark.filterwarnings("ignore")
def test_operators_on_codes_of_8_bits_are_known() -> None:
    codes = torch.quantize_per_tensor(torch.zeros(6, 8), 0.1, 0, torch.quint8)

    def forward(s: Any, x: Any) -> Any:
        y = torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)
        return torch.ops.quantized.add(y, y, 0.1, 0).dequantize()

    found = root(Fn(forward), x=codes.dequantize())
    assert (found["flops"], found["unseen"]) == (3 * 48 + 48 + 2 * 48, 0)
