"""nn.Module -> ModelTree: hooks and dispatch modes on the meta device, FLOP and byte counts."""

from .tracer import trace

__all__ = ["trace"]
