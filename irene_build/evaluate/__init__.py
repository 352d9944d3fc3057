"""Protocols, metrics, and the paper's tables and figures."""
