"""Estimator -> ONNX graph, Python module, manifest, parity check."""
