"""Weights stored in fewer bits: the bytes of each scheme with its scales, which matrices are, what a checkpoint says.

No common recipe touches the output projection (``lm_head``), routers of experts, or vectors; they keep their dtype.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from irene_build.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scheme:
    """``bits`` a weight; for each ``group`` of weights of a row (0: the whole row; a block of group x group where
    ``block``) ``group_bytes`` of scales and zero points; ``column_bytes`` an input column."""

    bits: int
    group: int
    group_bytes: float
    column_bytes: float = 0.0
    block: bool = False

    def bytes_of(self, shape: Collection[int]) -> float:
        """Bytes of a matrix, or a stack of them, [..., rows, columns]."""
        *lead, rows, columns = shape
        stack = prod(lead)
        if self.block:
            groups = ceil(rows / self.group) * ceil(columns / self.group)
        else:
            groups = rows * (ceil(columns / self.group) if self.group else 1)
        return stack * (
            rows * columns * self.bits / 8 + groups * self.group_bytes + columns * self.column_bytes
        )


#: Sources: bitsandbytes (float32 absmax a row, or a block of 64), AutoGPTQ and AutoAWQ (float16 scale and 4-bit zero
#: point a group; GPTQ an int32 group index a column), DeepSeek-V3 (float32 a block of 128 x 128), OCP MX, NVIDIA NVFP4.
SCHEMES = {
    "int8": Scheme(8, 0, 4), "int8-pure": Scheme(8, 0, 4), "int4": Scheme(4, 128, 2), "nf4": Scheme(4, 64, 4),
    "gptq": Scheme(4, 128, 2.5, 4), "awq": Scheme(4, 128, 2.5), "fp8": Scheme(8, 0, 4),
    "fp8-block": Scheme(8, 128, 4, block=True), "nvfp4": Scheme(4, 16, 1), "mxfp4": Scheme(4, 32, 1),
}  # fmt: skip
#: Leaves whose matrices are stored so where the model's weights are.
_LEAVES = ("Linear", "Conv1D", "GroupedExperts")
_ROUTERS = re.compile(r"Router|Gate$|Gating|TopK")
_HEADS = ("lm_head", "embed_out", "output_projection", "proj_out")


@dataclass(frozen=True)
class Stored:
    """How a model's weights are stored. ``kept``: names or patterns of modules that keep their dtype;
    ``only_experts``: no other matrices are stored so; ``head``: the output projection is as well."""

    scheme: str
    group: int | None = None
    bits: int | None = None
    kept: tuple[str, ...] = ()
    only_experts: bool = False
    head: bool = False

    def bytes_of(self, shape: Collection[int]) -> float:
        found = SCHEMES[self.scheme]
        bits = self.bits or found.bits
        # A zero point has the bits of a weight.
        scales = found.group_bytes if found.group_bytes != 2.5 else 2 + bits / 8
        group = found.group if self.group is None or found.block else max(self.group, 0)
        return Scheme(bits, group, scales, found.column_bytes, found.block).bytes_of(shape)

    def is_stored(self, primitive: str, module: str) -> bool:
        """Linear layers, and products that a module of experts computes, however it does. ``module``: its type."""
        if _ROUTERS.search(module):
            return False
        experts = primitive == "GroupedExperts" or (primitive == "MatMul" and module.endswith("Experts"))
        return experts or (primitive in _LEAVES and not self.only_experts)

    def kept_by(self, module: Any) -> set[int]:
        """Ids of the parameters of ``module`` that keep their dtype."""
        kept: set[int] = set()
        output = getattr(module, "get_output_embeddings", None)
        head = output() if callable(output) else None
        for name, part in module.named_modules():
            is_head = part is head or name.rpartition(".")[2] in _HEADS
            if (is_head and not self.head) or any(_matches(pattern, name) for pattern in self.kept):
                kept |= {id(p) for p in part.parameters()}
        return kept


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        return bool(re.match(pattern[3:], name))
    return bool(name) and (name == pattern or name.endswith(f".{pattern}") or name.startswith(f"{pattern}."))


def stored_bytes(parameters: Iterable[Tensor], weight_bytes: float, stored: Stored, kept: set[int]) -> float:
    """Bytes that are read of weights that are stored so.

    ``parameters``: those that were read; vectors (biases) stay as they are. ``weight_bytes``: how much of them was
    read at their full size; the same share is read of the small ones.
    """
    full = small = 0.0
    for parameter in parameters:
        size = float(parameter.numel() * parameter.element_size())
        full += size
        plain = parameter.dim() < 2 or id(parameter) in kept or not parameter.is_floating_point()
        small += size if plain else stored.bytes_of(parameter.shape)
    return weight_bytes * small / full if full else weight_bytes


def of_config(settings: Mapping[str, Any] | None, where: str) -> Stored | None:
    """What a checkpoint's ``quantization_config`` says. Raises ModelError for a method that is not known here."""
    if not settings:
        return None
    method = str(settings.get("quant_method", "bitsandbytes")).lower()
    group, bits = settings.get("group_size"), settings.get("bits", settings.get("w_bit"))
    skipped = (
        settings.get("modules_to_not_convert")
        or settings.get("ignore")
        or settings.get("exclude_modules")
        or ()
    )
    kept = tuple(str(name) for name in skipped)
    if method == "bitsandbytes":
        return Stored(
            "nf4" if settings.get("load_in_4bit") else "int8",
            kept=tuple(settings.get("llm_int8_skip_modules") or kept),
        )
    if method in ("gptq", "awq"):
        return Stored(method, group, bits, kept, head=bool(settings.get("lm_head")))
    if method == "fp8":
        return Stored("fp8-block" if settings.get("weight_block_size") else "fp8", kept=kept)
    if method in ("fbgemm_fp8", "ptpc_fp8"):
        return Stored("fp8", kept=kept)
    if method == "mxfp4":
        return Stored("mxfp4", kept=kept, only_experts=True)
    if method == "hqq":
        inner = (settings.get("quant_config") or {}).get("weight_quant_params", settings)
        return Stored("int4", inner.get("group_size"), inner.get("nbits", 4), kept)
    if method in ("quanto", "eetq", "torchao", "quark", "modelopt", "compressed-tensors"):
        return _by_words(settings, kept, where)
    raise ModelError(
        f"{where}: its weights are stored by {method!r}, whose bytes are not known here; pass --weights with the "
        f"nearest of {', '.join(SCHEMES)}, or --weights full to count them at --dtype"
    )


def _by_words(settings: Mapping[str, Any], kept: tuple[str, ...], where: str) -> Stored:
    """Formats that nest their numbers: the first group of compressed-tensors, else a word like int4."""
    groups = settings.get("config_groups")
    if isinstance(groups, Mapping) and groups:
        weights = next(iter(groups.values())).get("weights") or {}
        bits, group = int(weights.get("num_bits", 8)), weights.get("group_size")
        if weights.get("type") == "float":
            block = weights.get("strategy") == "block"
            return Stored("nvfp4" if bits == 4 else "fp8-block" if block else "fp8", kept=kept)
        return Stored("int8" if bits == 8 and not group else "int4", group, bits, kept)
    words = str(
        {
            k: v
            for k, v in settings.items()
            if k not in ("ignore", "exclude_modules", "modules_to_not_convert")
        }
    ).lower()
    for scheme, sought in (
        ("nvfp4", "nvfp4|fp4"), ("fp8", "fp8|float8"), ("int4", "int4|uint4"), ("int8", "int8|eetq"),
    ):  # fmt: skip
        if re.search(sought, words):
            return Stored(scheme, kept=kept)
    raise ModelError(
        f"{where}: its quantization_config does not say how many bits a weight has; pass --weights"
    )
