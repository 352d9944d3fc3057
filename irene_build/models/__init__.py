"""Named architectures, and how to build any nn.Module without its weights."""

from .build import build
from .specs import architectures, resolve

__all__ = ["architectures", "build", "resolve"]
