"""Named architectures, and how to build any nn.Module without weights."""
