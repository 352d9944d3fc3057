"""What ships: tree format, samplers, feature resolution and evaluation. Standard library only."""

#: The modules in the order in which the generated file holds them: each uses only those before it.
MODULES = (
    "errors", "features", "tree", "equations", "prediction", "explain", "gpu", "sampler", "monitor", "attach",
    "onnx_backend", "model", "main",
)  # fmt: skip
