"""What tensors are made of: what holds the data of quantised, sparse, nested and batched ones; bytes and text."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

if TYPE_CHECKING:
    from torch import Tensor

#: layout -> methods that give the plain tensors of a sparse one.
_SPARSE = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}
#: (class, part) that is stored and that no kernel reads: torchao's weights of 8 bits are symmetric.
_NOT_READ = frozenset([("Int8Tensor", "zero_point")])


def tensors_of(value: Any, into: list[Tensor] | None = None) -> list[Tensor]:
    """All tensors in nested lists, tuples and dicts, in order. Written out: it runs for every operation."""
    found: list[Any] = [] if into is None else into
    if hasattr(value, "untyped_storage"):
        found.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            tensors_of(item, found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            tensors_of(item, found)
    return found


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is strides over one storage, and nothing in between."""
    kind = type(tensor)
    return not hasattr(kind, "__tensor_flatten__") and tensor.layout is torch.strided and not tensor.is_nested


def is_batched(tensor: Tensor) -> bool:
    """Whether a transform (vmap, grad) wraps the tensor: its shape is then that of one sample."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def is_sparse(tensor: Tensor) -> bool:
    return tensor.layout in _SPARSE


def is_packed(tensor: Tensor) -> bool:
    """Whether it is a jagged nested tensor: sequences of different lengths behind each other."""
    return tensor.layout is torch.jagged


def parts_of(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that hold the data: codes and scales of a quantised one, indices and values of a sparse one."""
    if is_plain(tensor):
        return [_unwrapped(tensor)] if is_batched(tensor) else [tensor]
    if hasattr(type(tensor), "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        found = (getattr(tensor, name) for name in names if (type(tensor).__name__, name) not in _NOT_READ)
        return [part for inner in found if inner is not None for part in parts_of(inner)]
    if tensor.layout in _SPARSE:
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            return [getattr(tensor, name)() for name in _SPARSE[tensor.layout]]
    return [data_of(tensor)]


def _unwrapped(tensor: Tensor) -> Tensor:
    while is_batched(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def data_of(tensor: Tensor) -> Tensor:
    """The values of sequences that stand behind each other [tokens, ...]; any other tensor itself."""
    if is_packed(tensor):
        return tensor._values
    return _buffer(tensor) if tensor.is_nested else tensor


def _buffer(nested: Tensor) -> Tensor:
    """The values of a strided nested tensor [tokens, width], or in one row where widths differ."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        widths = set(nested._nested_tensor_size()[:, -1].tolist())
        values = nested.values()
        return values.view(-1, widths.pop()) if len(widths) == 1 else values


def numel(tensor: Tensor) -> int:
    """Elements, zeros of sparse tensors included."""
    return int(data_of(tensor).numel())


def stored(tensor: Tensor) -> int:
    """Elements that a sparse tensor stores; all of any other one."""
    return int(parts_of(tensor)[-1].numel()) if is_sparse(tensor) else numel(tensor)


def touched(tensor: Tensor) -> int:
    """Distinct elements that a plain tensor addresses: expanded dimensions (stride 0) count once."""
    if not is_plain(tensor):
        return int(tensor.numel())
    return prod(n for n, s in zip(tensor.shape, tensor.stride(), strict=True) if s) if tensor.numel() else 0


def nbytes(tensor: Tensor) -> int:
    """Bytes that reading all of a tensor moves: those of its parts."""
    return sum(touched(part) * part.element_size() for part in parts_of(tensor))


def storage_key(tensor: Tensor) -> int:
    """What tensors over the same memory share."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        parts = parts_of(tensor)
        return id(tensor) if parts[:1] == [tensor] or not parts else storage_key(parts[0])


def text_of(tensor: Tensor) -> str:
    """``8x32x768:float32``; its strides where the tensor is not contiguous (0 for a size of 1, where any will do)."""
    tensor = data_of(tensor)
    dtype = str(tensor.dtype)[6:]
    shape = "x".join(map(str, tensor.shape))
    if tensor.layout is not torch.strided or tensor.is_contiguous():
        return f"{shape}:{dtype}"
    strides = ",".join(str(s if n != 1 else 0) for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return f"{shape}:{dtype}/{strides}"
