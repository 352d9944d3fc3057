"""The campaign: plan, repeat, gate, journal, resume."""
