"""Published models and PyTorch's own modules, converted to the classes of this package and back."""

from .export import to_huggingface
from .huggingface import FAMILIES, from_huggingface
from .torch_modules import from_torch

__all__ = ["FAMILIES", "from_huggingface", "from_torch", "to_huggingface"]
