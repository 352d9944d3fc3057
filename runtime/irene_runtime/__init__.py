"""What ships: tree format, samplers, feature resolution and evaluation. Standard library only."""
