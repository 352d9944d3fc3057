"""What ships: tree format, samplers, feature resolution and evaluation. Standard library only."""

#: What the generated module offers to ``from irene_estimator import *``, beside its errors.
PUBLIC = (
    "Attached", "Drift", "Estimator", "ModelTree", "Monitor", "Node", "NodePrediction", "Prediction",
    "RequestPrediction", "SymbolicTree", "load_tree", "main",
)  # fmt: skip
#: The modules in the order in which the generated file holds them: each uses only those before it.
MODULES = (
    "errors", "features", "tree", "expressions", "outline", "symbolic", "equations", "law", "prediction", "explain",
    "gpu", "proc", "sampler", "monitor", "attach", "onnx_backend", "unmeasured", "ragged",
    "request_prediction", "generation", "given", "evaluation", "views", "model", "serve_metrics", "serve", "main",
)  # fmt: skip
