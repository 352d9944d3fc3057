"""What an engine launches for a tree, and the estimators that are trained on kernels and on whole serving runs."""
