"""Breakdown, HTML, figures."""
