"""Published models and PyTorch's own, in the classes of this package, and back."""
