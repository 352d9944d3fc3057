"""Builds the ``nn.Module`` of a model on a device: on meta its structure, without weights."""

from __future__ import annotations

from typing import Any

from irene_build.errors import ModelError

from .specs import Spec, resolve
from .unwrap import in_evaluation, plain_module

DTYPES = ("float32", "float16", "bfloat16")
ATTENTIONS = ("eager", "sdpa")


def build(spec: str, dtype: str = "float32", attention: str = "sdpa", device: str = "meta") -> Any:
    """The module of ``spec``, in evaluation mode.

    ``spec``: a named architecture, a transformers ``config.json`` or its folder, ``ORGANISATION/NAME``
    on the hub, or ``package.module:factory``. On the meta device it has no weights; on a real one
    (``cpu``, ``cuda``) they are random. Raises ModelError.
    """
    for value, known, what in ((dtype, DTYPES, "dtype"), (attention, ATTENTIONS, "attention")):
        if value not in known:
            raise ModelError(f"{what} {value!r}: expected one of {', '.join(known)}")
    return instantiate(resolve(spec), dtype, attention, device)


def instantiate(spec: Spec, dtype: str, attention: str, device: str) -> Any:
    """The module of a resolved spec. Attention falls back to eager where the class knows no other."""
    import torch

    if spec.factory is not None:
        try:
            with torch.device(device):
                module = spec.factory()
        except Exception as error:
            raise ModelError(f"{spec.name} raised {type(error).__name__}: {error}") from error
        module = plain_module(module, f"what {spec.name} returned")
        return in_evaluation(module.to(getattr(torch, dtype)))
    settings = {"dtype": getattr(torch, dtype)}
    try:
        with torch.device(device):
            try:
                module = spec.kind._from_config(spec.config, attn_implementation=attention, **settings)
            except ValueError as error:
                if "attn_implementation" not in str(error) and "attention" not in str(error):
                    raise
                module = spec.kind._from_config(spec.config, attn_implementation="eager", **settings)
    except ImportError as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelError(f"{spec.name} needs a package that is not installed: {first}") from None
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(f"{spec.name} cannot be built: {type(error).__name__}: {first}") from error
    # Parameters made by torch.Tensor(...) ignore the device context.
    return module.to(device).eval() if device == "meta" else module.eval()


def attention_of(module: Any) -> str | None:
    """``eager`` or ``sdpa`` as the module really uses it, None where it does not say."""
    return getattr(getattr(module, "config", None), "_attn_implementation", None)
