"""nn.Module -> ModelTree: hooks and dispatch modes on the meta device, FLOP and byte counts."""

from .api import trace_model

#: The earlier name of ``trace_model``.
trace = trace_model

__all__ = ["trace", "trace_model"]
