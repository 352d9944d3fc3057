"""Primitive regressors, tree aggregation, intervals, baselines."""
