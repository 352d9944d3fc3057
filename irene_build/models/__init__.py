"""Named architectures, and how to build any nn.Module without its weights."""

from .build import architectures, build

__all__ = ["architectures", "build"]
