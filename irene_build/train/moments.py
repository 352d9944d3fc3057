"""A random-effects mean: numbers of several hosts, each with its own error, as drawn from one distribution."""

from __future__ import annotations

import numpy as np


def moments(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, deviation between hosts, and how unsure the mean is, of float64[hosts, numbers] with their errors.

    DerSimonian and Laird, Controlled Clinical Trials 7 (1986). One host says nothing of a deviation: 0.
    """
    weight = 1.0 / np.maximum(errors, 1e-12) ** 2
    total = weight.sum(axis=0)
    fixed = (weight * values).sum(axis=0) / total
    scatter = (weight * (values - fixed) ** 2).sum(axis=0)
    scale = total - (weight**2).sum(axis=0) / total
    beyond = np.maximum(0.0, scatter - (len(values) - 1.0))
    between = np.sqrt(np.where(scale > 0.0, beyond / np.where(scale > 0.0, scale, 1.0), 0.0))
    weight = 1.0 / (np.maximum(errors, 1e-12) ** 2 + between**2)
    mean = (weight * values).sum(axis=0) / weight.sum(axis=0)
    return mean, between, 1.0 / np.sqrt(weight.sum(axis=0))
