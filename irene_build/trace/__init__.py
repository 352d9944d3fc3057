"""nn.Module -> ModelTree."""
