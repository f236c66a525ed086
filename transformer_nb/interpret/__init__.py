"""Look inside a model: read, compare and replace its activations."""
