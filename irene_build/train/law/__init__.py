"""The physical law: its numbers and their priors, its twin in numpy, its fit to whole models, its intervals."""
