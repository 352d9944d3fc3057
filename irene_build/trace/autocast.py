"""``torch.autocast`` for tensors without values, which torch leaves alone: the casts are made, and counted, here.

Source of the lists: the operators of CUDA and of the CPU "that can autocast" in the documentation of ``torch.amp``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

_DEVICES = ("cuda", "cpu", "xpu")
_LOWER = (
    "nn.functional.linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "einsum",
    "chain_matmul", "linalg.multi_dot", "Tensor.matmul", "Tensor.__matmul__", "Tensor.__rmatmul__", "Tensor.mm",
    "Tensor.bmm", "Tensor.addmm", "Tensor.baddbmm", "nn.functional.scaled_dot_product_attention", "prelu",
    *(f"{where}conv{kind}{n}d" for where in ("", "nn.functional.") for kind in ("", "_transpose") for n in (1, 2, 3)),
)  # fmt: skip
_FULL = (
    "nn.functional.softmax", "softmax", "Tensor.softmax", "nn.functional.log_softmax", "log_softmax",
    "nn.functional.layer_norm", "layer_norm", "nn.functional.group_norm", "group_norm", "norm", "Tensor.norm", "exp",
    "Tensor.exp", "log", "Tensor.log", "pow", "Tensor.pow", "Tensor.__pow__", "sum", "Tensor.sum", "prod", "cumsum",
    "Tensor.cumsum", "cumprod", "rsqrt", "Tensor.rsqrt", "reciprocal", "nn.functional.softplus", "cdist",
    "nn.functional.cosine_similarity", "nn.functional.normalize", "log1p", "expm1",
)  # fmt: skip
#: On the CPU norms and softmax stay in the lower dtype.
_FULL_ON_CPU = ("prod", "cdist", "nn.functional.grid_sample", "polar")


def _device_now() -> str | None:
    return next((kind for kind in _DEVICES if torch.is_autocast_enabled(kind)), None)


def dtype_now() -> torch.dtype | None:
    """The dtype that products are cast to; None outside of autocast."""
    kind = _device_now()
    return None if kind is None else torch.get_autocast_dtype(kind)


@cache
def _policies(device: str) -> dict[Any, bool]:
    """Function -> whether it runs in the lower dtype (else in float32)."""
    table: dict[Any, bool] = {}
    for names, lower in ((_FULL_ON_CPU if device == "cpu" else _FULL, False), (_LOWER, True)):
        for name in names:
            target: Any = torch
            for part in name.split("."):
                target = getattr(target, part, None)
            if target is not None:
                table[target] = lower
    return table


def casts(func: Any) -> bool:
    """Whether ``func`` is one whose operands autocast casts, now."""
    device = _device_now()
    return device is not None and func in _policies(device)


def cast(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of ``func`` in the dtype that autocast runs it in."""
    dtype = dtype_now() if _policies(_device_now() or "cuda")[func] else torch.float32

    def changed(tensor: Any) -> Any:
        floating = tensor.is_floating_point() and tensor.dtype is not torch.float64
        return tensor.to(dtype) if floating and tensor.dtype is not dtype else tensor

    new_args, new_kwargs = tree_map_only(torch.Tensor, changed, (args, kwargs))
    return new_args, new_kwargs
