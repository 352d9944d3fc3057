"""A compiler from a PC and PyTorch models to a standalone energy estimator for that PC."""

__version__ = "0.1.0"
