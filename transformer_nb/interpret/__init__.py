"""Look inside a model: read, compare and replace its activations."""

from .activations import activation_names, activations

__all__ = ["activation_names", "activations"]
