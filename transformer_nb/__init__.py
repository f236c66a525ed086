"""The Transformer of "Attention Is All You Need", layer by layer."""

__version__ = "0.1.0"
