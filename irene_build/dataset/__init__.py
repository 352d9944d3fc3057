"""Labelled trees: from a campaign, from the published files; splits."""
